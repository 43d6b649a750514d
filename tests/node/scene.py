"""What a test does on the real node: VMs that end with it, policies, and what the kernel has."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lab.policy import policy, rule
from node import Node, Vm, vm

Document = dict[str, Any]


class Scene:
    """A context manager: the VMs that a test starts are deleted with it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._vms: list[Vm] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for each in self._vms:
            vm.delete(self.node, each)

    def vm(self, name: str, **options: Any) -> Vm:
        """A running VM of namespace default; options as node.vm.start has them."""
        started = vm.start(self.node, name, **options)
        self._vms.append(started)
        return started

    def resize(self, each: Vm, cpu: str) -> None:
        """Change the CPU request of a VM's compute container in place."""
        container = {"name": "compute", "resources": {"requests": {"cpu": cpu}}}
        self.node.patch(
            f"pod/{each.pod}", {"spec": {"containers": [container]}}, "--subresource=resize"
        )


@contextmanager
def applied(node: Node, document: Document) -> Iterator[None]:
    """`kubectl apply` a policy, and delete it at the end."""
    node.apply(document)
    try:
        yield
    finally:
        node.kubectl("delete", "peacepolicy", document["metadata"]["name"])


def put(nice: int, vm: str) -> Document:
    """A policy that puts this VM at this nice."""
    found: Document = json.loads(
        policy(rule({"set": nice}, {"where": f'vm.name == "{vm}"'}), name=vm)
    )
    return found


def nices(vm: Vm) -> set[int]:
    """Those of the threads of its QEMU."""
    found = set()
    for task in Path(f"/proc/{vm.qemu}/task").iterdir():
        with suppress(ProcessLookupError):
            found.add(os.getpriority(os.PRIO_PROCESS, int(task.name)))
    return found
