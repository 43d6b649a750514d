"""Who governs each of many VMs: what `peacemaker.govern.standing` says, worked out once for all.

Ten thousand VMs know few different sets of policies that select them. A set is an integer with a
bit for each policy; those of nodes, namespaces and VMs are remembered by what they depend on, and
so is the standing that a set means.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from peacemaker.govern import Labels, rank
from peacemaker.policy import Mode, PeacePolicy
from peacemaker.selector import LabelSelector


@dataclass(frozen=True, slots=True)
class NamedStanding:
    """What policies say about one VM, by their names.

    `outranked` are all that select it and come after the governor, of both modes.
    """

    governor: str | None = None
    observers: tuple[str, ...] = ()
    outranked: tuple[str, ...] = ()


class Standings:
    """The standings of VMs under one set of policies, while no namespace changes its labels."""

    def __init__(self, policies: Iterable[PeacePolicy]) -> None:
        self._ranked = rank(policies)
        self._keys = sorted({key for policy in self._ranked for key in _keys(policy.selector)})
        self._of_namespaces: dict[str, int] = {}
        self._of_vms: dict[tuple[str | None, ...], int] = {}
        self._known: dict[int, NamedStanding] = {}

    def on_node(self, labels: Labels) -> int:
        """Return the set of policies whose nodeSelector matches a node."""
        return _bits(policy.node_selector.matches(labels) for policy in self._ranked)

    def first(self, policies: int, limit: int) -> int:
        """Return the part of a set that ranks highest, at most `limit` policies."""
        while policies.bit_count() > limit:
            policies ^= 1 << policies.bit_length() - 1
        return policies

    def names(self, policies: int) -> tuple[str, ...]:
        """Return the names of a set of policies, in order of rank."""
        return tuple(policy.name for policy in self._members(policies))

    def of(self, on_node: int, namespace: str, labels: Labels, vm: Labels) -> NamedStanding:
        """Return the standing of a VM on a node with these policies.

        `labels` are those of its namespace, `vm` its own.
        """
        selected = on_node & self._in_namespace(namespace, labels) & self._of_vm(vm)
        if selected not in self._known:
            self._known[selected] = _standing(self._members(selected))
        return self._known[selected]

    def _in_namespace(self, namespace: str, labels: Labels) -> int:
        if namespace not in self._of_namespaces:
            self._of_namespaces[namespace] = _bits(
                policy.namespace_selector.matches(labels) for policy in self._ranked
            )
        return self._of_namespaces[namespace]

    def _of_vm(self, labels: Labels) -> int:
        """VMs whose labels differ only in what no selector asks for are alike."""
        asked = tuple(map(labels.get, self._keys))
        if asked not in self._of_vms:
            self._of_vms[asked] = _bits(policy.selector.matches(labels) for policy in self._ranked)
        return self._of_vms[asked]

    def _members(self, policies: int) -> list[PeacePolicy]:
        return [policy for bit, policy in enumerate(self._ranked) if policies >> bit & 1]


def _standing(selected: list[PeacePolicy]) -> NamedStanding:
    """Return what these policies, in order of rank, say of a VM that they all select."""
    names = tuple(policy.name for policy in selected)
    for at, policy in enumerate(selected):
        if policy.mode is Mode.ENFORCE:
            return NamedStanding(names[at], names[:at], names[at + 1 :])
    return NamedStanding(None, names)


def _keys(selector: LabelSelector) -> set[str]:
    return {*selector.match_labels, *(asked.key for asked in selector.match_expressions)}


def _bits(matches: Iterable[bool]) -> int:
    return sum(1 << bit for bit, is_set in enumerate(matches) if is_set)
