"""The chart's hooks as Helm would run them: with the accounts, roles and arguments as rendered."""

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from apiserver import Cluster
from lab import wait_for
from peacemaker_kube import paths
from peacemaker_kube.api import Api
from peacemaker_kube.paths import item
from tests.chart.rendering import Document, pod_templates, render
from tests.cluster.deployment import NAMESPACE, TIMEOUT, collection, deployed, kubeconfig, token
from tests.cluster.test_rbac import Request, is_allowed
from tests.cluster.test_rbac_needs import requests

HOOK: Final = "helm.sh/hook"
AGENTS: Final = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/peacemaker-agent"
LEASES: Final = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
LEVEL: Final = "pod-security.kubernetes.io/enforce"

Ended = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Installation:
    """What an installation applies, without controllers and nodes, and a folder for kubeconfigs."""

    cluster: Cluster
    api: Api
    folder: Path

    def config(self, account: str) -> Path:
        file = self.folder / f"{account}.kubeconfig"
        return kubeconfig(self.cluster, token(self.api, account), file)

    def asked(self, account: str) -> list[tuple[Request, int]]:
        """What an account asked for, and the status of the answer, by the server's audit log."""
        user = f"system:serviceaccount:{NAMESPACE}:{account}"
        return list(requests(self.cluster.audit_log, user))

    def set_agents(self, *, wanted: int, made: int, ready: int) -> None:
        """Say of the agents' DaemonSet what its controller would."""
        self.api.patch(
            f"{AGENTS}/status",
            {
                "status": {
                    "observedGeneration": self.api.get(AGENTS)["metadata"]["generation"],
                    "desiredNumberScheduled": wanted,
                    "currentNumberScheduled": made,
                    "numberMisscheduled": 0,
                    "numberReady": ready,
                }
            },
        )

    def set_level(self, level: str | None) -> None:
        """Label the namespace with a level of Pod Security, or take the label away."""
        labels = {"labels": {LEVEL: level}}
        self.api.patch(item(paths.NAMESPACES, NAMESPACE), {"metadata": labels})

    def clear(self) -> None:
        """No nodes, lists, pods, settings and Lease; one agent, which is ready."""
        namespaced = [paths.core(NAMESPACE, plural) for plural in ("pods", "configmaps")]
        for path in (paths.NODES, paths.PEACE_LISTS, *namespaced, LEASES):
            for document in self.api.get(path)["items"]:
                self.api.delete(item(path, document["metadata"]["name"]), gracePeriodSeconds="0")
        self.set_level("privileged")
        self.set_agents(wanted=1, made=1, ready=1)


@contextmanager
def installed(folder: Path) -> Iterator[Installation]:
    with deployed(audit=True) as (cluster, api):
        yield Installation(cluster, api, folder)


@dataclass(frozen=True, slots=True)
class Hook:
    """One hook's account: its objects but the pod, and the arguments of that."""

    account: str
    objects: tuple[Document, ...]
    arguments: tuple[str, ...]

    def rights(self) -> list[Request]:
        """Each right that its roles give."""
        return [
            Request(
                verb,
                f"{resource}.{rule['apiGroups'][0]}".removesuffix("."),
                each["metadata"].get("namespace", ""),
                (rule.get("resourceNames") or ("",))[0],
            )
            for each in self.objects
            for rule in each.get("rules", ())
            for resource in rule["resources"]
            for verb in rule["verbs"]
        ]

    def without(self, verb: str, resource: str) -> "Hook":
        """The same with another account, which has all rights but one."""
        account = f"{self.account}-{verb}-{resource}"
        objects = json.loads(json.dumps(self.objects).replace(f'"{self.account}"', f'"{account}"'))
        for each in objects:
            if "rules" in each:
                each["rules"] = list(_without(each["rules"], verb, resource))
        found = Hook(account, tuple(objects), self.arguments)
        assert len(found.rights()) == len(self.rights()) - 1
        return found

    def create(self, installation: Installation) -> None:
        """Have the server know the account, and let it do what it may."""
        api = installation.api
        for each in self.objects:
            api.create(collection(api, each), each, fieldValidation="Strict")
        wait_for(
            lambda: all(is_allowed(api, self.account, right) for right in self.rights()),
            TIMEOUT,
            f"{self.account} to have its rights",
        )

    def delete(self, installation: Installation) -> None:
        for each in self.objects:
            path = item(collection(installation.api, each), each["metadata"]["name"])
            installation.api.delete(path)

    def command(self, installation: Installation, *options: str) -> list[str]:
        config = str(installation.config(self.account))
        argv = [sys.executable, "-m", "peacemaker_operator", *self.arguments]
        return [*argv, "--kubeconfig", config, *options]

    def run(self, installation: Installation, *options: str) -> Ended:
        """What its pod does; further options win over the rendered ones."""
        return subprocess.run(
            self.command(installation, *options),
            capture_output=True,
            text=True,
            timeout=3 * TIMEOUT,
            check=False,
        )


def hook(name: str) -> Hook:
    """`uninstall` or `test`, as rendered."""
    account = f"peacemaker-{name}"
    hooks = [
        each
        for each in render()
        if each["metadata"]["name"] == account and HOOK in each["metadata"].get("annotations", {})
    ]
    (pod,) = pod_templates(hooks).values()
    assert pod["serviceAccountName"] == account
    objects = tuple(each for each in hooks if each["kind"] not in ("Job", "Pod"))
    return Hook(account, objects, tuple(pod["containers"][0]["args"]))


def _without(rules: list[Document], verb: str, resource: str) -> Iterator[Document]:
    for rule in rules:
        for name in rule["resources"]:
            verbs = [each for each in rule["verbs"] if (each, name) != (verb, resource)]
            if verbs:
                yield {**copy.deepcopy(rule), "resources": [name], "verbs": verbs}


def lease(api: Api, holder: str) -> None:
    """Make the operators' Lease, as one did that renews it no more; empty: it gave it back."""
    spec = {"holderIdentity": holder or None, "renewTime": "2026-01-01T00:00:00.000000Z"}
    metadata = {"name": "peacemaker-operator"}
    api.create(LEASES, {"metadata": metadata, "spec": spec})


def node(api: Api, name: str) -> None:
    """A node that KubeVirt uses."""
    metadata = {"name": name, "labels": {"kubevirt.io/schedulable": "true"}}
    api.create(paths.NODES, {"apiVersion": "v1", "kind": "Node", "metadata": metadata})
