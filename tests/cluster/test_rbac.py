"""Who may do what: tables of all that the roles allow, and what the agents' tokens can write."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import product

import pytest

from apiserver import Cluster
from lab import wait_for
from peacemaker_kube import paths
from peacemaker_kube.api import Api, ApiError, Document
from peacemaker_kube.paths import item, status
from tests.cluster.deployment import (
    AGENT,
    NAMESPACE,
    OPERATOR,
    TIMEOUT,
    agent_pod,
    client,
    deployed,
    token,
)

VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
OURS = {
    "configmaps": "peacemaker",
    "leases.coordination.k8s.io": "peacemaker-operator",
    "secrets": "peacemaker-webhook",
    "validatingwebhookconfigurations.admissionregistration.k8s.io": "peacemaker-policies",
}


@dataclass(frozen=True, slots=True)
class Request:
    """`resource`: plural[/subresource][.group]. Empty: no namespace, no name."""

    verb: str
    resource: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class Grant:
    """Allows verbs (by a blank) on a resource; empty: in every namespace, whatever the name."""

    verbs: str
    resource: str
    namespace: str = ""
    name: str = ""

    def covers(self, request: Request) -> bool:
        return (
            request.verb in self.verbs.split()
            and request.resource == self.resource
            and self.namespace in ("", request.namespace)
            and self.name in ("", request.name)
        )


# What Kubernetes lets everybody do who has a token: ask about himself.
EVERYBODY = [
    Grant("create", "selfsubjectaccessreviews.authorization.k8s.io"),
    Grant("create", "selfsubjectrulesreviews.authorization.k8s.io"),
    Grant("create", "selfsubjectreviews.authentication.k8s.io"),
]
OPERATOR_MAY = [
    Grant("list watch", "virtualmachineinstances.kubevirt.io"),
    Grant("list watch", "nodes"),
    Grant("list watch", "namespaces"),
    Grant("list watch", "priorityclasses.scheduling.k8s.io"),
    Grant("get list watch", "peacepolicies.peacemaker.dev"),
    Grant("patch", "peacepolicies/status.peacemaker.dev"),
    Grant("get list watch create patch delete", "peacelists.peacemaker.dev"),
    Grant("patch", "peacelists/status.peacemaker.dev"),
    Grant("create", "events"),
    Grant(
        "get patch",
        "validatingwebhookconfigurations.admissionregistration.k8s.io",
        name="peacemaker-policies",
    ),
    Grant("list watch", "pods", NAMESPACE),
    Grant("list watch patch", "configmaps", NAMESPACE, "peacemaker"),
    Grant("create", "configmaps", NAMESPACE),
    Grant("get update", "leases.coordination.k8s.io", NAMESPACE, "peacemaker-operator"),
    Grant("create", "leases.coordination.k8s.io", NAMESPACE),
    Grant("get update", "secrets", NAMESPACE, "peacemaker-webhook"),
    Grant("create", "secrets", NAMESPACE),
]
AGENT_MAY = [
    Grant("list watch", "peacelists.peacemaker.dev"),
    Grant("patch", "peacelists/status.peacemaker.dev"),
]


@pytest.fixture(scope="module")
def scene() -> Iterator[tuple[Cluster, Api]]:
    with deployed() as scene:
        for node in ("node-1", "node-2"):
            scene[1].create(paths.PEACE_LISTS, peace_list(node))
        yield scene


def peace_list(node: str) -> Document:
    version = paths.API_VERSION
    return {"apiVersion": version, "kind": "PeaceList", "metadata": {"name": node}, "spec": {}}


@pytest.mark.parametrize(
    ("account", "grants"), [(OPERATOR, OPERATOR_MAY), (AGENT, AGENT_MAY)], ids=["operator", "agent"]
)
def test_an_account_may_do_what_the_table_says_and_nothing_else(
    scene: tuple[Cluster, Api], account: str, grants: list[Grant]
) -> None:
    api = scene[1]
    requests = list(every_request(api))
    with ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda request: is_allowed(api, account, request), requests)
    allowed = {request for request, answer in zip(requests, answers, strict=True) if answer}
    table = [*EVERYBODY, *grants]
    assert allowed == {each for each in requests if any(grant.covers(each) for grant in table)}
    assert all(any(grant.covers(each) for each in requests) for grant in table)


def every_request(api: Api) -> Iterator[Request]:
    """Each verb on each resource that the server serves, in our namespace and another."""
    roots = ["/api/v1"] + [
        f"/apis/{group['preferredVersion']['groupVersion']}" for group in api.get("/apis")["groups"]
    ]
    for root in roots:
        group = root.split("/")[2] if root.startswith("/apis/") else ""
        for kind in api.get(root)["resources"]:
            resource = f"{kind['name']}.{group}".removesuffix(".")
            namespaces = (NAMESPACE, "default") if kind["namespaced"] else ("",)
            names = {"", "another", OURS.get(resource, "")}
            for verb, namespace, name in product(VERBS, namespaces, sorted(names)):
                yield Request(verb, resource, namespace, name)


def is_allowed(api: Api, account: str, request: Request) -> bool:
    resource, _, group = request.resource.partition(".")
    plural, _, subresource = resource.partition("/")
    attributes = {
        "verb": request.verb,
        "group": group,
        "resource": plural,
        "subresource": subresource,
        "namespace": request.namespace,
        "name": request.name,
    }
    user = f"system:serviceaccount:{NAMESPACE}:{account}"
    groups = ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}"]
    spec = {
        "user": user,
        "groups": [*groups, "system:authenticated"],
        "resourceAttributes": attributes,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": spec,
    }
    answer = api.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    allowed: bool = answer["status"]["allowed"]
    return allowed


def test_the_operators_token_can_write_no_vmi_node_or_pod(scene: tuple[Cluster, Api]) -> None:
    operator = client(scene[0], token(scene[1], OPERATOR))
    vmis = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
    labels = {"metadata": {"labels": {"a": "b"}}}
    for path in (
        item(vmis, "vm"),
        item(paths.NODES, "n"),
        item(paths.core("default", "pods"), "p"),
    ):
        assert refusal(partial(operator.patch, path, labels)).status == 403
        assert refusal(partial(operator.delete, path)).status == 403
    assert operator.get(paths.VMIS)["items"] == []
    operator.close()


STATUS = {"status": {"observedGeneration": 1}}

NOTHING_ELSE = "status of its node's PeaceList, and nothing else"
NO_RIGHT = "cannot"


@pytest.mark.parametrize(
    ("bound", "write", "refused"),
    [
        pytest.param(
            True, lambda api: api.patch(status(paths.PEACE_LISTS, "node-1"), STATUS), "", id="own"
        ),
        pytest.param(
            True,
            lambda api: api.patch(status(paths.PEACE_LISTS, "node-2"), STATUS),
            "agent of node node-1 may not write the PeaceList of node node-2",
            id="another-nodes",
        ),
        pytest.param(
            False,
            lambda api: api.patch(status(paths.PEACE_LISTS, "node-1"), STATUS),
            "does not name its node",
            id="token-of-no-pod",
        ),
        pytest.param(
            True,
            lambda api: api.patch(item(paths.PEACE_LISTS, "node-1"), {"spec": {"vms": []}}),
            NO_RIGHT,
            id="spec",
        ),
        pytest.param(
            True,
            lambda api: api.create(paths.PEACE_LISTS, peace_list("node-3")),
            NO_RIGHT,
            id="create",
        ),
        pytest.param(
            True, lambda api: api.delete(item(paths.PEACE_LISTS, "node-1")), NO_RIGHT, id="delete"
        ),
    ],
)
def test_an_agents_token_writes_the_status_of_its_own_peacelist_only(
    scene: tuple[Cluster, Api],
    tokens: dict[bool, str],
    bound: bool,
    write: Callable[[Api], object],
    refused: str,
) -> None:
    agent = client(scene[0], tokens[bound])
    if refused:
        assert refused in refusal(lambda: write(agent)).message
    else:
        write(agent)
    agent.close()


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(
            lambda api: api.patch(item(paths.PEACE_LISTS, "node-1"), {"spec": {"vms": []}}),
            id="spec",
        ),
        pytest.param(lambda api: api.create(paths.PEACE_LISTS, peace_list("node-3")), id="create"),
        pytest.param(lambda api: api.delete(item(paths.PEACE_LISTS, "node-1")), id="delete"),
        pytest.param(lambda api: api.delete(paths.PEACE_LISTS), id="delete-all"),
    ],
)
def test_an_agent_that_is_given_more_by_mistake_still_writes_no_more_than_status(
    generous: tuple[Cluster, Api], tokens: dict[bool, str], write: Callable[[Api], object]
) -> None:
    agent = client(generous[0], tokens[True])
    assert NOTHING_ELSE in refusal(lambda: write(agent)).message
    agent.close()


@pytest.fixture(scope="module")
def tokens(scene: tuple[Cluster, Api]) -> dict[bool, str]:
    """The agent's token, by whether it is that of a pod on node-1. The policy is in force."""
    cluster, api = scene
    tokens = {True: token(api, AGENT, agent_pod(api, "node-1")), False: token(api, AGENT)}
    agent = client(cluster, tokens[False])

    def is_in_force() -> bool:
        try:
            agent.patch(status(paths.PEACE_LISTS, "node-1"), STATUS, dryRun="All")
        except ApiError:
            return True
        return False

    wait_for(is_in_force, TIMEOUT, "the admission policy to be in force")
    agent.close()
    return tokens


@pytest.fixture
def generous(scene: tuple[Cluster, Api]) -> Iterator[tuple[Cluster, Api]]:
    """The agents' account is bound to cluster-admin."""
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    api_group = "rbac.authorization.k8s.io"
    scene[1].create(
        bindings,
        {
            "apiVersion": f"{api_group}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "too-much"},
            "roleRef": {"apiGroup": api_group, "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "name": AGENT, "namespace": NAMESPACE}],
        },
    )
    yield scene
    scene[1].delete(item(bindings, "too-much"))


def refusal(write: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        write()
    return caught.value
