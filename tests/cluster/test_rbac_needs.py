"""The operator needs all that its roles allow: the API server's audit log is compared to them."""

import base64
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apiserver import Cluster
from lab import wait_for
from peacemaker_kube import paths
from peacemaker_kube.api import Api, ApiError, Document
from peacemaker_kube.paths import item
from peacemaker_operator.certificates import renewed
from peacemaker_operator.controller import Controller, Pace
from peacemaker_operator.serving import CONFIGURATION, SECRET, Place, publish, shared_bundle
from peacemaker_operator.suspend import resume, write_setting
from tests.cluster.deployment import NAMESPACE, OPERATOR, TIMEOUT, client, deployed, token
from tests.cluster.test_rbac import OPERATOR_MAY, Request

USER = f"system:serviceaccount:{NAMESPACE}:{OPERATOR}"
VMIS = "/apis/kubevirt.io/v1/namespaces/default/virtualmachineinstances"
PLACE = Place(NAMESPACE, frozenset({"webhook.example"}))
POLICY: Document = {
    "apiVersion": paths.API_VERSION,
    "kind": "PeacePolicy",
    "metadata": {"name": "p"},
    "spec": {
        "mode": "Enforce",
        "rules": [{"name": "r", "when": "node.load15 > 0.9", "pick": {}, "nice": {"add": 1}}],
    },
}


@pytest.fixture
def scene() -> Iterator[tuple[Cluster, Api]]:
    with deployed(audit=True) as scene:
        yield scene


def test_the_operator_uses_each_right_that_it_has_and_is_refused_nothing(
    scene: tuple[Cluster, Api],
) -> None:
    cluster, admin = scene
    api = client(cluster, token(admin, OPERATOR))
    certificates(admin, api)
    write_setting(api, NAMESPACE, suspended=True)
    controller = Controller(api, NAMESPACE, "me", pace=Pace(details=1.0, silent_after=0.5))
    controller.start()
    try:
        wait_for(controller.is_leading, TIMEOUT, "the controller to lead")
        live(admin, api, lambda: {each.verb + each.resource for each in used(cluster.audit_log)})
    finally:
        controller.stop()
        api.close()
    asked = list(requests(cluster.audit_log, USER))
    assert [request for request, code in asked if code == 403] == []
    rights = {(verb, grant) for grant in OPERATOR_MAY for verb in grant.verbs.split()}
    unused = {
        (verb, grant.resource)
        for verb, grant in rights
        if not any(request.verb == verb and grant.covers(request) for request, _ in asked)
    }
    assert unused == set()


def certificates(admin: Api, api: Api) -> None:
    """A first certificate, its renewal, and the webhook configuration that trusts them."""
    shared_bundle(api, PLACE, lambda: True)
    due = renewed(None, PLACE.names, datetime.now(UTC) - timedelta(days=300)).to_secret()
    data = {name: base64.b64encode(pem).decode() for name, pem in due.items()}
    admin.patch(item(paths.core(NAMESPACE, "secrets"), SECRET), {"data": data})
    bundle = shared_bundle(api, PLACE, lambda: True)
    publish(api, PLACE, bundle.ca)
    assert admin.get(item(paths.WEBHOOKS, CONFIGURATION))["webhooks"][0]["clientConfig"]["caBundle"]


def live(admin: Api, api: Api, asked: Callable[[], set[str]]) -> None:
    """Nodes, VMs and policies come, change and go; an agent is silent; others write, too."""
    labels = {"kubevirt.io/schedulable": "true"}
    admin.create(paths.NODES, {"metadata": {"name": "node-1", "labels": labels}})
    peace_list = item(paths.PEACE_LISTS, "node-1")
    wait_for(lambda: condition(admin, peace_list) == "AgentSilent", TIMEOUT, "a silent agent")
    resume(api, NAMESPACE, TIMEOUT, lambda _: None)

    admin.create(paths.PEACE_POLICIES, POLICY)
    policy = item(paths.PEACE_POLICIES, "p")
    wait_for(lambda: condition(admin, policy), TIMEOUT, "the policy's status")
    wrong = {"rules": [{**POLICY["spec"]["rules"][0], "when": "node.laod15 > 0.9"}]}
    admin.patch(policy, {"spec": wrong})
    wait_for(lambda: "createevents" in asked(), TIMEOUT, "an Event on the policy")

    vmi = item(VMIS, "vm")
    admin.create(VMIS, running_vmi("vm", "node-1"))
    with meddling(admin, peace_list), meddling(admin, policy):
        priorities = itertools.count()

        def conflicted() -> bool:
            turn = next(priorities)
            admin.patch(vmi, {"metadata": {"labels": {"turn": str(turn)}}})
            admin.patch(policy, {"spec": POLICY["spec"] | {"priority": turn}})
            return {"getpeacelists.peacemaker.dev", "getpeacepolicies.peacemaker.dev"} <= asked()

        wait_for(conflicted, 2 * TIMEOUT, "conflicts, after which the newest is read")

    admin.delete(item(paths.NODES, "node-1"))
    admin.delete(vmi)
    wait_for(lambda: not admin.get(paths.PEACE_LISTS)["items"], TIMEOUT, "the list to be deleted")


def running_vmi(name: str, node: str) -> Document:
    return {
        "apiVersion": "kubevirt.io/v1",
        "kind": "VirtualMachineInstance",
        "metadata": {"name": name},
        "spec": {"domain": {"devices": {}}},
        "status": {"phase": "Running", "nodeName": node, "activePods": {"pod-1": node}},
    }


@contextmanager
def meddling(api: Api, path: str) -> Iterator[None]:
    """Somebody annotates the object as fast as can be, so that each copy of it is an old one."""
    ended = threading.Event()

    def meddle() -> None:
        for turn in itertools.count():
            if ended.is_set():
                return
            api.patch(path, {"metadata": {"annotations": {"turn": str(turn)}}})

    thread = threading.Thread(target=meddle)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def condition(api: Api, path: str) -> str:
    """Why the object is ready or not; empty while nothing is said, or it is not there."""
    try:
        conditions = api.get(path).get("status", {}).get("conditions", [])
    except ApiError:
        return ""
    return next((each["reason"] for each in conditions if each["type"] == "Ready"), "")


def used(log: Path) -> list[Request]:
    return [request for request, _ in requests(log, USER)]


def requests(log: Path, user: str) -> Iterator[tuple[Request, int]]:
    """What a user asked for, and the status of the answer; not which kinds are served."""
    for line in log.read_text().splitlines(keepends=True):
        if not line.endswith("\n"):
            return  # it is still being written
        event = json.loads(line)
        asked = event.get("objectRef")
        if event["user"]["username"] == user and asked:
            plural = "/".join(filter(None, (asked["resource"], asked.get("subresource"))))
            resource = f"{plural}.{asked.get('apiGroup', '')}".removesuffix(".")
            request = Request(
                event["verb"], resource, asked.get("namespace", ""), asked.get("name", "")
            )
            yield request, event["responseStatus"]["code"]
