"""The base of the build: a small Debian by debootstrap, in place of a registry's."""

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Final

import cache
from guest.host import GuestError, mirror
from image.buildah import CACHE, ImageError, buildah, exists, run, tell

SUITE: Final = "bookworm"

# What images of Debian in registries leave out, too.
_DROPPED: Final = (
    "usr/share/doc",
    "usr/share/info",
    "usr/share/locale",
    "usr/share/man",
    "var/cache/apt",
    "var/lib/apt/lists",
)


def ensure_base() -> str:
    """The name of the base image, made now if the store lacks it. Call it under the cache's lock.

    Raises ImageError.
    """
    name = f"localhost/peacemaker-base:{SUITE}-{digest()}"
    if not exists(name):
        tell(f"making the base of the build, {name} (half a minute)")
        with tempfile.TemporaryDirectory(prefix=".base.", dir=cache.folder(CACHE)) as scratch:
            tree = Path(scratch, "tree")
            _install(tree)
            container = buildah("from", "scratch")
            try:
                buildah("add", "--quiet", container, tree, "/")
                buildah("commit", "--quiet", container, name)
            finally:
                buildah("rm", container)
    return name


def digest() -> str:
    """The recipe's identity."""
    return hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:8]


def _install(tree: Path) -> None:
    try:
        debian = mirror()
    except GuestError as error:
        raise ImageError(str(error)) from None
    # In namespaces of its own, debootstrap's mounts and processes end with it, however it ends.
    isolated = ["unshare", "--mount", "--pid", "--mount-proc", "--kill-child"]
    run([*isolated, "debootstrap", "--variant=minbase", SUITE, tree, debian])
    for name in _DROPPED:
        shutil.rmtree(tree / name)
        (tree / name).mkdir()
    sources = [f"deb {debian} {SUITE} main", f"deb {debian} {SUITE}-updates main"]
    sources += [f"deb {site} {SUITE}-security main" for site in _security_archives()]
    (tree / "etc/apt/sources.list").write_text("\n".join(sources) + "\n")


def _security_archives() -> list[str]:
    """Those that the host's own apt uses."""
    wanted = ["Created-By: Packages", "Label: Debian-Security"]
    return run(["apt-get", "indextargets", "--format", "$(SITE)", *wanted]).split()
