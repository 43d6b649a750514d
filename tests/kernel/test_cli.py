"""The command line, as people and programs meet it."""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lab import Fleet, Guest, PodTree, start
from lab.agent import Agent, Done
from lab.policy import policy, put, rule
from tests.kernel.scene import cgroups, nices

NOBODY = 65534


@pytest.fixture
def guests(tree: PodTree, fleet: Fleet, agent: Agent) -> dict[str, Guest]:
    """One VM that the policy puts at nice 5, and one that it leaves as it is. Not started."""
    agent.write_policy(put(5, "a"))
    return {
        name: fleet.keep(start(name, cgroup=tree.pod(weight=1000).leaf, paused=True))
        for name in ("a", "b")
    }


@pytest.fixture
def running(guests: dict[str, Guest], agent: Agent) -> dict[str, Guest]:
    """The same, with an agent that has done so."""
    agent.start()
    agent.wait_row("a", nice=5)
    return guests


def _table(done: Done) -> list[dict[str, str]]:
    """A table's lines, by the titles of its columns; cells are two spaces apart at least."""
    titles, *lines = (re.split(r"  +", line.strip()) for line in done.stdout.splitlines())
    return [dict(zip(titles, line, strict=True)) for line in lines]


def test_list_shows_a_table_of_what_the_agent_does(running: dict[str, Guest], agent: Agent) -> None:
    a, b = _table(agent.call("list"))
    assert (a["VM"], a["PID"], a["STATE"]) == ("default/a", str(running["a"].pid), "Managed")
    assert (a["POLICY"], a["NICE"], a["EFFECTIVE"]) == ("test", "5", "5")
    assert (a["WEIGHT"], a["BASELINE"]) == ("327", "1000")
    assert a["REASON"] == "test/adjust: nice 0 to 5"
    assert float(a["USAGE"]) < 0.5
    assert float(a["WAIT"]) < 0.5
    assert (b["VM"], b["NICE"], b["WEIGHT"], b["REASON"]) == ("default/b", "0", "1000", "-")


def test_list_wide_shows_more_columns_and_json_shows_all(
    running: dict[str, Guest], agent: Agent
) -> None:
    narrow = _table(agent.call("list"))[0]
    wide = _table(agent.call("list", "-o", "wide"))[0]
    assert wide.keys() > narrow.keys()
    assert (wide["VCPUS"], wide["FLOORED"], wide["REASSERTS"]) == ("1", "no", "0")
    a, b = agent.call("list", "-o", "json").json()
    assert (a["cgroup"], a["wanted"]) == (wide["CGROUP"], pytest.approx(327.1, abs=0.1))
    assert {(row["name"], row["pid"]) for row in (a, b)} == {
        (name, guest.pid) for name, guest in running.items()
    }


def test_list_finds_one_vm_by_its_pid(running: dict[str, Guest], agent: Agent) -> None:
    (row,) = agent.call("list", "--pid", str(running["b"].pid), "-o", "json").json()
    assert row["name"] == "b"
    done = agent.call("list", "--pid", "1")
    assert (done.status, done.stdout) == (1, "")
    assert done.stderr == "process 1 is no VM of this node\n"


def test_list_without_an_agent_shows_the_same_columns_and_writes_nothing(
    running: dict[str, Guest], tree: PodTree, agent: Agent
) -> None:
    with_agent = agent.call("list")
    agent.kill()
    before = cgroups(tree)
    done = agent.call("list")
    assert done.stderr == "no agent runs: this is what is there now\n"
    assert done.stdout.splitlines()[0].split() == with_agent.stdout.splitlines()[0].split()
    a, b = _table(done)
    # What an earlier agent left is told from its records.
    assert (a["NICE"], a["WEIGHT"], a["BASELINE"]) == ("5", "327", "1000")
    assert (a["STATE"], b["STATE"], b["NICE"]) == ("Unmanaged", "Unmanaged", "0")
    assert cgroups(tree) == before
    assert nices(running["a"]) == {5}


