"""Restoring from the records alone: what an agent that is gone has left.

Needs no VM in a peace_list: each record says what was there before, and is used only if what it
speaks of is still there and still ours.
"""

import errno
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from peacemaker_nodeagent.act import Restored, restore_threads, restore_weight
from peacemaker_nodeagent.cgroup import Hierarchy, walk
from peacemaker_nodeagent.own_cgroup import CgroupEnded, OwnCgroup
from peacemaker_nodeagent.proc import Process, ProcessEnded, ProcessKey
from peacemaker_nodeagent.records import Journal, RecordError, read_weight_record


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one record: `subject` is a cgroup path or `pid N`."""

    subject: str
    steps: tuple[Restored, ...]
    problem: str | None = None


def restore_records(
    hierarchy: Hierarchy,
    journal: Journal,
    below: str = "/",
    keep_paths: Collection[str] = (),
    keep_keys: Collection[ProcessKey] = (),
) -> Iterator[Outcome]:
    """Restore all threads, then all weights, but those that `keep_…` name.

    For whoever holds the agent's lock.
    """
    journal.remove_unfinished()
    for key in journal.processes():
        if key not in keep_keys:
            yield _restore_process(journal, key)
    top = hierarchy.directory(below)
    for directory in walk(top):
        path = directory[len(hierarchy.cpu) :] or "/"
        if path not in keep_paths and _has_record(directory):
            yield _restore_cgroup(hierarchy, path)


def _restore_process(journal: Journal, key: ProcessKey) -> Outcome:
    subject = f"pid {key.pid}"
    try:
        process = Process.open(key.pid)
    except ProcessEnded:
        journal.remove(key)
        return Outcome(subject, (), None)
    try:
        if process.key != key:
            journal.remove(key)
            return Outcome(subject, ())
        record = journal.read(key)
        steps = restore_threads(process, record) if record else []
        journal.remove(key)
        return Outcome(subject, tuple(steps))
    except (RecordError, OSError) as error:
        return Outcome(subject, (), f"left alone: {error}")
    finally:
        process.close()


def _has_record(directory: str) -> bool:
    try:
        return read_weight_record(directory, directory) is not None
    except RecordError:
        return True
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return False
        raise


def _restore_cgroup(hierarchy: Hierarchy, path: str) -> Outcome:
    try:
        own = OwnCgroup.open(hierarchy, path)
    except CgroupEnded:
        return Outcome(path, ())
    except OSError as error:
        return Outcome(path, (), f"left alone: {error}")
    if own is None:
        return Outcome(path, (), "left alone: it has a record, and no weight any more")
    try:
        record = own.read_record()
        return Outcome(path, tuple(restore_weight(own, record)) if record else ())
    except CgroupEnded:
        return Outcome(path, ())
    except (RecordError, OSError) as error:
        return Outcome(path, (), f"left alone: {error}")
    finally:
        own.close()
