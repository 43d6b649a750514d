"""What the agent's pod may do on its host: each permission is taken away, and is missed.

docs/install.md has the table.
"""

import copy
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from node import Node, NodeError
from tests.node.release import AGENTS, NAMESPACE, Document, Release
from tests.node.scene import Scene, applied, nices, put

# A build of the images takes minutes, and it is a fixture's.
pytestmark = pytest.mark.timeout(func_only=True)

Change = Callable[[Document], None]


def container(pod: Document) -> Document:
    (found,) = pod["containers"]
    assert isinstance(found, dict)
    return found


def no_capability(pod: Document) -> None:
    del container(pod)["securityContext"]["capabilities"]["add"]


def no_host_pid(pod: Document) -> None:
    del pod["hostPID"]


def no_root(pod: Document) -> None:
    pod["securityContext"] |= {"runAsUser": 65532, "runAsGroup": 65532}


def without_mount(name: str) -> Change:
    def change(pod: Document) -> None:
        mounts = container(pod)["volumeMounts"]
        mounts[:] = [each for each in mounts if each["name"] != name]

    return change


def read_only(name: str) -> Change:
    def change(pod: Document) -> None:
        for each in container(pod)["volumeMounts"]:
            if each["name"] == name:
                # On v1 the hierarchies are mounts below it.
                each |= {"readOnly": True, "recursiveReadOnly": "Enabled"}

    return change


RUNS_AND_SAYS_OF_THE_VM = [
    ("SYS_NICE", no_capability, "Failed", "WriteFailed", "CAP_SYS_NICE"),
    ("the cgroup tree", without_mount("cgroup"), "Deferred", "NotFound", "no cgroup"),
    ("to write the cgroup tree", read_only("cgroup"), "Failed", "UnknownBaseline", "Read-only"),
]


@pytest.mark.parametrize(
    ("change", "state", "reason", "message"),
    [each[1:] for each in RUNS_AND_SAYS_OF_THE_VM],
    ids=[each[0] for each in RUNS_AND_SAYS_OF_THE_VM],
)
def test_without_it_the_agent_says_of_a_vm_what_it_cannot_do(
    node: Node,
    release: Release,
    scene: Scene,
    change: Change,
    state: str,
    reason: str,
    message: str,
) -> None:
    vm = scene.vm("governed")
    with changed(release, change):
        release.wait_rolled_out()  # the agent before it could still do it
        with applied(node, put(10, "governed")):
            told = release.wait_told("governed", state=state, reason=reason)
            assert message in told["message"]
            assert nices(vm) == {0}
    # With all that it needs, it finishes what it could not.
    release.wait_rolled_out()
    release.wait_weight(vm, 108)
    assert nices(vm) == {0}


ENDS_AND_SAYS = [
    ("hostPID", no_host_pid, "hostPID"),
    ("root", no_root, "/run/peacemaker/agent.lock: Permission denied: run it as root"),
    ("its directory", without_mount("run"), "/run/peacemaker: Read-only file system"),
    ("to write it", read_only("run"), "/run/peacemaker/agent.lock: Read-only file system"),
]


@pytest.mark.parametrize(
    ("change", "message"),
    [each[1:] for each in ENDS_AND_SAYS],
    ids=[each[0] for each in ENDS_AND_SAYS],
)
def test_without_it_the_agent_ends_and_says_what_it_lacks(
    release: Release, change: Change, message: str
) -> None:
    with changed(release, change):
        said = release.eventually(
            lambda: "".join(last_words(release, pod) for pod in release.agents()),
            lambda said: message in said,
            "the agent to say so",
        )
        assert "Traceback" not in said
    release.wait_rolled_out()


def last_words(release: Release, pod: Document) -> str:
    """What the pod's container said, its predecessor if it was started anew."""
    name = f"pod/{pod['metadata']['name']}"
    try:
        if pod["status"]["containerStatuses"][0]["restartCount"]:
            return release.log(name, "--previous")
        return release.log(name)
    except (KeyError, NodeError):
        return ""  # its container is being made


@contextmanager
def changed(release: Release, change: Change) -> Iterator[None]:
    """The agents' pods are changed; the chart's own come back at the end."""
    words = ("get", "daemonset", "peacemaker-agent", "--namespace", NAMESPACE)
    template = release.node.json(*words)["spec"]["template"]
    other = copy.deepcopy(template)
    change(other["spec"])
    assert other != template
    replace_template(release, other)
    try:
        yield
    finally:
        replace_template(release, template)


def replace_template(release: Release, template: Document) -> None:
    patch = [{"op": "replace", "path": "/spec/template", "value": template}]
    release.kubectl("patch", AGENTS, "--type=json", f"--patch={json.dumps(patch)}")
