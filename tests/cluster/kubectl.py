"""The real kubectl: what users type, and what they see."""

import json
import os
import shlex
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from apiserver import Cluster, programs
from peacemaker_kube.api import Document

TIMEOUT = 60.0


@dataclass(frozen=True, slots=True)
class Said:
    """What a command said, and how it ended."""

    status: int
    stdout: str
    stderr: str


class KubectlError(Exception):
    """It ended with another status than 0; the text is what was typed and what it said."""


class Kubectl:
    """An administrator's kubectl, in a folder: paths of files start there.

    `transcript` is what a terminal would show of it.
    """

    def __init__(self, cluster: Cluster, folder: Path, home: Path) -> None:
        self._program = str(programs().kubectl)
        self._folder = folder
        self.transcript = ""
        kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
        self._environment: Mapping[str, str] = {
            **kept,
            "HOME": str(home),  # its cache
            "KUBECONFIG": str(cluster.kubeconfig),
        }

    def __call__(self, *words: str, documents: tuple[Document, ...] = ()) -> str:
        """What it says on stdout. Raises KubectlError."""
        said = self.run(*words, documents=documents)
        if said.status:
            raise KubectlError(f"kubectl {' '.join(words)}: {said.stderr or said.stdout}")
        return said.stdout

    def run(self, *words: str, documents: tuple[Document, ...] = ()) -> Said:
        """How it ends, well or not. documents: what is behind its `-f -`."""
        done = subprocess.run(
            [self._program, *words],
            input="\n---\n".join(map(json.dumps, documents)),
            env=self._environment,
            cwd=self._folder,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT,
        )
        typed = shlex.join(("kubectl", *words))
        self.transcript += f"$ {typed}\n{done.stdout}{done.stderr}"
        return Said(done.returncode, done.stdout, done.stderr)

    def apply(self, *documents: Document) -> str:
        """`kubectl apply -f -`."""
        return self("apply", "-f", "-", documents=documents)
