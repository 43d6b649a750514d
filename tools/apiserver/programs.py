"""The programs of a control plane and kubectl: taken from $KUBEBUILDER_ASSETS, or built once and kept."""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

MODULE = Path(__file__).parents[1] / "go"

_PACKAGES = {
    "kube-apiserver": "k8s.io/kubernetes/cmd/kube-apiserver",
    "etcd": "go.etcd.io/etcd/server/v3",
    "kubectl": "k8s.io/kubernetes/cmd/kubectl",
}
_TELL_EVERY = 15.0


class MissingError(Exception):
    """What is needed to have the programs is not there, or does not work; the text says what."""


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
    go = shutil.which("go", path=f"{sys.prefix}/bin{os.pathsep}{os.environ.get('PATH', '')}")
    if go is None:
        raise MissingError(
            "go is not installed, beside Python or on PATH: `make install` brings it, "
            "or set KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd and kubectl"
        )
    folder = _cache() / f"go-{_key(go)}"
    with (_cache() / "go.lock").open("w") as lock:
        # The kernel drops the lock with its holder, however that one ends; what a killed holder
        # was building is removed by the next one.
        fcntl.flock(lock, fcntl.LOCK_EX)
        for abandoned in _cache().glob(".go-*"):
            shutil.rmtree(abandoned)
        if not folder.exists():
            _build(go, folder)
    return _in_folder(folder, "the cache")


def _in_folder(folder: Path, said_by: str) -> Programs:
    found = Programs(folder / "kube-apiserver", folder / "etcd", folder / "kubectl")
    for program in (found.kube_apiserver, found.etcd, found.kubectl):
        if not os.access(program, os.X_OK):
            raise MissingError(f"{program} is no program (its folder is named by {said_by})")
    return found


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(base, "peacemaker")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _key(go: str) -> str:
    """What the programs are made of: the modules, by the digests in go.sum, and the compiler."""
    whole = hashlib.sha256(_call([go, "version"]).encode())
    for name in ("go.mod", "go.sum"):
        whole.update((MODULE / name).read_bytes())
    whole.update(repr(_PACKAGES).encode())
    return whole.hexdigest()[:16]


def _build(go: str, folder: Path) -> None:
    scratch = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    version = _call([go, "list", "-m", "-f", "{{.Version}}", "k8s.io/kubernetes"]).strip()
    major, minor, _ = version.removeprefix("v").split(".")
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    said = " ".join(f"-X k8s.io/component-base/version.{key}={stamps[key]}" for key in stamps)
    try:
        for name, package in _PACKAGES.items():
            flags = ["-trimpath", "-buildvcs=false", f"-ldflags=-s -w {said}"]
            _call_aloud(
                [go, "build", *flags, "-o", str(scratch / name), package],
                f"building {name} ({package}); minutes the first time",
            )
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch)
        raise


def _call(command: list[str]) -> str:
    done = subprocess.run(
        command, cwd=MODULE, env=_environment(), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise MissingError(f"{' '.join(command)}: {done.stderr.strip()}")
    return done.stdout


def _call_aloud(command: list[str], what: str) -> None:
    """Run a command that takes minutes, and say every now and then that it still does."""
    _tell(what)
    started = time.monotonic()
    with tempfile.TemporaryFile("w+") as output:
        with subprocess.Popen(
            command, cwd=MODULE, env=_environment(), stdout=output, stderr=output
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


def _environment() -> dict[str, str]:
    # Another version of Go is never fetched: the one that is there is locked, or was chosen.
    return {**os.environ, "CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly"}


def _tell(text: str) -> None:
    print(f"apiserver: {text}", file=sys.stderr, flush=True)
