"""Who governs: which one Enforce policy has a VM, and which VMs an Observe policy would have."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from peacemaker.policy import Mode, PeacePolicy

Labels: TypeAlias = Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Standing:
    """What policies say about one VM.

    `governor` is the Enforce policy that governs it, None if none does; `observers` are the
    Observe policies that would govern it if they were Enforce; `outranked` are the Enforce
    policies that select it in vain.
    """

    governor: PeacePolicy | None = None
    observers: tuple[PeacePolicy, ...] = ()
    outranked: tuple[PeacePolicy, ...] = ()


def rank(policies: Iterable[PeacePolicy]) -> tuple[PeacePolicy, ...]:
    """Policies in the order in which they claim a VM: highest priority, then first name."""
    return tuple(sorted(policies, key=lambda policy: (-policy.priority, policy.name)))


def selects(policy: PeacePolicy, node: Labels, namespace: Labels, vm: Labels) -> bool:
    """Whether the policy's three selectors match these labels."""
    return (
        policy.node_selector.matches(node)
        and policy.namespace_selector.matches(namespace)
        and policy.selector.matches(vm)
    )


def standing(
    ranked: Iterable[PeacePolicy], node: Labels, namespace: Labels, vm: Labels
) -> Standing:
    """The standing of a VM with these labels. `ranked` comes from `rank`."""
    governor: PeacePolicy | None = None
    observers = []
    outranked = []
    for policy in ranked:
        if not selects(policy, node, namespace, vm):
            continue
        if policy.mode is Mode.OBSERVE:
            if governor is None:
                observers.append(policy)
        elif governor is None:
            governor = policy
        else:
            outranked.append(policy)
    return Standing(governor, tuple(observers), tuple(outranked))
