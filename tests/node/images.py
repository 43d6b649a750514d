"""The product's images, unpacked, and programs run in them as a pod's container runs them."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from image import ensure_images, unpack

_ENTER = Path(__file__).with_name("enter.py")


@dataclass(frozen=True, slots=True)
class Container:
    """An image's files in `tree`, and what its config says (User, Entrypoint, Env, Labels)."""

    tree: Path
    config: Mapping[str, Any]

    def command(self, *words: str, mounts: Mapping[Path, str] | None = None) -> list[str]:
        """The command that runs the image's entry point with words, or another program of the image
        if the first one is an absolute path. mounts: folders of the host, to a name in /run.
        """
        program = [] if words and words[0].startswith("/") else self.config["Entrypoint"]
        plan = {
            "tree": str(self.tree),
            "user": self.config["User"],
            "environment": self.config["Env"],
            "mounts": [(str(host), inside) for host, inside in (mounts or {}).items()],
            "command": [*program, *words],
        }
        return ["unshare", "--mount", sys.executable, str(_ENTER), json.dumps(plan)]

    def run(
        self, *words: str, mounts: Mapping[Path, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            self.command(*words, mounts=mounts), capture_output=True, text=True, check=False
        )


@contextmanager
def unpacked(side: str) -> Iterator[Container]:
    """The image of a side, `agent` or `operator`, built if need be: minutes the first time."""
    image = ensure_images()[side]
    with tempfile.TemporaryDirectory(prefix=f"peacemaker-{side}-", dir="/var/tmp") as name:
        tree = Path(name)
        tree.chmod(0o755)
        config = unpack(image, tree)
        yield Container(tree, config["config"])


@contextmanager
def containers() -> Iterator[dict[str, Container]]:
    """Both, by side."""
    with unpacked("agent") as agent, unpacked("operator") as operator:
        yield {"agent": agent, "operator": operator}
