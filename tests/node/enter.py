"""Become a program of an unpacked image: `unshare --mount python enter.py PLAN`, PLAN in JSON.

The image is read-only, with what a pod mounts, in the mount namespace of this process, which ends
with it. The program has no capability but the agent's, even as root.
"""

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TypedDict

CAP_SYS_NICE = 23
_PR_CAPBSET_DROP = 24
_PR_SET_NO_NEW_PRIVS = 38


class Plan(TypedDict):
    """user: `uid:gid`. environment: `NAME=value`. mounts: a host's folder, and its name in /run."""

    tree: str
    user: str
    environment: list[str]
    mounts: list[tuple[str, str]]
    command: list[str]


def main(plan: Plan) -> None:
    """Never returns."""
    tree = plan["tree"]
    _mount("--bind", tree, tree)
    _mount("-o", "remount,bind,ro", tree)
    for name in ("/proc", "/sys", "/dev"):
        _mount("--rbind", name, f"{tree}{name}")
    _mount("-t", "tmpfs", "tmpfs", f"{tree}/run")
    for host, inside in plan["mounts"]:
        Path(f"{tree}{inside}").mkdir()
        _mount("--bind", host, f"{tree}{inside}")
    os.chroot(tree)
    os.chdir("/")
    uid, gid = map(int, plan["user"].split(":"))
    os.setgroups([])
    os.setgid(gid)
    _drop_capabilities()
    os.setuid(uid)
    environment = dict(each.split("=", 1) for each in plan["environment"])
    os.execve(plan["command"][0], plan["command"], environment)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _drop_capabilities() -> None:
    """What is executed next can have CAP_SYS_NICE only: root has what is in the bounding set."""
    libc = ctypes.CDLL(None, use_errno=True)
    last = int(Path("/proc/sys/kernel/cap_last_cap").read_text())
    for capability in set(range(last + 1)) - {CAP_SYS_NICE}:
        if libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0):
            raise OSError(ctypes.get_errno(), f"capability {capability} cannot be dropped")
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs cannot be set")


main(json.loads(sys.argv[1]))
