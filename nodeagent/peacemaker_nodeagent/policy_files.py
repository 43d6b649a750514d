"""Policy files on disk: read at start, watched while the agent runs.

At start any problem ends the agent before it adjusts anything. Afterwards a file that turns wrong
keeps its last good policies in force, and the log says what is wrong with the new ones.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final

from peacemaker.parse import PolicyError, Problem, parse_policies
from peacemaker.policy import PeacePolicy
from peacemaker_nodeagent import log

_SUFFIXES: Final = (".yaml", ".yml")
_MOST_BYTES: Final = 262_144
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class _File:
    stamp: _Stamp
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
                self._files[path] = _File(_stamp(path), _parse(path))
            except OSError as error:
                problems.append(Problem(path, 1, 1, "", f"cannot be read: {error.strerror}"))
            except PolicyError as error:
                problems.extend(error.problems)
        problems.extend(_duplicates({path: file.policies for path, file in self._files.items()}))
        if problems:
            raise PolicyError(tuple(problems))

    def policies(self) -> tuple[PeacePolicy, ...]:
        return tuple(chain.from_iterable(file.policies for file in self._files.values()))

    def poll(self) -> bool:
        """Look at what has changed since; whether other policies are in force now."""
        listed = self._listed()
        changed = False
        for path in listed:
            changed |= self._poll_file(path)
        gone = self._files.keys() - set(listed)
        # Editors replace a file by renaming: one that is missed for a moment is not deleted.
        for path in gone & self._missed:
            del self._files[path]
            log.info("policy file is gone", file=path)
            changed = True
        self._missed = gone - self._missed
        return changed

    def _poll_file(self, path: str) -> bool:
        known = self._files.get(path)
        try:
            stamp = _stamp(path)
            if known and known.stamp == stamp:
                return False
            policies = _parse(path)
            others = {name: file.policies for name, file in self._files.items() if name != path}
            if problems := _duplicates({**others, path: policies}):
                raise PolicyError(tuple(problems))
        except FileNotFoundError:
            return False
        except OSError as error:
            log.error("policy file cannot be read", file=path, why=error.strerror)
            return False
        except PolicyError as error:
            for problem in error.problems:
                log.error("policy refused, the last good one stays in force", problem=problem)
            self._files[path] = _File(stamp, known.policies if known else ())
            return False
        self._files[path] = _File(stamp, policies)
        log.info("policies read", file=path, policies=",".join(p.name for p in policies) or "-")
        return known is None or known.policies != policies

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


def _stamp(path: str) -> _Stamp:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_ino, status.st_size


def _parse(path: str) -> tuple[PeacePolicy, ...]:
    with open(path, "rb") as file:
        return parse_policies(file.read(_MOST_BYTES + 1), path)


def _duplicates(files: Mapping[str, Iterable[PeacePolicy]]) -> list[Problem]:
    first: dict[str, str] = {}
    problems = []
    for path, policies in files.items():
        for policy in policies:
            if policy.name in first:
                message = f"{policy.name!r} is defined in {first[policy.name]} too"
                problems.append(Problem(path, 1, 1, "metadata.name", message))
            first.setdefault(policy.name, path)
    return problems
