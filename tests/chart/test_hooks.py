"""The hooks do their work with the roles that the chart gives them, and with nothing less."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab import wait_for
from tests.chart.hooks import Hook, Installation, hook, installed, node
from tests.cluster.deployment import TIMEOUT, agent_pod
from tests.cluster.test_rbac import Request
from tests.cluster.test_suspend import FAILED, RESTORED, Agents


@pytest.fixture(scope="module")
def installation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    with installed(tmp_path_factory.mktemp("hooks")) as installation:
        for each in ("uninstall", "test"):
            hook(each).create(installation)
        yield installation


@pytest.fixture
def less(request: pytest.FixtureRequest, idle: Installation) -> Iterator[Hook]:
    """A hook without a right, and without what the other tests have done."""
    name, verb, resource = request.param
    found = hook(name).without(verb, resource)
    found.create(idle)
    yield found
    found.delete(idle)


def unused(installation: Installation, which: Hook) -> set[tuple[str, str]]:
    """The rights that it has not used. Each of its requests was answered."""
    asked = installation.asked(which.account)
    assert [request for request, code in asked if code == 403] == []
    return {
        (right.verb, right.resource)
        for right in which.rights()
        if not any(covers(right, request) for request, _ in asked)
    }


def covers(right: Request, request: Request) -> bool:
    return (right.verb, right.resource, right.namespace) == (
        request.verb,
        request.resource,
        # The server names the namespace that is asked for as one in itself.
        "" if request.resource == "namespaces" else request.namespace,
    ) and right.name in ("", request.name)


def test_the_test_uses_each_right_that_it_has_and_is_refused_nothing(scene: Installation) -> None:
    done = hook("test").run(scene)
    assert done.returncode == 0, done.stdout
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["ok"] * 4
    wait_for(lambda: not unused(scene, hook("test")), TIMEOUT, "each right to be used")


def test_uninstalling_uses_each_right_that_it_has_and_is_refused_nothing(
    scene: Installation,
) -> None:
    """What it is told after its lists, watches tell: an answer, and where an agent's pod is."""
    uninstall = hook("uninstall")
    lists = {("list", "peacelists.peacemaker.dev"), ("list", "pods")}
    for name in ("node-1", "node-2"):
        node(scene.api, name)
    agent_pod(scene.api, "node-1")
    with ThreadPoolExecutor() as pool:
        running = pool.submit(uninstall.run, scene, "--timeout=8s")
        wait_for(lambda: not lists & unused(scene, uninstall), TIMEOUT, "both lists to be taken")
        agent_pod(scene.api, "node-2", "example.org/late:1")
        with Agents(scene.api, {"node-1": RESTORED, "node-2": FAILED}):
            done = running.result()
    assert done.returncode == 0
    assert "suspended: 1 of 2 nodes restored\nnode-2: RestoreFailed: " in done.stdout
    assert "node/node-2 --image example.org/late:1 " in done.stdout
    wait_for(lambda: not unused(scene, uninstall), TIMEOUT, "each right to be used")


def test_a_silent_node_keeps_nobody_from_uninstalling_and_is_named(scene: Installation) -> None:
    node(scene.api, "dead")
    done = hook("uninstall").run(scene)
    assert done.returncode == 0
    assert "suspended: 0 of 1 nodes restored\ndead: the agent is not running" in done.stdout
    assert "kubectl debug node/dead" in done.stdout


@pytest.mark.parametrize(
    "less",
    [
        ("test", "list", "peacepolicies"),
        ("test", "list", "peacelists"),
        ("test", "get", "namespaces"),
        ("test", "get", "daemonsets"),
        ("test", "get", "leases"),
        ("uninstall", "patch", "configmaps"),
        ("uninstall", "create", "configmaps"),
    ],
    indirect=True,
    ids=" ".join,
)
def test_without_a_right_a_hook_fails_and_says_which(idle: Installation, less: Hook) -> None:
    *_, verb, resource = less.account.split("-")
    done = less.run(idle)
    assert done.returncode == 1
    assert f'cannot {verb} resource "{resource}"' in done.stderr


def test_uninstalling_fails_if_it_may_not_list_what_it_waits_for(idle: Installation) -> None:
    hooks = [hook("uninstall").without("list", what) for what in ("peacelists", "pods")]
    for each in hooks:
        each.create(idle)
    with ThreadPoolExecutor() as pool:
        for done in pool.map(lambda each: each.run(idle), hooks):
            assert done.returncode == 1
            assert "PeaceLists and agent pods could not be listed" in done.stderr
    for each in hooks:
        each.delete(idle)
