"""What people see: rows, tables and log lines, in which a tenant's names can forge nothing."""

import io
import json
import logging
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from peacemaker.claim import Claimant, guard
from peacemaker.govern import Standing
from peacemaker.nice import CPU_SHARES
from peacemaker_kube import log
from peacemaker_nodeagent.agent import STOPPED
from peacemaker_nodeagent.cgroup import Hierarchy, find_hierarchy, place
from peacemaker_nodeagent.own_cgroup import CgroupEnded, OwnCgroup
from peacemaker_nodeagent.passes import Passes
from peacemaker_nodeagent.peace_list import Obstacle, PeaceList, State, Vm
from peacemaker_nodeagent.proc import Process, ProcessKey
from peacemaker_nodeagent.records import WeightRecord
from peacemaker_nodeagent.report import Reporter
from peacemaker_nodeagent.sense import Sensors
from peacemaker_nodeagent.view import find_vm, render, row
from tests.unit.builders import policy, rule

POLICY = policy(rule(), name="gold")
GOVERNED = Standing(governor=POLICY)
POD = "/kubepods/burstable/pod0b1c7a52-4c8e-4f0a-9d2e-1f4c8e6a7b90"


def vm(name: str = "web", pid: int = 77, **fields: Any) -> Vm:
    known: dict[str, Any] = {
        "process": Process(ProcessKey(pid, 1), -1, -1, -1),
        "uid": f"{pid}-1",
        "name": name,
        "namespace": "prod",
        "labels": {},
        "started": 0.0,
        "placement": place("/"),
        "own": None,
        "vcpus": 2,
    }
    return Vm(**(known | fields))


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, {"state": "Unmanaged", "policy": None, "reason": "no policy governs it", "nice": 0}),
        ({"standing": GOVERNED}, {"state": "Managed", "policy": "gold", "reason": ""}),
        ({"standing": GOVERNED, "reason": "gold/r: nice 0 to 1", "nice": 1, "changed_at": 90.0},
         {"reason": "gold/r: nice 0 to 1", "nice": 1, "effectiveNice": 1, "since": 10.0}),
        ({"standing": GOVERNED, "suspended": STOPPED},
         {"state": "Unmanaged", "policy": None, "reason": "Stopped"}),
        ({"standing": GOVERNED, "obstacle": Obstacle(State.CONTESTED, "Contested: x")},
         {"state": "Contested", "policy": None, "reason": "Contested: x"}),
        ({"obstacle": Obstacle(State.EXCLUDED, "GuaranteedQoS"), "reason": "old"},
         {"state": "Excluded", "reason": "GuaranteedQoS"}),
        ({"standing": GOVERNED, "write_failure": "WriteFailed: x", "reason": "old"},
         {"state": "Failed", "policy": "gold", "reason": "WriteFailed: x"}),
        ({"weight": WeightRecord(baseline=102, confirmed=36, nice=5), "weight_found": 36},
         {"baseline": 102, "weight": None}),
        ({"weight_found": 102}, {"baseline": 102}),
        ({"placement": place(f"{POD}/x")}, {"cgroup": POD}),
        ({"placement": place("/user.slice")}, {"cgroup": "/user.slice"}),
    ],
)  # fmt: skip
def test_a_row_says_what_the_agent_does_with_a_vm(
    fields: dict[str, Any], shown: dict[str, object]
) -> None:
    found = row(vm(**fields), {}, now=100.0)
    assert {key: found[key] for key in shown} == shown


def test_a_row_shows_what_nice_asks_for_beside_what_the_guard_grants() -> None:
    members = [Claimant("77-1", 1024, -5), Claimant("b", 1024, 5)]
    share = guard(members, CPU_SHARES)["77-1"]
    found = row(vm(share=share, nice=-5), {"usage": 0.5, "wait": 0.25}, now=100.0)
    assert (found["nice"], found["effectiveNice"]) == (-5, -3)
    assert (found["wanted"], found["floored"]) == (1849.5, False)
    assert (found["usage"], found["wait"]) == (0.5, 0.25)


class Gone(OwnCgroup):
    """A cgroup that is removed between two looks: for real that is a race."""

    def read_weight(self) -> int:
        raise CgroupEnded(self.path)


def test_a_row_reads_the_weight_as_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    file = tmp_path / "own" / "cpu.shares"
    file.write_text("102\n")
    hierarchy = Hierarchy(1, str(tmp_path), str(tmp_path), "cpu.shares", CPU_SHARES)
    own = OwnCgroup.open(hierarchy, "/own")
    assert own
    assert row(vm(own=own), {}, now=0.0)["weight"] == 102
    file.write_text("36\n")
    assert row(vm(own=own), {}, now=0.0)["weight"] == 36
    own.close()


def test_a_cgroup_that_has_just_gone_has_no_weight() -> None:
    assert row(vm(own=Gone("/own", -1, -1)), {}, now=0.0)["weight"] is None


VMS = (vm("web", 77), vm("web", 78, namespace="test"), vm("db", 79), vm("77", 80))


