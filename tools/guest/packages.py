"""The disk with the Python packages that the tests need: cached under the lock file's digest."""

import hashlib
import sys
from pathlib import Path

import cache
from guest import recipe
from guest.host import CACHE, call, write_image


def ensure_packages(requirements: Path) -> Path:
    """A raw ext4 disk of the packages that a requirements file locks with hashes.

    They are wheels for the guest's Python, whatever the host's is. Call it under the cache's
    lock. Raises GuestError if pip cannot install them, OSError if the file cannot be read.
    """
    key = hashlib.sha256(requirements.read_bytes() + recipe.PYTHON.encode()).hexdigest()[:16]
    image = cache.folder(CACHE) / f"packages-{key}.img"
    if not image.exists():
        print(f"guest: building {image}", file=sys.stderr, flush=True)
        with cache.making(image) as scratch:
            tree = scratch / "tree"
            call([*_pip_install(requirements), "--target", tree])
            write_image(tree, scratch / "out", "2G")
    return image


def _pip_install(requirements: Path) -> list[str | Path]:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    wheels = ["--only-binary=:all:", "--implementation=cp", f"--python-version={recipe.PYTHON}"]
    return [*pip, *wheels, "-r", requirements]
