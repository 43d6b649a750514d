"""What a test does on the real node: VMs that end with it."""

from types import TracebackType
from typing import Any, Self

from node import Node, Vm, vm


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
