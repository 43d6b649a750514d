"""What takes how much room in an image."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

SITE = "opt/peacemaker/lib/python3.11/site-packages"
STDLIB = "usr/lib/python3.11"

_SMALL = 1_000_000


@dataclass(frozen=True, slots=True)
class Part:
    """A part of an image: bytes on disk, and how many of them are byte-code."""

    name: str
    size: int
    bytecode: int


def parts(tree: Path) -> list[Part]:
    """An unpacked image's parts, largest first; what is small is summed up."""
    found = [_part(name, files) for name, files in _files_by_part(tree).items()]
    large = [each for each in found if each.size >= _SMALL]
    small = [each for each in found if each.size < _SMALL]
    rest = Part(
        f"{len(small)} smaller ones",
        sum(each.size for each in small),
        sum(each.bytecode for each in small),
    )
    return [*sorted(large, key=lambda each: each.size, reverse=True), rest]


def size(tree: Path) -> int:
    """Bytes on disk, directories included, as `du` counts them."""
    return sum(map(_blocks, [tree, *tree.rglob("*")]))


def table(tree: Path) -> str:
    """The parts as text: MB (10^6 bytes)."""
    found = parts(tree)
    files = sum(part.size for part in found)
    directories = Part("directories", size(tree) - files, 0)
    bytecode = sum(part.bytecode for part in found)
    lines = [f"{'MB':>7} {'byte-code':>9}"]
    lines += [
        f"{part.size / 1e6:7.1f} {part.bytecode / 1e6:9.1f}  {part.name}"
        for part in (*found, directories, Part("all", files + directories.size, bytecode))
    ]
    return "\n".join(lines)


def _files_by_part(tree: Path) -> dict[str, list[Path]]:
    """Every file under the name of the one part that it belongs to."""
    owner = {
        file: distribution.name
        for distribution in distributions(path=[str(tree / SITE)])
        for file in _files_of(distribution)
    }
    found: dict[str, list[Path]] = {}
    for file in tree.rglob("*"):
        if file.is_dir() and not file.is_symlink():
            continue
        found.setdefault(owner.get(_source(file)) or _place(file.relative_to(tree)), []).append(
            file
        )
    return found


def _files_of(distribution: Distribution) -> Iterator[Path]:
    for file in distribution.files or ():
        yield Path(str(distribution.locate_file(file)))


def _source(file: Path) -> Path:
    """What byte-code was made of; another file is its own."""
    if file.parent.name != "__pycache__":
        return file
    return file.parent.parent / f"{file.name.partition('.')[0]}.py"


def _place(file: Path) -> str:
    if file.is_relative_to(STDLIB):
        return "Python's standard library"
    if file == Path("usr/bin/python3.11"):
        return "Python"
    if file.parts[0] == "lib" or file.parts[:2] == ("usr", "lib"):
        return "C libraries"
    return "/".join(file.parts[:2])


def _part(name: str, files: Iterable[Path]) -> Part:
    sizes = [(_blocks(file), file.suffix == ".pyc") for file in files]
    return Part(name, sum(s for s, _ in sizes), sum(s for s, compiled in sizes if compiled))


def _blocks(path: Path) -> int:
    return path.lstat().st_blocks * 512
