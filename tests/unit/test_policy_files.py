"""Policy files on disk: all problems at the start, and the last good policies while it runs."""

import logging
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from peacemaker.parse import PolicyError
from peacemaker_nodeagent.policy_files import PolicyFiles

TEXT = """\
apiVersion: peacemaker.dev/v1alpha1
kind: PeacePolicy
metadata: {{name: {name}}}
spec:
  mode: Observe
  interval: {interval}
  rules:
  - {{name: r, when: 'true', pick: {{}}, nice: {{add: 1}}}}
"""


def write(path: Path, *names: str, interval: str = "15s") -> Path:
    """Replace the file as an editor does: a new one is renamed over it."""
    new = path.with_suffix(".tmp")
    new.write_text("---\n".join(TEXT.format(name=name, interval=interval) for name in names))
    new.rename(path)
    return path


def names(files: PolicyFiles) -> list[str]:
    return sorted(policy.name for policy in files.policies())


def files(*paths: Path) -> PolicyFiles:
    return PolicyFiles([str(path) for path in paths])


def test_files_and_directories_of_yaml_are_read(tmp_path: Path) -> None:
    directory = tmp_path / "d"
    directory.mkdir()
    write(directory / "a.yaml", "a", "b")
    write(directory / "c.yml", "c")
    (directory / "notes.txt").write_text("{")
    assert names(files(directory, write(tmp_path / "x.conf", "x"))) == ["a", "b", "c", "x"]


def test_an_empty_directory_holds_no_policies_yet(tmp_path: Path) -> None:
    found = files(tmp_path)
    assert names(found) == []
    write(tmp_path / "a.yaml", "a")
    assert found.poll()
    assert names(found) == ["a"]


def test_at_the_start_every_problem_of_every_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(TEXT.format(name="b", interval="5 parsecs"))
    (tmp_path / "c.yaml").write_text("]")
    write(tmp_path / "d.yaml", "a")
    write(tmp_path / "e.yaml", "a")
    with pytest.raises(PolicyError) as caught:
        files(tmp_path, tmp_path / "missing.yaml")
    told = {Path(problem.source).name: str(problem) for problem in caught.value.problems}
    assert told.keys() == {"b.yaml", "c.yaml", "e.yaml", "missing.yaml"}
    assert "spec.interval" in told["b.yaml"]
    assert "'a' is defined in" in told["e.yaml"]
    assert "d.yaml" in told["e.yaml"]
    assert "No such file" in told["missing.yaml"]


def test_nothing_changed_is_no_change(tmp_path: Path) -> None:
    found = files(write(tmp_path / "a.yaml", "a"))
    before = found.policies()
    assert not found.poll()
    os.utime(tmp_path / "a.yaml", ns=(1, 1))
    assert not found.poll(), "the same text again is the same policy"
    assert found.policies() == before


def test_an_edit_is_taken_over(tmp_path: Path) -> None:
    found = files(write(tmp_path / "a.yaml", "a"))
    write(tmp_path / "a.yaml", "a", interval="30s")
    assert found.poll()
    assert [policy.interval for policy in found.policies()] == [30.0]
    assert not found.poll()


@pytest.mark.parametrize(
    "wrong", ["", "]", "a: b", TEXT.format(name="a", interval="0s"), "\0", "[" * 100_000]
)
def test_a_file_that_turns_wrong_leaves_the_last_good_one_in_force_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: str
) -> None:
    caplog.set_level(logging.INFO, "peacemaker")
    path = write(tmp_path / "a.yaml", "a")
    found = files(path)
    before = found.policies()
    path.write_text(wrong)
    assert not found.poll()
    refused = [r for r in caplog.records if "refused" in r.message]
    assert refused
    assert all(str(path) in str(vars(r)["fields"]["problem"]) for r in refused)
    assert not found.poll()
    assert [r for r in caplog.records if "refused" in r.message] == refused
    assert found.policies() == before
    write(path, "a", interval="30s")
    assert found.poll()
    assert [policy.interval for policy in found.policies()] == [30.0]


