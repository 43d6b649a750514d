"""Lists that are kept up to date: what is told, and that nothing ends them or goes by unseen."""

import base64
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from kubernetes.client import Configuration

from apiserver import Cluster
from lab import wait_for
from peacemaker_kube.api import Api, Document
from peacemaker_kube.paths import NAMESPACES, core, item
from peacemaker_kube.watch import Change, Watch

DEFAULT = core("default", "configmaps")
TIMEOUT = 30.0


@pytest.fixture(scope="module")
def own() -> Iterator[Cluster]:
    """A control plane of its own: its server is stopped here."""
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def direct(own: Cluster) -> Iterator[Api]:
    api = Api.load(str(own.kubeconfig))
    yield api
    for each in api.get(DEFAULT, labelSelector="watched=yes")["items"]:
        api.delete(item(DEFAULT, each["metadata"]["name"]))
    api.close()


@dataclass
class Told:
    """What a watch has told, in order."""

    changes: list[Change[str]] = field(default_factory=list)

    def keys(self) -> list[str]:
        return [change.key for change in self.changes]


@contextmanager
def watching(api: Api, path: str = DEFAULT, page: int = 250) -> Iterator[tuple[Watch[str], Told]]:
    told = Told()
    watch = Watch(api, path, record, told.changes.append, labels="watched=yes", page=page)
    watch.start()
    try:
        assert watch.synced.wait(TIMEOUT)
        yield watch, told
    finally:
        watch.stop()


def record(document: Document) -> str:
    return str((document.get("data") or {}).get("value"))


def put(api: Api, name: str, value: str) -> None:
    metadata = {"name": name, "labels": {"watched": "yes"}}
    api.create(DEFAULT, {"metadata": metadata, "data": {"value": value}})


def test_what_comes_changes_and_goes_is_told_once(direct: Api) -> None:
    put(direct, "there", "1")
    with watching(direct) as (watch, told):
        put(direct, "new", "1")
        direct.patch(item(DEFAULT, "new"), {"metadata": {"annotations": {"no": "news"}}})
        direct.patch(item(DEFAULT, "new"), {"data": {"value": "2"}})
        direct.delete(item(DEFAULT, "new"))
        wait_for(lambda: len(told.changes) >= 4, TIMEOUT, "four changes")
        assert told.changes == [
            Change("default/there", None, "1"),
            Change("default/new", None, "1"),
            Change("default/new", "1", "2"),
            Change("default/new", "2", None),
        ]
        assert watch.items == {"default/there": "1"}


def test_a_list_longer_than_a_page_is_whole(direct: Api) -> None:
    for number in range(7):
        put(direct, f"n-{number}", "1")
    with watching(direct, page=3) as (watch, told):
        assert sorted(watch.items) == sorted(told.keys()) == [f"default/n-{n}" for n in range(7)]


def test_a_deletion_that_nobody_saw_is_told_after_an_expired_watch(
    own: Cluster, direct: Api
) -> None:
    put(direct, "stays", "1")
    put(direct, "goes", "1")
    with watching(direct) as (watch, told):
        own.stop_server()
        delete_and_compact(own, "/registry/configmaps/default/goes")
        own.start_server()
        wait_for(lambda: "default/goes" not in watch.items, 2 * TIMEOUT, "the deletion to be told")
        assert told.changes[-1] == Change("default/goes", "1", None)
        put(direct, "later", "1")
        wait_for(lambda: "default/later" in watch.items, TIMEOUT, "the watch to go on")


def test_a_server_that_is_away_and_comes_back_is_followed_again(own: Cluster, direct: Api) -> None:
    with watching(direct) as (watch, _):
        own.stop_server()
        wait_for(lambda: watch.relists["unreachable"] >= 1, TIMEOUT, "the watch to break off")
        own.start_server()
        put(direct, "after", "1")
        wait_for(lambda: "default/after" in watch.items, 2 * TIMEOUT, "the watch to go on")
        assert watch.is_alive


def test_a_kind_that_does_not_exist_yet_is_waited_for(direct: Api) -> None:
    told = Told()
    path = "/apis/example.dev/v1/things"
    watch = Watch(direct, path, record, told.changes.append)
    watch.start()
    try:
        wait_for(lambda: watch.relists["error"] >= 1, TIMEOUT, "the list to be refused")
        assert not watch.synced.is_set()
        direct.create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", THINGS)
        assert watch.synced.wait(TIMEOUT)
    finally:
        watch.stop()


THINGS: Document = {
    "metadata": {"name": "things.example.dev"},
    "spec": {
        "group": "example.dev",
        "scope": "Cluster",
        "names": {"kind": "Thing", "plural": "things"},
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {"openAPIV3Schema": {"type": "object"}},
            }
        ],
    },
}


def delete_and_compact(cluster: Cluster, key: str) -> None:
    """In etcd itself: what happens while nobody watches, and that its history is forgotten."""
    encoded = base64.b64encode(key.encode()).decode()
    answer = etcd(cluster, "kv/deleterange", {"key": encoded})
    assert answer["deleted"] == "1"
    etcd(cluster, "kv/compaction", {"revision": answer["header"]["revision"]})


def etcd(cluster: Cluster, call: str, body: Document) -> Document:
    request = urllib.request.Request(f"{cluster.etcd_url}/v3/{call}", json.dumps(body).encode())
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        answer: Document = json.load(response)
    return answer


# --- faults that a real server does not commit at will ---

_LIST = {"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": "a"}}]}
_GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "message": "too old"}}
_FAULT = {"type": "ERROR", "object": {"kind": "Status", "code": 500, "message": "etcd is unwell"}}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (json.dumps(_GONE), "expired"),
        (json.dumps(_FAULT), "error"),
        ('{"type": "ADDED", "obj', "error"),
        ('["ADDED"]', "error"),
        ('{"type": "ADDED", "object": null}', "error"),
        ('{"type": "ERROR", "object": null}', "error"),
    ],
)
def test_whatever_a_watch_says_it_goes_on_with_a_new_list(lines: str, reason: str) -> None:
    with faulty_server(lines) as api:
        watch = Watch(api, NAMESPACES, record, lambda _: None)
        watch.start()
        try:
            wait_for(lambda: watch.relists[reason] >= 2, TIMEOUT, f"two new lists: {reason}")
            assert watch.is_alive
            assert list(watch.items) == ["a"]
        finally:
            watch.stop()


@contextmanager
def faulty_server(lines: str) -> Iterator[Api]:
    """Answers every list with one object, and every watch with these lines."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = f"{lines}\n" if "watch=true" in self.path else json.dumps(_LIST)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        api = Api(Configuration(host=f"http://127.0.0.1:{server.server_port}"))
        try:
            yield api
        finally:
            api.close()
            server.shutdown()
            thread.join()
