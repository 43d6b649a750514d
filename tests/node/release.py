"""The product on the real node, installed as an administrator does it."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from chartfiles.helm import HelmError, helm
from chartfiles.paths import CHART
from image import ensure_images
from node import Node, NodeError, Vm

Document = dict[str, Any]
T = TypeVar("T")

NAMESPACE: Final = "peacemaker"
AGENTS: Final = "daemonset/peacemaker-agent"
OPERATORS: Final = "deployment/peacemaker-operator"

_OUR_IMAGES: Final = ("--set=image.registry=localhost", "--set=image.pullPolicy=Never")
# The agent tells details of VMs at once: half a minute later proves nothing more.
_PROMPT: Final = "--set=agent.statusInterval=1"


class Release:
    """Helm's release `peacemaker` on a node, of the images of this checkout."""

    def __init__(self, node: Node) -> None:
        self.node = node
        for image in ensure_images().values():
            node.import_image(image.archive)

    # --- helm ---

    def helm(self, *words: str) -> str:
        """What it says. Raises HelmError."""
        settings = {"KUBECONFIG": str(self.node.kubeconfig)}
        return helm(*words, f"--namespace={NAMESPACE}", settings=settings)

    def install(self, *options: str) -> str:
        """Install it, and wait until all of it is ready."""
        return self.begin_install("--wait", _PROMPT, *options)

    def begin_install(self, *options: str) -> str:
        """Install it as people do, and do not wait."""
        words = ("install", "peacemaker", str(CHART), "--create-namespace")
        return self._told(*words, *_OUR_IMAGES, *options)

    def upgrade(self, *options: str) -> str:
        """Upgrade it with these values, and wait until all of it is ready."""
        words = ("upgrade", "peacemaker", str(CHART), "--wait")
        return self._told(*words, *_OUR_IMAGES, _PROMPT, *options)

    def rollback(self) -> str:
        return self._told("rollback", "peacemaker", "--wait")

    def uninstall(self) -> str:
        return self._told("uninstall", "peacemaker", "--wait")

    def _told(self, *words: str) -> str:
        try:
            return self.helm(*words)
        except HelmError as error:
            raise HelmError(f"{error}\n{self.state()}") from None

    # --- what runs ---

    def kubectl(self, *words: str) -> str:
        """In the release's namespace. Raises NodeError."""
        return self.node.kubectl("--namespace", NAMESPACE, *words)

    def wait_rolled_out(self) -> None:
        """Until all pods are those of their newest template, and ready."""
        for what in (AGENTS, OPERATORS):
            self.kubectl("rollout", "status", what, "--timeout=90s")

    def agent(self) -> Document:
        """The agent's pod; there is just one that is not being deleted."""
        (pod,) = self.agents()
        return pod

    def agents(self) -> list[Document]:
        return self._pods("agent")

    def operators(self) -> list[Document]:
        return self._pods("operator")

    def pods(self) -> set[str]:
        """The names of all of them."""
        return {each["metadata"]["name"] for each in (*self.agents(), *self.operators())}

    def _pods(self, component: str) -> list[Document]:
        """Those that are not being deleted."""
        where = ("--namespace", NAMESPACE, f"--selector=app.kubernetes.io/component={component}")
        items = self.node.json("get", "pods", *where)["items"]
        return [each for each in items if "deletionTimestamp" not in each["metadata"]]

    def log(self, what: str, *options: str) -> str:
        return self.kubectl("logs", what, *options)

    def state(self) -> str:
        """What is known where something went wrong."""
        said = []
        for words in (
            ("get", "pods", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            ("logs", AGENTS, "--tail=50"),
            ("logs", OPERATORS, "--tail=50", "--all-pods"),
            ("logs", "job/peacemaker-uninstall", "--tail=50", "--all-pods"),
        ):
            try:
                said.append(self.kubectl(*words))
            except NodeError as error:
                said.append(str(error))
        return "\n".join(said)

    # --- what it says of a VM ---

    def peace_list(self) -> Document:
        return dict(self.node.json("get", "peacelist", self.node.name))

    def told(self, vm: str) -> Document:
        """What the agent says of the VM of this name; empty if nothing."""
        status = self.peace_list().get("status", {})
        return next((each for each in status.get("vms", ()) if each["name"] == vm), {})

    def wait_told(self, vm: str, **fields: object) -> Document:
        """Until the agent says this of a VM; TimeoutError says what it said, and what is known."""

        def holds(told: Mapping[str, Any]) -> bool:
            return all(told.get(name) == value for name, value in fields.items())

        return self.eventually(partial(self.told, vm), holds, f"{vm} to have {fields}")

    def wait_weight(self, vm: Vm, weight: int) -> None:
        """Until the kernel has this weight for a VM's pod."""
        self.eventually(vm.own.weight, lambda found: found == weight, f"{vm.name} at {weight}")

    def eventually(self, read: Callable[[], T], holds: Callable[[T], bool], what: str) -> T:
        """What is read, once it holds; TimeoutError says what it was last, and what is known."""
        found: list[T] = []

        def check() -> bool:
            found[:] = [read()]
            return holds(found[0])

        try:
            self.node.wait(check, what, 60.0)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; it was {found}\n{self.state()}") from None
        return found[0]
