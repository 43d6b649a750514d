"""A control plane's programs and kubectl: from $KUBEBUILDER_ASSETS, or built once and kept."""

import os
from dataclasses import dataclass
from pathlib import Path

from gobuild import MissingError, build
from gobuild.catalogue import CONTROL_PLANE


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the programs."""

    kube_apiserver: Path
    etcd: Path
    kubectl: Path


def programs() -> Programs:
    """The programs, built now if need be: minutes, with progress on stderr, and once for all.

    Raises MissingError.
    """
    if assets := os.environ.get("KUBEBUILDER_ASSETS"):
        return _in_folder(Path(assets), "KUBEBUILDER_ASSETS")
    try:
        return _in_folder(build(CONTROL_PLANE), "the cache")
    except MissingError as error:
        other = "KUBEBUILDER_ASSETS may name a folder with kube-apiserver, etcd and kubectl instead"
        raise MissingError(f"{error}\n{other}") from None


def _in_folder(folder: Path, said_by: str) -> Programs:
    found = Programs(folder / "kube-apiserver", folder / "etcd", folder / "kubectl")
    for program in (found.kube_apiserver, found.etcd, found.kubectl):
        if not os.access(program, os.X_OK):
            raise MissingError(f"{program} is no program (its folder is named by {said_by})")
    return found
