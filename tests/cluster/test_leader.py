"""Who may write: the Lease on a real API server, and a fence that does not wait for an answer."""

import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest
from kubernetes.leaderelection import leaderelection

from apiserver import Cluster
from lab import wait_for
from peacemaker_kube.api import Api, Document
from peacemaker_kube.paths import item
from peacemaker_operator.leader import LEASE, Leader, Timing

TIMING = Timing(lease=4, renew=3, retry=1)
TIMEOUT = 30.0


@dataclass
class Candidate:
    """A leader of the tests, on a monotonic clock that can be moved."""

    leader: Leader
    told: list[bool]
    shift: list[float] = field(default_factory=lambda: [0.0])


class Election:
    """Candidates in one namespace, each with a client of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self._kubeconfig = str(cluster.kubeconfig)
        self.api = Api.load(self._kubeconfig)
        self.namespace = f"leader-{uuid.uuid4().hex[:8]}"
        self.api.create("/api/v1/namespaces", {"metadata": {"name": self.namespace}})
        self.leases = f"/apis/coordination.k8s.io/v1/namespaces/{self.namespace}/leases"
        self._clients: list[Api] = []

    def candidate(self, identity: str) -> Candidate:
        api = Api.load(self._kubeconfig)
        self._clients.append(api)
        told: list[bool] = []
        shift = [0.0]
        leader = Leader(
            api.client,
            self.namespace,
            identity,
            told.append,
            TIMING,
            clock=lambda: time.monotonic() + shift[0],
        )
        return Candidate(leader, told, shift)

    def lease(self) -> Document:
        document: Document = self.api.get(item(self.leases, LEASE))["spec"]
        return document

    def close(self) -> None:
        for api in (self.api, *self._clients):
            api.close()


@pytest.fixture
def election(cluster: Cluster) -> Iterator[Election]:
    election = Election(cluster)
    yield election
    election.close()


@contextmanager
def running(candidate: Candidate) -> Iterator[Candidate]:
    candidate.leader.start()
    try:
        yield candidate
    finally:
        candidate.leader.stop()


def wait_to_lead(candidate: Candidate) -> None:
    wait_for(candidate.leader.is_leading, TIMEOUT, f"{candidate.leader.identity} to lead")


def test_the_first_candidate_leads_and_the_second_waits(election: Election) -> None:
    with running(election.candidate("a")) as first:
        wait_to_lead(first)
        with running(election.candidate("b")) as second:
            renewed = election.lease()["renewTime"]
            wait_for(lambda: election.lease()["renewTime"] != renewed, TIMEOUT, "a renewal")
            assert first.leader.is_leading()
            assert not second.leader.is_leading()
            assert second.told == []
    assert first.told == [True]


def test_a_clean_stop_empties_the_lease_and_the_other_takes_over_without_waiting_for_its_end(
    election: Election,
) -> None:
    with running(election.candidate("a")) as first:
        wait_to_lead(first)
        with running(election.candidate("b")) as second:
            first.leader.stop()
            assert not first.leader.is_leading()
            released = time.monotonic()
            wait_to_lead(second)
            assert time.monotonic() - released < TIMING.lease
            assert election.lease()["holderIdentity"] == "b"


def test_a_leader_that_stops_renewing_is_fenced_before_another_leads(election: Election) -> None:
    first = election.candidate("a")
    first.leader._try()  # no thread: it is never heard of again
    assert first.leader.is_leading()
    with running(election.candidate("b")) as second:
        wait_for(second.leader.is_leading, TIMEOUT, "b to lead")
        assert not first.leader.is_leading()
        first.leader._try()
        assert not first.leader.is_leading()
        assert election.lease()["holderIdentity"] == "b"


def test_a_leader_whose_lease_was_taken_stops_at_once_and_is_a_candidate_again(
    election: Election,
) -> None:
    with running(election.candidate("a")) as first:
        wait_to_lead(first)
        election.api.patch(item(election.leases, LEASE), {"spec": {"holderIdentity": "other"}})
        wait_for(lambda: first.told == [True, False], TIMEOUT, "a to notice")
        wait_for(lambda: first.told == [True, False, True], TIMEOUT, "a to lead again")
        assert first.leader.is_alive()


def test_a_deleted_lease_is_made_anew(election: Election) -> None:
    with running(election.candidate("a")) as first:
        wait_to_lead(first)
        election.api.delete(item(election.leases, LEASE))
        wait_for(lambda: "a" in _holders(election), TIMEOUT, "a new Lease")
        assert first.told == [True]


def test_the_fence_falls_by_the_own_monotonic_clock_alone(election: Election) -> None:
    first = election.candidate("a")
    first.leader._try()
    first.shift[0] = TIMING.renew - 0.5
    assert first.leader.is_leading()
    first.shift[0] = float(TIMING.renew)
    assert not first.leader.is_leading()


def test_a_step_of_the_wall_clock_does_not_end_the_lease_of_another(
    election: Election, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = election.candidate("a"), election.candidate("b")
    first.leader._try()
    second.leader._try()
    stepped = SimpleNamespace(time=lambda: time.time() + 3600, sleep=time.sleep)
    monkeypatch.setattr(leaderelection, "time", stepped)
    monkeypatch.setattr("peacemaker_operator.leader.time", stepped)
    second.leader._try()
    assert not second.leader.is_leading()
    assert election.lease()["holderIdentity"] == "a"


def test_the_api_server_away_fences_the_leader_and_back_makes_one_again(
    election: Election, cluster: Cluster
) -> None:
    with running(election.candidate("a")) as first:
        wait_to_lead(first)
        cluster.stop_server()
        try:
            wait_for(lambda: first.told == [True, False], TIMEOUT, "a to be fenced")
        finally:
            cluster.start_server()
        wait_for(lambda: first.told == [True, False, True], TIMEOUT, "a to lead again")


def _holders(election: Election) -> list[str]:
    leases = election.api.get(election.leases)["items"]
    return [lease["spec"]["holderIdentity"] for lease in leases]
