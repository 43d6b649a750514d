"""What the test images are made of."""

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from lab.qemu import BINARY
from lab.spin import Image, rom
from node.images import oci

PAUSE: Final = "localhost/pause:1"
VM: Final = "localhost/vm:1"

GUESTS: Final = "/usr/share/guests"
"""Where the image `vm` has what guests run, a file for each of lab.spin.Image."""

_SOURCE = Path(__file__).with_name("launcher.c")
_LAUNCHERS = ("virt-launcher", "virt-launcher-monitor", "virtlogd", "virtqemud")
_HELPERS = ("container-disk", "virt-tail")


class ImageError(Exception):
    """An image cannot be made; the text says what is missing, or what failed."""


def write_pause(archive: Path) -> None:
    """Write the image that holds a pod's namespaces. Raises ImageError."""
    oci.write(archive, PAUSE, {"/pause": _launcher(archive.parent)}, ["/pause"])


def write_vm(archive: Path) -> None:
    """Write the image of a VM's containers. Raises ImageError."""
    programs = "/usr/bin"
    files: dict[str, Path | str | bytes] = {f"{programs}/launcher": _launcher(archive.parent)}
    files |= dict.fromkeys((f"{programs}/{name}" for name in (*_LAUNCHERS, *_HELPERS)), "launcher")
    files |= {f"{GUESTS}/{image.value}": rom(image) for image in Image}
    files |= {str(path): path for path in _qemu()}
    oci.write(archive, VM, files, [f"{programs}/virt-launcher-monitor"])


def _launcher(folder: Path) -> bytes:
    output = folder / "launcher"
    try:
        _call("gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O2", "-s", "-static", "-o",
              str(output), str(_SOURCE))  # fmt: skip
        return output.read_bytes()
    finally:
        output.unlink(missing_ok=True)


def _qemu() -> Iterator[Path]:
    """QEMU's program, what it loads, and the libraries of both."""
    found = shutil.which(BINARY)
    if found is None:
        raise ImageError(f"{BINARY} is not installed (Debian: qemu-system-x86)")
    program = Path(found)
    # Debian builds the accelerator as a module, which is loaded from here.
    modules = list(Path("/usr/lib").glob("*/qemu/accel-tcg-x86_64.so"))
    yield from {program, *modules, *_libraries([program, *modules])}
    yield Path("/usr/share/qemu/kvmvapic.bin")  # every PC with an APIC wants it


def _libraries(programs: Iterable[Path]) -> Iterator[Path]:
    for program in programs:
        for line in _call("ldd", str(program)).splitlines():
            if matched := re.search(r"(/\S+) \(0x", line):
                yield Path(matched[1])


def _call(*argv: str) -> str:
    try:
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ImageError(f"{argv[0]} is not installed") from None
    if done.returncode:
        raise ImageError(f"{' '.join(argv)}: {done.stderr.strip()}")
    return done.stdout