@pytest.mark.parametrize(
    ("wanted", "pid"), [("db", 79), ("prod/db", 79), ("test/web", 78), ("78", 78), ("prod/77", 80)]
)
def test_a_vm_is_found_by_name_full_name_or_pid(wanted: str, pid: int) -> None:
    found = find_vm(VMS, wanted)
    assert isinstance(found, Vm)
    assert found.pid == pid


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("web", "'web' could be prod/web (pid 77), test/web (pid 78): say which by its pid"),
        ("77", "'77' could be prod/web (pid 77), prod/77 (pid 80)"),
        ("mail", "no VM 'mail' on this node"),
        ("", "no VM '' on this node"),
    ],
)
def test_a_name_that_means_no_or_several_vms_is_told(wanted: str, says: str) -> None:
    found = find_vm(VMS, wanted)
    assert isinstance(found, str)
    assert says in found


def test_tables_are_aligned_and_json_holds_everything() -> None:
    rows = [row(each, {"usage": 0.5}, now=1.0) for each in VMS]
    lines = render(rows, "table").split("\n")
    assert len(lines) == 5
    assert re.split(r" {2,}", lines[0]) == [
        *("VM", "PID", "STATE", "POLICY", "NICE", "EFFECTIVE", "WEIGHT", "BASELINE"),
        *("USAGE", "WAIT", "REASON"),
    ]
    assert re.split(r" {2,}", lines[1]) == [
        *("prod/web", "77", "Unmanaged", "-", "0", "0", "-", "-", "0.50", "-"),
        "no policy governs it",
    ]
    assert {line.index("Unmanaged") for line in lines[1:]} == {lines[0].index("STATE")}
    assert "CGROUP" in render(rows, "wide").split("\n")[0]
    assert json.loads(render(rows, "json")) == rows


@pytest.mark.parametrize("output", ["table", "wide"])
def test_no_vms_is_a_head_alone_and_an_empty_list(output: str) -> None:
    assert render([], output).count("\n") == 0
    assert json.loads(render([], "json")) == []


@given(st.text(max_size=40), st.text(max_size=40))
def test_no_name_breaks_a_table_or_moves_a_cursor(name: str, reason: str) -> None:
    text = render([row(vm(name, reason=reason), {}, now=1.0)], "wide")
    assert len(text.split("\n")) == 2
    assert all(line.isprintable() for line in text.split("\n"))


FIELD = re.compile(r'(\w+)=("(?:[^"\\]|\\.)*"|[^\s"=]+)(?: |$)')


def logged(fields: Mapping[str, object]) -> str:
    """The line that the agent's own set-up writes to standard error."""
    stderr, sys.stderr = sys.stderr, io.StringIO()
    try:
        log.set_up("info")
        log.info("vm added", **fields)
        return sys.stderr.getvalue()
    finally:
        sys.stderr = stderr
        logger = logging.getLogger("peacemaker")
        logger.handlers, logger.propagate = [], True


@pytest.mark.parametrize(
    ("name", "written"),
    [
        *(("web", "vm=web"), ("prod/web-1", "vm=prod/web-1"), ("", 'vm=""'), ("ü", "vm=ü")),
        *(("a b", 'vm="a b"'), ("a=b", 'vm="a=b"'), ('a"b', r'vm="a\"b"')),
        *((r"a\b", r'vm="a\\b"'), ("a\nb", r'vm="a\x0ab"'), ("\x1b[2J", r'vm="\x1b[2J"')),
        *(('x" policy="gold', r'vm="x\" policy=\"gold"'), ('\\" a=b', r'vm="\\\" a=b"')),
        *(("\udcff", r'vm="\xdcff"'), ("a\u2028b", r'vm="a\x2028b"'), ("a\xa0b", r'vm="a\xa0b"')),
    ],
)
def test_a_value_is_quoted_where_it_needs_to_be(name: str, written: str) -> None:
    assert logged({"vm": name}).endswith(f' level=info msg="vm added" {written}\n')


@given(st.text(st.sampled_from('ab "=\\\n\r\x1b\u2028 pid=1 level=error'), max_size=30))
def test_no_name_forges_a_field_or_a_line(name: str) -> None:
    line = logged({"vm": name, "pid": 7})
    assert line.count("\n") == 1
    assert [key for key, _ in FIELD.findall(line)] == ["time", "level", "msg", "vm", "pid"]
    assert FIELD.sub("", line.rstrip("\n")) == "", "there is nothing but fields"
    assert line.endswith(" pid=7\n")


@pytest.mark.parametrize(
    ("level", "lines"), [("debug", 3), ("info", 3), ("warning", 2), ("error", 1)]
)
def test_the_level_filters(level: str, lines: int, capsys: pytest.CaptureFixture[str]) -> None:
    log.set_up(level)
    for say in (log.info, log.warning, log.error):
        say("x")
    logger = logging.getLogger("peacemaker")
    logger.handlers, logger.propagate = [], True
    assert capsys.readouterr().err.count("\n") == lines


def test_an_explanation_moves_no_cursor() -> None:
    vms = PeaceList()
    vms.add(vm("a\x1b[2J\nlast change: none", 77))
    reporter = Reporter("n1", vms, Passes(), Sensors(find_hierarchy()), lambda: 0.0)
    answer = reporter.answer({"ask": "explain", "vm": "77"})
    lines = answer["lines"]
    assert isinstance(lines, list)
    assert all(line.isprintable() for line in lines)
