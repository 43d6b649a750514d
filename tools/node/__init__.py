"""A real Kubernetes node on this machine, for tests: kubelet, containerd, runc, and their cluster.

It needs root and builds its programs from Go modules the first time (gobuild). Import it with
`PYTHONPATH=tools`, or try one by hand with `python -m node`::

    with Node() as node:
        node.import_image(Path("agent.tar"))
        node.apply(daemon_set)
        vm.serve(node)
        vms = [vm.start(node, name, labels={"app": name}) for name in ("a", "b")]
        print(cpu_shares(vms, seconds=2.0))
"""

from node.box import Box, BoxError
from node.images import VM, ImageError
from node.measure import cpu_shares, pin
from node.node import Node, NodeError
from node.vm import Vm

__all__ = [
    "VM",
    "Box",
    "BoxError",
    "ImageError",
    "Node",
    "NodeError",
    "Vm",
    "cpu_shares",
    "pin",
]
