"""How the node's programs are told to run: their files, as text or documents."""

import json
from pathlib import Path
from typing import Final

from node.images import PAUSE

SOCKET: Final = "/run/containerd/containerd.sock"
PODS: Final = "10.88.0.0/24"
"""Where pods have their addresses."""


def containerd(runtime: Path, cni: Path) -> str:
    """containerd's configuration. runtime: the folder of its programs; cni: of pods' networks."""
    cri = "io.containerd.cri.v1"
    return f"""
version = 3
disabled_plugins = [
  "io.containerd.nri.v1.nri",
  "io.containerd.snapshotter.v1.blockfile",
  "io.containerd.snapshotter.v1.erofs",
]

[grpc]
address = "{SOCKET}"

[plugins."{cri}.images".pinned_images]
sandbox = "{PAUSE}"

[plugins."{cri}.runtime"]
# Lowering oom_score_adj takes CAP_SYS_RESOURCE, which root in a container may lack.
restrict_oom_score_adj = true

[plugins."{cri}.runtime".cni]
bin_dirs = ["{runtime}"]
conf_dir = "{cni}"

[plugins."{cri}.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."{cri}.runtime".containerd.runtimes.runc.options]
BinaryName = "{runtime}/runc"
SystemdCgroup = false
"""


def pod_network() -> str:
    """The pods' network: a bridge, with the node on it, and no way out of the box."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": PODS}]], "routes": [{"dst": "0.0.0.0/0"}]}
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True}
    document = {"cniVersion": "1.0.0", "name": "pods", "plugins": [{**bridge, "ipam": ipam}]}
    return json.dumps(document)


def kubelet(address: str) -> str:
    """The kubelet's configuration: whoever reaches it, which is the box and the host, may ask."""
    document = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": address,
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        # The host may be one whose cgroups are v1, or that swaps.
        "failCgroupV1": False,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%"},
        "makeIPTablesUtilChains": False,
    }
    return json.dumps(document)
