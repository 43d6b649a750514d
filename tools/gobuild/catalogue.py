"""Which programs are built, and from which module (tools/go*, each with its go.mod and go.sum)."""

from pathlib import Path
from typing import Final

from gobuild.build import Program, ProgramSet

_TOOLS = Path(__file__).parents[1]

_KUBERNETES = "k8s.io/component-base/version.git"


def _kubernetes(name: str) -> Program:
    said = ("Version={version}", "Major={major}", "Minor={minor}")
    return Program(
        f"k8s.io/kubernetes/cmd/{name}", stamps=tuple(f"{_KUBERNETES}{each}" for each in said)
    )


CONTROL_PLANE: Final = ProgramSet(
    "control-plane",
    _TOOLS / "go",
    {
        "kube-apiserver": _kubernetes("kube-apiserver"),
        "etcd": Program("go.etcd.io/etcd/server/v3"),
        "kubectl": _kubernetes("kubectl"),
    },
)
"""An API server and what talks to it."""

KUBERNETES_NODE: Final = ProgramSet(
    "kubernetes-node",
    _TOOLS / "go",
    {name: _kubernetes(name) for name in ("kube-controller-manager", "kube-scheduler", "kubelet")},
)
"""What makes pods of objects."""

_CONTAINERD = "github.com/containerd/containerd/v2"
_CNI = "github.com/containernetworking/plugins/plugins"


def _containerd(name: str) -> Program:
    return Program(
        f"{_CONTAINERD}/cmd/{name}",
        # Snapshotters whose libraries are in C, or whose programs nobody has.
        tags=("no_btrfs", "no_devmapper", "no_zfs", "no_aufs"),
        stamps=(f"{_CONTAINERD}/version.Version={{version}}",),
    )


CONTAINER_RUNTIME: Final = ProgramSet(
    "container-runtime",
    _TOOLS / "go-node",
    {
        "containerd": _containerd("containerd"),
        "containerd-shim-runc-v2": _containerd("containerd-shim-runc-v2"),
        "ctr": _containerd("ctr"),
        # Without seccomp no pod with seccompProfile RuntimeDefault starts.
        "runc": Program(
            "github.com/opencontainers/runc",
            tags=("seccomp",),
            cgo=True,
            stamps=("main.version={version}",),
        ),
        "bridge": Program(f"{_CNI}/main/bridge"),
        "loopback": Program(f"{_CNI}/main/loopback"),
        "host-local": Program(f"{_CNI}/ipam/host-local"),
    },
)
"""What makes containers of pods. Building runc wants gcc, pkg-config and libseccomp's headers."""

HELM: Final = ProgramSet(
    "helm",
    _TOOLS / "go-helm",
    {
        "helm": Program(
            "helm.sh/helm/v3/cmd/helm",
            stamps=("helm.sh/helm/v3/internal/version.version={version}",),
        ),
        "kubeconform": Program("github.com/yannh/kubeconform/cmd/kubeconform"),
    },
)
"""What judges and installs the chart."""