def test_a_wrong_new_file_changes_nothing_until_it_is_right(tmp_path: Path) -> None:
    found = files(write(tmp_path / "a.yaml", "a").parent)
    (tmp_path / "b.yaml").write_text("]")
    assert not found.poll()
    assert names(found) == ["a"]
    write(tmp_path / "b.yaml", "b")
    assert found.poll()
    assert names(found) == ["a", "b"]


def test_a_name_that_another_file_has_is_refused(tmp_path: Path) -> None:
    found = files(write(tmp_path / "a.yaml", "a").parent)
    write(tmp_path / "b.yaml", "a", interval="30s")
    assert not found.poll()
    assert [policy.interval for policy in found.policies()] == [15.0]


@pytest.mark.parametrize("as_directory", [True, False])
def test_a_file_that_is_missed_for_a_moment_is_not_deleted(
    tmp_path: Path, as_directory: bool
) -> None:
    path = write(tmp_path / "a.yaml", "a")
    found = files(tmp_path if as_directory else path)
    aside = path.rename(tmp_path / "aside")
    assert not found.poll()
    assert names(found) == ["a"]
    aside.rename(path)
    assert not found.poll()
    assert not found.poll()
    assert names(found) == ["a"]


@pytest.mark.parametrize("as_directory", [True, False])
def test_a_deleted_file_takes_its_policies_along_and_may_come_back(
    tmp_path: Path, as_directory: bool
) -> None:
    path = write(tmp_path / "a.yaml", "a")
    found = files(tmp_path if as_directory else path)
    path.unlink()
    assert [found.poll(), found.poll(), found.poll()] == [False, True, False]
    assert names(found) == []
    write(path, "a")
    assert found.poll()
    assert names(found) == ["a"]


def test_a_file_that_is_renamed_keeps_its_policies_in_force(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "a")
    found = files(tmp_path)
    path.rename(tmp_path / "b.yaml")
    for _ in range(4):
        found.poll()
    assert names(found) == ["a"]


def test_policies_that_change_files_are_taken_over(tmp_path: Path) -> None:
    write(tmp_path / "a.yaml", "one")
    write(tmp_path / "b.yaml", "two")
    found = files(tmp_path)
    write(tmp_path / "a.yaml", "two", interval="30s")
    write(tmp_path / "b.yaml", "one", interval="30s")
    for _ in range(4):
        found.poll()
    assert [each.interval for each in found.policies()] == [30.0, 30.0]


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir], ids=["named-pipe", "directory"])
def test_what_is_no_regular_file_is_refused_at_the_start(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path / "a.yaml")
    with pytest.raises(PolicyError, match=r"a\.yaml.*cannot be read: it is no regular file"):
        files(tmp_path)


def test_a_named_pipe_is_told_once_and_keeps_nobody_waiting(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "peacemaker")
    found = files(write(tmp_path / "b.yaml", "b").parent)
    os.mkfifo(tmp_path / "a.yaml")
    assert not found.poll()
    write(tmp_path / "c.yaml", "c")
    assert found.poll()
    assert names(found) == ["b", "c"]
    told = [vars(each)["fields"] for each in caplog.records if "read" in each.message]
    assert [each["why"] for each in told if "why" in each] == ["it is no regular file"]
    (tmp_path / "a.yaml").unlink()
    write(tmp_path / "a.yaml", "a")
    assert found.poll()
    assert names(found) == ["a", "b", "c"]


def test_a_file_that_cannot_be_read_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "peacemaker")
    path = write(tmp_path / "a.yaml", "a")
    found = files(tmp_path)
    path.unlink()
    path.mkdir()  # reading it fails, as it does after `chmod 000` for who is not root
    for _ in range(4):
        found.poll()
    assert len([record for record in caplog.records if "read" in record.message]) == 1