def test_explain_tells_rule_by_rule_what_the_last_pass_thought(
    running: dict[str, Guest], agent: Agent
) -> None:
    agent.edit(policy(rule({"add": 1}, {"lowest": "vm.priority"}), bounds=(0, 6)))
    agent.wait_row("a", nice=6)
    lines = agent.call("explain", "a").stdout.splitlines()
    assert lines[0] == (f"default/a (pid {running['a'].pid}): Managed, nice 6, effective nice 6")
    assert "policy test (Enforce)" in lines
    assert any("rule 1 adjust: `true` holds" in line for line in lines)
    by_pid = agent.call("explain", str(running["b"].pid))
    assert "not picked" in by_pid.stdout
    unknown = agent.call("explain", "c")
    assert unknown.status == 1
    assert "no VM 'c' on this node" in unknown.stderr


def test_status_says_how_node_and_policies_are(running: dict[str, Guest], agent: Agent) -> None:
    assert len(running) == 2
    status = agent.call("status", "-o", "json").json()
    (test,) = status["policies"]
    assert (test["name"], test["mode"], test["governs"]) == ("test", "Enforce", 2)
    assert status["vms"] == {"Managed": 2}
    assert 0 < status["passCpuSeconds"] < 10
    said = agent.call("status").stdout
    assert re.search(r"^test +Enforce +2 ", said, re.MULTILINE)


@pytest.mark.parametrize("words", [("status",), ("explain", "a")])
def test_what_only_an_agent_knows_is_an_error_without_one(
    words: tuple[str, ...], agent: Agent
) -> None:
    done = agent.call(*words)
    assert (done.status, done.stdout) == (1, "")
    assert f"no agent answers on {agent.run_dir.socket}" in done.stderr


def test_who_is_not_root_is_told_so(guests: dict[str, Guest], tree: PodTree) -> None:
    def become_nobody() -> None:
        os.setuid(NOBODY)

    # pytest's own directories are root's, and policies that cannot be read are another error.
    with tempfile.TemporaryDirectory() as name, Agent(Path(name), tree.root) as agent:
        os.chmod(name, 0o755)
        agent.write_policy(put(5, "a"))
        agent.start(prepare=become_nobody, wait=False)
        assert agent.wait_end() == 1
        (said,) = agent.log().splitlines()
        assert "root" in said
        assert all(nices(guest) == {0} for guest in guests.values())
        agent.start()
        agent.wait_row("a", nice=5)
        for words in (("list",), ("status",), ("explain", "a"), ("restore",)):
            done = agent.call(*words, prepare=become_nobody)
            assert (done.status, done.stdout) == (1, ""), words
            (said,) = done.stderr.splitlines()
            assert "root" in said
        agent.kill()
        assert agent.call("restore").status == 0


def test_a_run_directory_that_cannot_be_is_told_in_one_line(agent: Agent) -> None:
    agent.write_policy(put(5))
    Path(agent.run_dir.path).touch()
    agent.start(wait=False)
    assert agent.wait_end() == 1
    assert agent.log() == f"{agent.run_dir.path}: File exists\n"


def test_in_a_container_that_hides_the_hosts_processes_it_says_what_to_set(agent: Agent) -> None:
    policy_file = str(agent.write_policy(put(5)))
    words = ("run", "--policy", policy_file, "--run-dir", agent.run_dir.path)
    done = subprocess.run(
        ["unshare", "--pid", "--fork", sys.executable, "-m", "peacemaker_nodeagent", *words],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    (said,) = done.stderr.splitlines()
    assert "hostPID" in said
    assert not os.path.exists(agent.run_dir.path)


def test_check_reads_the_policies_and_touches_nothing(
    guests: dict[str, Guest], agent: Agent
) -> None:
    agent.start("--check", wait=False)
    assert agent.wait_end() == 0
    assert agent.log() == "test: Enforce, 1 rules, fine\n"
    assert not os.path.exists(agent.run_dir.path)
    assert nices(guests["a"]) == {0}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_it_completes_in_a_shell(shell: str) -> None:
    environment = {**os.environ, "_PEACEMAKER_AGENT_COMPLETE": f"{shell}_source"}
    # In an interpreter of its own, as a shell starts it.
    code = "from peacemaker_nodeagent.cli import main; main(prog_name='peacemaker-agent')"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "peacemaker-agent" in done.stdout, done.stderr
