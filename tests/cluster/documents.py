"""Documents that the API server accepts, every field of them used."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from kubernetes.client import ApiClient

from tests.cluster.api import Document, ask
from tests.unit.test_policy_errors import VALID

POLICY: Document = yaml.safe_load(VALID)

POLICY_STATUS: Document = yaml.safe_load("""
observedGeneration: 1
conditions:
- type: Ready
  status: "True"
  reason: InForce
  message: ""
  lastTransitionTime: "2026-01-01T00:00:00Z"
  observedGeneration: 1
nodes: 3
vms: 40
adjusted: 7
outranked: 2
outrankedBy: [{name: q, vms: 2}]
worstNodes: [{name: node-1, reason: Contested, message: n/vm, vms: 1}]
accepted: {generation: 1, spec: {mode: Enforce, of-a-later-version: [1]}}
""")

PEACE_LIST: Document = yaml.safe_load("""
apiVersion: peacemaker.dev/v1alpha1
kind: PeaceList
metadata: {name: node-1}
spec:
  policies:
  - name: p
    generation: 1
    spec: '{"mode":"Enforce","of-a-later-version":[1]}'
  vms:
  - uid: u-1
    podUID: p-1
    namespace: n
    name: vm
    labels: {a: b}
    priorityClassValue: 5
    vcpus: 2
    creationTimestamp: "2026-01-01T00:00:00Z"
    policy: p
    observers: [o]
    state: Managed
  - uid: u-2
    namespace: n
    name: other
    priorityClassValue: 0
    vcpus: 1
    labelsOmitted: 41 labels, allowed 32
    state: Deferred
    reason: Paused
    message: paused by its user
  maxClaimPercent: 150
  suspended: {reason: NodeExcluded, message: the node has the label peacemaker.dev/exclude}
""")

LIST_STATUS: Document = yaml.safe_load("""
observedGeneration: 1
load: {load1: "0.87", load5: "0.50", load15: "12.00"}
conditions:
- type: Ready
  status: "True"
  reason: InForce
  message: ""
  lastTransitionTime: "2026-01-01T00:00:00Z"
  observedGeneration: 1
summary:
  {managed: 9, adjusted: 4, deferred: 1, excluded: 2, floored: 3, contested: 5, failed: 6}
policies:
- name: p
  generation: 1
  reason: NotUnderstood
  message: "1:7: unknown field"
  activeRules: [a]
  missingSignals: [node.psi.some10]
  wouldAdjust: 1
  wouldBe: [{namespace: n, name: vm, nice: 3}]
vms:
- uid: u-1
  namespace: n
  name: vm
  state: Managed
  nice: 5
  effectiveNice: 4
  weight: 2
  wanted: 1
  baseline: 100
  since: "2026-01-01T00:00:00Z"
  reason: Floored
  message: rule a of policy p
""")


@contextmanager
def stored(api: ApiClient, path: str, document: Document) -> Iterator[Document]:
    """The document as the API server keeps it, for as long as this lasts."""
    created = ask(api, "POST", path, document, fieldValidation="Strict")
    try:
        yield created
    finally:
        ask(api, "DELETE", f"{path}/{created['metadata']['name']}")


def edited(document: Document, path: str, value: object) -> Document:
    """A copy with this value at a dotted path; `-` in front of the path takes out what is there."""
    copied = copy.deepcopy(document)
    *parents, last = path.removeprefix("-").split(".")
    holder: Any = copied
    for each in parents:
        holder = holder[int(each)] if each.isdigit() else holder[each]
    key = int(last) if last.isdigit() else last
    if path.startswith("-"):
        del holder[key]
    else:
        holder[key] = value
    return copied
