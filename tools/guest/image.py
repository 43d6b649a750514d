"""The guest's root disk and kernel: made once, cached under the recipe's digest."""

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

import cache
from guest import recipe
from guest.host import CACHE, GuestError, call, mirror, write_image


@dataclass(frozen=True, slots=True)
class Image:
    """A bootable guest: `kernel` (a vmlinuz) and `root` (a raw disk holding one ext4)."""

    kernel: Path
    root: Path


def ensure_image() -> Image:
    """The image of today's recipe, built if the cache lacks it. Call it under the cache's lock.

    Raises GuestError if it cannot be built, and leaves nothing behind then.
    """
    folder = cache.folder(CACHE) / f"image-{recipe.digest()}"
    if not folder.exists():
        print(f"guest: building {folder} (about a minute)", file=sys.stderr, flush=True)
        with cache.making(folder) as scratch:
            _build(scratch)
    return Image(kernel=folder / "vmlinuz", root=folder / "root.img")


def _build(scratch: Path) -> None:
    if os.geteuid() != 0:
        raise GuestError("only root can build the guest's image (debootstrap makes device nodes)")
    tree, out = scratch / "tree", scratch / "out"
    out.mkdir()
    _install(tree)
    _extract_kernel(tree, scratch / "kernel", out / "vmlinuz")
    _settle(tree)
    write_image(tree, out / "root.img", "4G")


def _install(tree: Path) -> None:
    include = ",".join(recipe.PACKAGES)
    # debootstrap mounts /proc and /sys inside the tree and starts services' set-up scripts. In
    # namespaces of its own, its mounts and processes end with it, however it ends.
    isolated = ["unshare", "--mount", "--pid", "--mount-proc", "--kill-child"]
    options = ["--variant=minbase", "--arch=amd64", f"--include={include}"]
    call([*isolated, "debootstrap", *options, recipe.SUITE, tree, mirror()])


def _extract_kernel(tree: Path, scratch: Path, vmlinuz: Path) -> None:
    """Fetch the suite's kernel with the tree's package lists and take only the kernel itself.

    Installed, the package would bring initramfs tools and spend a minute on an unused initrd.
    """
    inside = ["-o", f"Dir={tree}", "-o", f"Dir::State::status={tree}/var/lib/dpkg/status"]
    fetch = ["install", "-y", "--download-only", "--no-install-recommends", recipe.KERNEL]
    call(["apt-get", *inside, *fetch])
    # Beside the kernel (linux-image-6.1.0-…) lies the package that only depends on it.
    (package,) = (tree / "var/cache/apt/archives").glob("linux-image-[0-9]*.deb")
    call(["dpkg-deb", "-x", package, scratch])
    (kernel,) = (scratch / "boot").glob("vmlinuz-*")
    kernel.rename(vmlinuz)


def _settle(tree: Path) -> None:
    """Lay the recipe's files over the tree, mask its units, drop what a run never reads."""
    shutil.copytree(recipe.ROOTFS, tree, dirs_exist_ok=True)
    units = tree / "etc/systemd/system"
    for unit in recipe.MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    wants = units / "multi-user.target.wants"
    wants.mkdir(exist_ok=True)
    (wants / "guest.service").symlink_to("/etc/systemd/system/guest.service")
    for name in recipe.DROPPED:
        shutil.rmtree(tree / name)
    for mount_point in ("repo", "opt/packages", "results"):
        (tree / mount_point).mkdir()
