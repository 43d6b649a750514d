"""The text of a PeacePolicy, from the few fields that a test is about."""

import json
from collections.abc import Mapping

ALWAYS = "true"
"""A `when` that holds at every pass."""

Fields = Mapping[str, object]


def rule(
    nice: Fields,
    pick: Fields | None = None,
    *,
    name: str = "adjust",
    when: str = ALWAYS,
    holds: str = "0s",
    cooldown: str = "0s",
) -> Fields:
    """One rule, which unless it is told otherwise acts at every pass on all VMs."""
    return {
        "name": name,
        "when": when,
        "for": holds,
        "pick": pick or {},
        "nice": nice,
        "cooldown": cooldown,
    }


def policy(
    *rules: Fields,
    name: str = "test",
    mode: str = "Enforce",
    bounds: tuple[int, int] = (-15, 15),
    interval: str = "1s",
    selector: Fields | None = None,
    priority: int = 0,
) -> str:
    """One document. JSON is YAML, so no text needs to be quoted by hand."""
    document = {
        "apiVersion": "peacemaker.dev/v1alpha1",
        "kind": "PeacePolicy",
        "metadata": {"name": name},
        "spec": {
            "mode": mode,
            "priority": priority,
            "namespaceSelector": {},
            "selector": selector or {},
            "interval": interval,
            "bounds": {"min": bounds[0], "max": bounds[1]},
            "rules": list(rules),
        },
    }
    return json.dumps(document, indent=1)


def put(nice: int, vm: str | None = None, *, name: str = "test", interval: str = "1s") -> str:
    """A policy that puts the VM of this name, or all, at this nice once and for good."""
    pick = {"where": f'vm.name == "{vm}"'} if vm else None
    return policy(rule({"set": nice}, pick), name=name, interval=interval)
