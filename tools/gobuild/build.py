"""How programs are built from a Go module, and where they are kept."""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cache

_TELL_EVERY = 15.0


class MissingError(Exception):
    """What is needed to have the programs is not there, or does not work; the text says what."""


@dataclass(frozen=True, slots=True)
class Program:
    """A main package, by its import path.

    cgo: it has parts in C, so that gcc and its libraries' headers are needed. stamps: string
    variables of its packages that tell it its version, as `path.variable={version}`: `{major}` and
    `{minor}` are the version's numbers, `{version}` is all of it.
    """

    package: str
    tags: tuple[str, ...] = ()
    cgo: bool = False
    stamps: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProgramSet:
    """Programs by name that are built from one module, a folder with go.mod and go.sum, and end up
    in one folder.
    """

    name: str
    module: Path
    programs: Mapping[str, Program]


def build(wanted: ProgramSet) -> Path:
    """The folder with the programs, built now if need be: minutes, with progress on stderr.

    Processes that ask at the same time build one after the other, so that each program is built
    once. Raises MissingError.
    """
    go = shutil.which("go", path=f"{sys.prefix}/bin{os.pathsep}{os.environ.get('PATH', '')}")
    if go is None:
        raise MissingError(
            "go is not installed, beside Python or on PATH: `make install` brings it"
        )
    folder = cache.folder("go") / f"{wanted.name}-{_key(go, wanted)}"
    if not folder.exists():  # it gets this name when all is in it
        with cache.locked(folder.parent):
            if not folder.exists():
                _build(go, wanted, folder)
    return folder


def _key(go: str, wanted: ProgramSet) -> str:
    """What the programs are made of: the modules, by the digests in go.sum, and the compiler."""
    whole = hashlib.sha256(_call([go, "version"], wanted.module).encode())
    for name in ("go.mod", "go.sum"):
        whole.update((wanted.module / name).read_bytes())
    whole.update(repr(sorted(wanted.programs.items())).encode())
    return whole.hexdigest()[:16]


def _build(go: str, wanted: ProgramSet, folder: Path) -> None:
    with cache.making(folder) as scratch:
        (scratch / "out").mkdir()
        for name, program in wanted.programs.items():
            flags = ["-trimpath", "-buildvcs=false", f"-ldflags={_linking(go, wanted, program)}"]
            if program.tags:
                flags.append(f"-tags={','.join(program.tags)}")
            _call_aloud(
                [go, "build", *flags, "-o", str(scratch / "out" / name), program.package],
                wanted.module,
                _environment(cgo=program.cgo),
                f"building {name} ({program.package}); minutes the first time",
            )


def _linking(go: str, wanted: ProgramSet, program: Program) -> str:
    """The linker's flags: no symbols, and the version of the package's own module."""
    flags = ["-s", "-w"]
    if program.stamps:
        template = "{{if .Module}}{{.Module.Version}}{{end}}"
        version = _call([go, "list", "-f", template, program.package], wanted.module).strip()
        major, minor, _ = version.removeprefix("v").split(".", 2)
        for stamp in program.stamps:
            flags += ["-X", stamp.format(version=version, major=major, minor=minor)]
    return " ".join(flags)


def _call(command: list[str], folder: Path) -> str:
    done = subprocess.run(
        command, cwd=folder, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MissingError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _call_aloud(
    command: list[str], folder: Path, environment: Mapping[str, str], what: str
) -> None:
    """Run a command that takes minutes, and say every now and then that it still does."""
    _tell(what)
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output
        ) as process:
            try:
                while True:
                    try:
                        status = process.wait(_TELL_EVERY)
                        break
                    except subprocess.TimeoutExpired:
                        _tell(f"  still at it after {time.monotonic() - started:.0f} s")
            except BaseException:
                process.terminate()
                raise
        output.seek(0)
        if status:
            tail = "\n".join(output.read().splitlines()[-20:])
            raise MissingError(f"{' '.join(command)}: exit status {status}\n{tail}")
    _tell(f"  done in {time.monotonic() - started:.0f} s")


def _environment(*, cgo: bool = False) -> dict[str, str]:
    # Another version of Go is never fetched: the one that is there is locked, or was chosen.
    settings = {"CGO_ENABLED": str(int(cgo)), "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}
    return {**os.environ, **settings}


def _tell(text: str) -> None:
    print(f"gobuild: {text}", file=sys.stderr, flush=True)
