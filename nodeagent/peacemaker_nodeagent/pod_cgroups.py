"""Which pods have a cgroup: read from the tree once, then told by inotify."""

import errno
import os
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

from inotify_simple import Event, INotify, flags, parse_events  # type: ignore[import-untyped]

from peacemaker_kube import log
from peacemaker_nodeagent.cgroup import CgroupError, Hierarchy, place

NEAR: Final = 1
"""How far below the top a cgroup is watched whatever its name: kubepods may be made in it."""

_BUFFER: Final = 1 << 16
_MASK: Final = flags.CREATE | flags.DELETE | flags.MOVED_FROM | flags.MOVED_TO | flags.ONLYDIR
_SOME_UID: Final = "00000000-0000-0000-0000-000000000000"


class PodCgroups:
    """The pods' cgroups below one path of the hierarchy with the weights.

    Watched are the cgroups that pods are made in (kubepods and those of its QoS classes), and those
    near the top, where a kubelet makes kubepods. A kubepods that is made deeper is found by the
    next whole walk. Cgroups inside a pod are its tenant's, and are not looked at.
    """

    def __init__(self, hierarchy: Hierarchy, below: str = "/") -> None:
        """Raises CgroupError if inotify is used up. The first `update` tells of what is there."""
        self._hierarchy = hierarchy
        self._below = below.rstrip("/")
        self._watched: dict[int, str] = {}
        self._claims: dict[str, list[str]] = {}
        self._pods: dict[str, str] = {}
        self._changed: set[str] = set()
        try:
            self._inotify = INotify(nonblocking=True)
        except OSError as error:
            raise CgroupError(
                f"inotify cannot be used: {error.strerror}; raise the host's "
                "fs.inotify.max_user_instances"
            ) from error
        self._walk()

    def close(self) -> None:
        self._inotify.close()

    @property
    def fd(self) -> int:
        """Readable when `update` has something to tell."""
        return int(self._inotify.fileno())

    @property
    def pods(self) -> Mapping[str, str]:
        """The path of each pod's cgroup, by pod uid."""
        return MappingProxyType(self._pods)

    def update(self, everything: bool = False) -> set[str]:
        """The uids of pods that came, went or moved; everything: walk the tree, trust no event."""
        for event in self._events():
            if event.mask & flags.Q_OVERFLOW:
                log.info("more cgroup events than the kernel keeps: walking the tree")
                everything = True
            else:
                self._take(event)
        if everything:
            self._walk()
        changed, self._changed = self._changed, set()
        return changed

    # --- what the kernel tells ---

    def _events(self) -> list[Event]:
        try:
            return list(parse_events(os.read(self.fd, _BUFFER)))
        except BlockingIOError:
            return []

    def _take(self, event: Event) -> None:
        parent = self._watched.get(event.wd)
        if parent is None or not event.mask & flags.ISDIR:
            return
        path = f"{parent}/{event.name}"
        if event.mask & (flags.CREATE | flags.MOVED_TO):
            self._visit(path)
        else:
            self._drop(path)

    def _drop(self, top: str) -> None:
        """A cgroup is gone. The kernel keeps a watch on it for ever (kernfs), unless told."""
        self._unclaim(lambda path: _is_within(path, top))
        for wd in [wd for wd, path in self._watched.items() if _is_within(path, top)]:
            self._unwatch(wd)

    # --- what is in the tree ---

    def _walk(self) -> None:
        before, self._watched = self._watched, {}
        seen = self._visit(self._below)
        self._unclaim(lambda path: path not in seen)
        for wd in before.keys() - self._watched.keys():
            self._watched[wd] = before[wd]
            self._unwatch(wd)

    def _visit(self, path: str) -> set[str]:
        """Claim the pods at and below a path, and watch where more may be made; their paths."""
        placement = place(path)
        if placement.own is not None:
            if placement.pod_uid is None or placement.own != path:
                return set()
            self._claim(placement.pod_uid, path)
            return {path}
        directory = self._hierarchy.directory(path)
        if _is_delegated(directory):
            return set()
        # First the watch, then the look: what is made between the two is seen twice, not missed.
        if path.count("/") - self._below.count("/") <= NEAR or is_for_pods(path):
            self._watch(path, directory)
        return {pod for name in children(directory) for pod in self._visit(f"{path}/{name}")}

    def _watch(self, path: str, directory: str) -> None:
        try:
            wd = self._inotify.add_watch(directory, _MASK)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                log.error(
                    "cgroup cannot be watched: pods in it are found late",
                    cgroup=path,
                    why=f"{error.strerror}; raise fs.inotify.max_user_watches",
                )
            return
        self._watched[wd] = path

    def _unwatch(self, wd: int) -> None:
        del self._watched[wd]
        try:
            self._inotify.rm_watch(wd)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the kernel has removed it
                raise

    # --- whose they are ---

    def _claim(self, uid: str, path: str) -> None:
        """Of two cgroups of one uid the outermost is the pod's; of two alike, the first seen."""
        paths = self._claims.setdefault(uid, [])
        if path in paths:
            return
        paths.append(path)
        paths.sort(key=depth)
        if len(paths) > 1:
            log.warning("two cgroups of one pod", pod=uid, kept=paths[0], ignored=paths[-1])
        self._choose(uid)

    def _unclaim(self, is_gone: Callable[[str], bool]) -> None:
        gone = [
            (uid, path) for uid, paths in self._claims.items() for path in paths if is_gone(path)
        ]
        for uid, path in gone:
            self._claims[uid].remove(path)
            self._choose(uid)

    def _choose(self, uid: str) -> None:
        if paths := self._claims[uid]:
            self._pods[uid] = paths[0]
        else:
            del self._claims[uid], self._pods[uid]
        self._changed.add(uid)


def children(directory: str) -> list[str]:
    """The names of the cgroups in one; none if it is gone."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except FileNotFoundError:
        return []


def _is_within(path: str, top: str) -> bool:
    return path == top or path.startswith(f"{top}/")


def is_for_pods(path: str) -> bool:
    """Whether the table of cgroup names has pods right below this path."""
    names = (f"pod{_SOME_UID}", f"kubepods-pod{_SOME_UID}.slice")
    return any(place(pod).own == pod for pod in (f"{path}/{name}" for name in names))


def _is_delegated(directory: str) -> bool:
    """Whether somebody other than root can make cgroups here, with the names of pods.

    systemd hands user@.service, and services that ask for it, to their user.
    """
    if os.path.basename(directory) == "user.slice":
        return True
    try:
        return os.stat(directory).st_uid != 0
    except FileNotFoundError:
        return False


def depth(path: str) -> int:
    """How deep the kubepods is that a pod's cgroup is in."""
    kubepods = 1 if place(path).qos == "guaranteed" else 2
    return path.count("/") - kubepods
