"""One run of the guest: disks in, output out, and an end in every case."""

import os
import select
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from guest.checkout import write_checkout
from guest.host import GuestError, call
from guest.image import Image

KERNEL_ARGUMENTS = (
    "root=/dev/nvme0n1 rw console=ttyS0 loglevel=4 TERM=dumb "
    "psi=1 systemd.unified_cgroup_hierarchy=1 "
    "panic=-1 systemd.crash_reboot=yes "  # with -no-reboot: the end of QEMU
    # No time for what emulation makes slow. TCG's CPUs share the host's TSC, but start at different
    # times, which Linux takes for an unsteady clock and falls back to the slow HPET.
    "mitigations=off random.trust_cpu=on tsc=reliable"
)
MAILBOX_BYTES = 1 << 30  # sparse; the bound of what a command may leave in /results


@dataclass(frozen=True, slots=True)
class Machine:
    """The hardware and the patience: CPUs, memory in QEMU's notation, kernel arguments that come
    last (the last one wins), seconds until the guest is ended."""

    smp: int
    memory: str
    append: str
    timeout: float


def run(
    command: Sequence[str],
    *,
    machine: Machine,
    image: Image,
    packages: Path,
    results: Path | None,
) -> int:
    """Boot the guest, run the command in /repo, stream its output to stdout, return its status.

    What the command leaves in the guest's /results is written to the folder `results`. Raises
    GuestError, with the end of the guest's console, if the guest ends without a status.
    """
    with tempfile.TemporaryDirectory(prefix="peacemaker-guest-") as name:
        scratch = Path(name)
        mailbox, console = scratch / "mailbox", scratch / "console"
        write_checkout(scratch, scratch / "checkout.img")
        _post(command, scratch, mailbox)
        arguments = _arguments(machine, image, packages, scratch)
        try:
            with _started(arguments) as guest:
                _stream(guest, machine.timeout)
            return _collect(mailbox, scratch, results)
        except GuestError as error:
            raise GuestError(f"{error}\n{_tail(console)}") from None


def _arguments(machine: Machine, image: Image, packages: Path, scratch: Path) -> list[str]:
    drives = (
        ("root", image.root, "snapshot=on"),
        ("packages", packages, "snapshot=on"),
        ("checkout", scratch / "checkout.img", "cache=unsafe"),
        ("mailbox", scratch / "mailbox", "cache=unsafe"),
    )
    arguments = [
        *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none"),
        *("-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-no-reboot"),
        *("-smp", str(machine.smp), "-m", machine.memory),
        *("-kernel", str(image.kernel), "-append", f"{KERNEL_ARGUMENTS} {machine.append}"),
        *("-chardev", f"file,id=console,path={scratch / 'console'}"),
        *("-chardev", "stdio,id=output,signal=off"),
        *("-serial", "chardev:console", "-serial", "chardev:output"),
        # Namespaces of one controller: their names in the guest follow nsid, never probe order.
        *("-device", "nvme,id=disks,serial=guest"),
    ]
    for nsid, (name, path, mode) in enumerate(drives, start=1):
        arguments += ["-drive", f"if=none,id={name},file={path},format=raw,{mode}"]
        arguments += ["-device", f"nvme-ns,bus=disks,drive={name},nsid={nsid}"]
    return arguments


@contextmanager
def _started(arguments: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """The QEMU process; it is dead on leaving, and dies with this process if that is killed.

    In a session of its own: Ctrl-C reaches this process only, which then ends it.
    """
    bound = ["setpriv", "--pdeathsig", "KILL", "--"]
    guest = subprocess.Popen(
        [*bound, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield guest
    finally:
        guest.kill()
        guest.wait()


def _stream(guest: subprocess.Popen[bytes], timeout: float) -> None:
    """Copy the guest's output to stdout until QEMU closes it, at most timeout seconds long."""
    assert guest.stdout is not None
    deadline = time.monotonic() + timeout
    while True:
        left = max(0.0, deadline - time.monotonic())
        readable, _, _ = select.select([guest.stdout], [], [], left)
        if not readable:
            raise GuestError(f"timeout: guest (pid {guest.pid}) killed after {timeout:g} s")
        chunk = os.read(guest.stdout.fileno(), 1 << 16)
        if not chunk:
            return
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()


def _post(command: Sequence[str], scratch: Path, mailbox: Path) -> None:
    """Put the command where the guest looks for it: a tar archive on a raw disk."""
    (scratch / "command").write_text(f"exec {shlex.join(command)}\n")
    call(["tar", "-C", scratch, "-cf", mailbox, "command"])
    os.truncate(mailbox, MAILBOX_BYTES)


def _collect(mailbox: Path, scratch: Path, results: Path | None) -> int:
    """Read the guest's answer: the command's status, and its results into their folder."""
    answer = scratch / "answer"
    answer.mkdir()
    call(["tar", "-C", answer, "--no-same-owner", "-xf", mailbox])
    try:
        status = int((answer / "status").read_text())
    except FileNotFoundError:
        raise GuestError("the guest ended before the command did") from None
    if results is not None:
        results.mkdir(parents=True, exist_ok=True)
        call(["cp", "-R", f"{answer}/results/.", results])
    return status


def _tail(console: Path) -> str:
    said = console.read_bytes().decode(errors="replace") if console.exists() else ""
    lines = [line for line in said.splitlines() if line]
    if not lines:
        return "the guest's console is empty: QEMU or the kernel did not start"
    return "\n".join(["the end of the guest's console:", *lines[-40:]])
