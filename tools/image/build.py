"""Both images: built once for one content of the checkout, and kept as OCI archives."""

import hashlib
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import cache
from image import base
from image.buildah import CACHE, ImageError, buildah, require_commands, run, tell
from image.index import secrets

CHECKOUT: Final = Path(__file__).resolve().parents[2]

SIDES: Final = ("agent", "operator")


@dataclass(frozen=True, slots=True)
class Image:
    """One of the product's images: its name, as pods say it, and the OCI archive that holds it."""

    name: str
    archive: Path


def ensure_images() -> dict[str, Image]:
    """The images of what lies in the checkout now, by side: `agent` and `operator`.

    Built now if need be: three minutes the first time, 40 s when only the product's code changed.
    Raises ImageError.
    """
    folder = cache.folder(CACHE) / f"images-{_key()}"
    if not folder.exists():  # it gets this name when all is in it
        require_commands()
        with cache.locked(folder.parent):
            if not folder.exists():
                _build(folder)
    names = {side: f"localhost/peacemaker-{side}:{version()}" for side in SIDES}
    return {side: Image(names[side], folder / f"{side}.tar") for side in SIDES}


def version() -> str:
    """The product's version."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def _key() -> str:
    whole = hashlib.sha256(base.digest().encode())
    for path in sorted(_sources()):
        name = path.relative_to(CHECKOUT)
        whole.update(repr((str(name), path.stat().st_mode, path.read_bytes())).encode())
    return whole.hexdigest()[:16]


def _sources() -> Iterator[Path]:
    """The files that the build sees: the Dockerfile, and what .dockerignore lets in."""
    yield CHECKOUT / "Dockerfile"
    yield CHECKOUT / ".dockerignore"
    for line in (CHECKOUT / ".dockerignore").read_text().splitlines():
        if line.startswith("!"):
            path = CHECKOUT / line[1:]
            yield from (
                file
                for file in (path.rglob("*") if path.is_dir() else [path])
                if file.is_file() and "__pycache__" not in file.parts
            )


def _build(folder: Path) -> None:
    """Raises ImageError."""
    with cache.making(folder) as scratch:
        root = base.ensure_base()
        arguments = [
            *("bud", "--isolation=chroot", "--network=host", "--pull-never", "--layers"),
            *secrets(scratch),
            f"--build-arg=BASE_IMAGE={root}",
            f"--build-arg=VERSION={version()}",
            f"--build-arg=REVISION={_revision()}",
        ]
        (scratch / "out").mkdir()
        buildah("rm", "--all")  # what a killed build left would keep its layers
        kept = {root}
        for side in SIDES:
            tell(f"building {side} (a minute or two, if its packages changed)")
            for target in ("python", f"{side}-packages"):
                image = f"localhost/peacemaker-{target}:kept"
                buildah(*arguments, f"--target={target}", f"--tag={image}", CHECKOUT)
                kept.add(image)
            image = f"localhost/peacemaker-{side}:{version()}"
            buildah(*arguments, f"--target={side}", f"--tag={image}", CHECKOUT)
            archive = f"oci-archive:{scratch / 'out' / f'{side}.tar'}:{image}"
            buildah("push", "--quiet", image, archive)
        _clear(kept)
        for old in folder.parent.glob("images-*"):
            shutil.rmtree(old)


def _clear(kept: set[str]) -> None:
    """Of the store keep the layers of these images, which change seldom."""
    listed = ("images", "--filter", "dangling=false", "--format", "{{.Name}}:{{.Tag}}")
    for image in set(buildah(*listed).split()) - kept:
        buildah("rmi", image)
    buildah("rmi", "--prune")


def _revision() -> str:
    """The commit, with `-dirty` if the checkout is not just that."""
    # Images are built as root in a checkout that may be another user's: git would refuse.
    git: list[str | Path] = ["git", "-c", f"safe.directory={CHECKOUT}", "-C", CHECKOUT]
    try:
        return run([*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]).strip()
    except ImageError:
        return "unknown"  # a checkout without its history, as an archive has it
