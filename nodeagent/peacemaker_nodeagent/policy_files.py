"""Policy files on disk: read at start, watched while the agent runs.

At start any problem ends the agent before it adjusts anything. Afterwards a file that turns wrong
keeps its last good policies in force, and the log says what is wrong with the new ones.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from peacemaker.parse import PolicyError, Problem, parse_policies
from peacemaker.policy import PeacePolicy
from peacemaker.yamltree import MAX_BYTES
from peacemaker_kube import log
from peacemaker_nodeagent import files

_SUFFIXES: Final = (".yaml", ".yml")


@dataclass(frozen=True, slots=True)
class _File:
    """What a file last said that was right; `stamp` is of its last look, None if that failed."""

    stamp: files.Stamp | None
    policies: tuple[PeacePolicy, ...]


class PolicyFiles:
    """The policies of files, and of directories' `*.yaml`, as they are now."""

    def __init__(self, paths: Sequence[str]) -> None:
        """Raises PolicyError with every problem of every file."""
        self._paths = paths
        self._files: dict[str, _File] = {}
        self._missed: set[str] = set()
        problems: list[Problem] = []
        for path in self._listed():
            try:
                self._files[path] = _File(files.stamp(path), _parse(path))
            except OSError as error:
                problems.append(Problem(path, 1, 1, "", f"cannot be read: {error.strerror}"))
            except PolicyError as error:
                problems.extend(error.problems)
        self._policies, duplicates = _together(self._files)
        if problems or duplicates:
            raise PolicyError((*problems, *duplicates))

    def policies(self) -> tuple[PeacePolicy, ...]:
        return self._policies

    def poll(self) -> bool:
        """Look at what has changed since; whether other policies are in force now."""
        listed = self._listed()
        changed = [self._poll_file(path) for path in listed]
        # Editors replace a file by renaming: one that is missed for a moment is not deleted.
        gone = self._files.keys() - set(listed)
        for path in gone & self._missed:
            log.info("policy file is gone", file=path)
            del self._files[path]
            changed.append(True)
        self._missed = gone - self._missed
        if not any(changed):
            return False
        policies, duplicates = _together(self._files, self._missed)
        for problem in duplicates:
            log.error("policies refused, those before stay in force", problem=problem)
        if duplicates or policies == self._policies:
            return False
        self._policies = policies
        return True

    def _poll_file(self, path: str) -> bool:
        """Whether the file says something else than before, and that is right."""
        known = self._files.get(path, _File(None, ()))
        stamp = None
        try:
            stamp = files.stamp(path)
            if stamp == known.stamp:
                return False
            policies = _parse(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            if known.stamp != stamp:
                log.error("policy file cannot be read", file=path, why=error.strerror)
            self._files[path] = _File(stamp, known.policies)
            return False
        except PolicyError as error:
            for problem in error.problems:
                log.error("policy refused, the last good one stays in force", problem=problem)
            self._files[path] = _File(stamp, known.policies)
            return False
        self._files[path] = _File(stamp, policies)
        log.info("policies read", file=path, policies=",".join(p.name for p in policies) or "-")
        return policies != known.policies

    def _listed(self) -> list[str]:
        """The files that the paths name now; at the first look every path must exist."""
        listed = []
        for path in self._paths:
            if os.path.isdir(path):
                names = sorted(name for name in os.listdir(path) if name.endswith(_SUFFIXES))
                listed += [os.path.join(path, name) for name in names]
            elif path not in self._files or os.path.exists(path):
                listed.append(path)
        return listed


def _parse(path: str) -> tuple[PeacePolicy, ...]:
    return parse_policies(files.read(path, MAX_BYTES), path)


def _together(
    found: dict[str, _File], missed: Iterable[str] = ()
) -> tuple[tuple[PeacePolicy, ...], tuple[Problem, ...]]:
    """The policies of all files, and names that two files define.

    A file in `missed` may have been renamed: what another one defines too is taken from there.
    """
    first: dict[str, str] = {}
    policies = []
    problems = []
    for path in sorted(found, key=lambda path: (path in missed, path)):
        for policy in found[path].policies:
            if policy.name not in first:
                first[policy.name] = path
                policies.append(policy)
            elif path not in missed:
                message = f"{policy.name!r} is defined in {first[policy.name]} too"
                problems.append(Problem(path, 1, 1, "metadata.name", message))
    return tuple(policies), tuple(problems)
