"""promtool, which judges metrics as Prometheus' own maintainers do.

Debian has it in the package `prometheus`, whose installation would start a server: the one program
is taken out of the package, once, and kept in the user's cache.
"""

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import cache

_INSIDE = "usr/bin/promtool"


class PromtoolError(Exception):
    """promtool cannot be had; the text says why."""


def check_metrics(text: str) -> str:
    """What `promtool check metrics` has to say of a scrape in the text format; empty if nothing.

    Raises PromtoolError.
    """
    done = _check(text, "metrics")
    said = (done.stdout + done.stderr).strip()
    return said or (f"exit status {done.returncode}" if done.returncode else "")


def check_rules(text: str) -> str:
    """What `promtool check rules` has against a file of alerts and recordings; empty if nothing.

    Raises PromtoolError.
    """
    done = _check(text, "rules", "/dev/stdin")
    return (done.stdout + done.stderr).strip() if done.returncode else ""


def promtool() -> Path:
    """The program, fetched by apt the first time. Raises PromtoolError."""
    program = cache.folder("prometheus") / "promtool"
    if not program.exists():
        with cache.locked(program.parent):
            if not program.exists():
                _fetch(program)
    return program


def _check(text: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [promtool(), "check", *words], input=text, capture_output=True, text=True, check=False
    )


def _fetch(program: Path) -> None:
    with cache.making(program) as folder:
        # apt holds what it downloads against its signed lists. It runs as the user who asks, whose
        # folder another one may not write to.
        _call(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=", "prometheus"], folder)
        (package,) = folder.glob("prometheus_*.deb")
        with (folder / "files.tar").open("wb") as files:
            _call(["dpkg-deb", "--fsys-tarfile", package.name], folder, files.fileno())
        _call(["tar", "--extract", "--file", "files.tar", f"./{_INSIDE}"], folder)
        (folder / _INSIDE).rename(folder / "out")


def _call(command: Sequence[str], folder: Path, output: int = subprocess.DEVNULL) -> None:
    if shutil.which(command[0]) is None:
        raise PromtoolError(f"{command[0]} is not installed: promtool is had from Debian's package")
    done = subprocess.run(command, cwd=folder, stdout=output, stderr=subprocess.PIPE, check=False)
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        hint = " (are apt's lists there? `apt-get update`)" if command[0] == "apt-get" else ""
        raise PromtoolError(f"{' '.join(command)}: {said}{hint}")
