"""`make demo`: its figures hold on this kernel, and it leaves nothing behind, whenever it ends."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from lab import Group, wait_for

CHECKOUT = Path(__file__).resolve().parents[2]
TIMEOUT = 110.0
SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True, slots=True)
class Demo:
    """A demonstration that runs, and what it wrote so far."""

    child: subprocess.Popen[bytes]
    folder: Path
    mark: str = field(repr=False)

    @property
    def picture(self) -> Path:
        return self.folder / "shares.svg"

    def said(self) -> str:
        return (self.folder / "output").read_text()

    def says(self, text: str) -> bool:
        assert self.child.poll() is None, self.said()
        return text in self.said()

    def what_is_left(self) -> list[str]:
        """Its cgroups, the processes of its environment, its temporary files."""
        left = [
            str(path)
            for directory in Group("/").directories
            for path in directory.glob(f"peacelab-{self.child.pid}-*")
        ]
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(FileNotFoundError, ProcessLookupError, PermissionError):  # not ours
                if self.mark.encode() in (process / "environ").read_bytes():
                    left.append(f"{process}: {(process / 'comm').read_text()}")
        return left + [str(path) for path in (self.folder / "tmp").iterdir()]


@contextmanager
def demo(folder: Path, seconds: float) -> Iterator[Demo]:
    mark = f"demo-{secrets.token_hex(8)}"
    (folder / "tmp").mkdir()
    paths = (CHECKOUT, CHECKOUT / "nodeagent", CHECKOUT / "tools")
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "TMPDIR": str(folder / "tmp"),
        "DEMO_MARK": mark,
    }
    options = ["--seconds", str(seconds), "--output", str(folder / "shares.svg")]
    with (
        (folder / "output").open("wb") as output,
        subprocess.Popen(
            [sys.executable, "-m", "demo", *options],
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as child,
    ):
        try:
            yield Demo(child, folder, mark)
        finally:
            child.terminate()  # it cleans up, in well under its lab's own deadlines
            child.wait(TIMEOUT)


def test_every_claim_of_the_demo_is_measured_and_nothing_is_left(tmp_path: Path) -> None:
    with demo(tmp_path, seconds=4) as running:
        status = running.child.wait(TIMEOUT)
        said = running.said()
        assert status == 0, said
        assert said.count("✓") == 6
        assert running.what_is_left() == []
        picture = ET.parse(running.picture).getroot()
        assert len(list(picture.iter(f"{SVG}polygon"))) == 4
        texts = {text.text for text in picture.iter(f"{SVG}text")}
        assert {"gold/database", "silver/web", "bronze/batch", "ordinary pod"} <= texts


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("pid", signal.SIGINT),
        ("equal weights:", signal.SIGTERM),
        ("nice alone:", signal.SIGHUP),
        ("peacemaker: the agent acts", signal.SIGINT),
        ("restored:", signal.SIGTERM),
    ],
    ids=["while VMs boot", "equal weights", "nice alone", "agent acts", "restored"],
)
def test_an_interrupted_demo_leaves_nothing(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    with demo(tmp_path, seconds=2) as running:
        wait_for(lambda: running.says(moment), TIMEOUT, f"the demo to say {moment!r}")
        assert running.what_is_left() != []  # there is something to leave
        running.child.send_signal(number)
        assert running.child.wait(TIMEOUT) == 128 + number, running.said()
        assert running.said().endswith(f"{number.name}: nothing is left behind\n")
        assert running.what_is_left() == []
        assert not running.picture.exists()
