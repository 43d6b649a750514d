"""The labels file: all of it or a reason why not, and the last good labels while the agent runs."""

import logging
import os
from pathlib import Path

import pytest

from peacemaker_nodeagent.labels import Labels, LabelsError

GOOD = "prod/web: {tier: gold}\nprod/db: {}\n"


def written(path: Path, text: str | bytes) -> Path:
    new = path.with_suffix(".new")
    new.write_bytes(text.encode() if isinstance(text, str) else text)
    new.rename(path)
    return path


def labels(path: Path, text: str | bytes = GOOD) -> Labels:
    return Labels(str(written(path / "labels.yaml", text)))


def test_labels_are_found_by_namespace_and_name(tmp_path: Path) -> None:
    found = labels(tmp_path)
    assert found.of("prod/web") == {"tier": "gold"}
    assert found.of("prod/db") == {}
    assert found.of("test/web") == {}


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "{}"])
def test_a_file_without_labels_is_fine(tmp_path: Path, text: str) -> None:
    assert labels(tmp_path, text).of("prod/web") == {}


def test_without_a_file_there_are_no_labels_and_nothing_changes() -> None:
    found = Labels(None)
    assert found.of("prod/web") == {}
    assert not found.poll()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        *(("[]", "1:1: wrong type (found a list"), ("text", '1:1: wrong type (found "text"')),
        *(("web: {}", "1:1: web: not a VM's name"), ("prod/: {}", "not a VM's name")),
        *(("1: {}", "1:1: "), ("prod/web: gold", '1:11: prod/web: wrong type (found "gold"')),
        *(
            ("prod/web: {tier: 1}", "1:18: prod/web.tier: wrong type; quote it (found 1"),
            ("{", "1:"),
        ),
        *(
            ("prod/web: {1: gold}", "1:12: "),
            ("prod/web: null", "prod/web: wrong type (found null"),
        ),
        *(
            ("prod/web: {tier: [a]}", "prod/web.tier: wrong type (found a list"),
            ("a: b: c", "1:5: "),
        ),
        *((b"\xff\xfe\xff", "1:1: "), ("\0", "1:1: "), ("&a [*a]", "1:5: ")),
        *(("[" * 1_000, "1:33: "), ("!!python/object:x.y {}", "1:1: ")),
    ],
)
def test_what_is_no_labels_file_is_refused_with_its_place(
    tmp_path: Path, text: str | bytes, says: str
) -> None:
    with pytest.raises(LabelsError) as caught:
        labels(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/labels.yaml:")
    assert says in str(caught.value)


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(LabelsError) as caught:
        labels(tmp_path, "web: {}\nprod/web: {tier: 1, zone: 2}\n")
    assert len(str(caught.value).splitlines()) == 3


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabelsError, match="cannot be read: No such file"):
        Labels(str(tmp_path / "labels.yaml"))


def test_a_named_pipe_is_refused_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "labels.yaml")
    with pytest.raises(LabelsError, match="cannot be read: it is no regular file"):
        Labels(str(tmp_path / "labels.yaml"))


def test_an_edit_is_taken_over_and_the_same_text_is_no_change(tmp_path: Path) -> None:
    found = labels(tmp_path)
    path = tmp_path / "labels.yaml"
    assert not found.poll()
    written(path, GOOD)
    assert not found.poll()
    written(path, "prod/web: {tier: lead}")
    assert found.poll()
    assert found.of("prod/web") == {"tier": "lead"}
    assert not found.poll()


def test_a_file_that_turns_wrong_leaves_the_last_good_labels_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "peacemaker")
    found = labels(tmp_path)
    path = written(tmp_path / "labels.yaml", "[]")
    assert [found.poll(), found.poll(), found.poll()] == [False] * 3
    assert len(caplog.records) == 1
    assert found.of("prod/web") == {"tier": "gold"}
    written(path, "prod/web: {tier: lead}")
    assert found.poll()
    assert found.of("prod/web") == {"tier": "lead"}


def test_a_file_that_is_gone_leaves_the_last_good_labels(tmp_path: Path) -> None:
    found = labels(tmp_path)
    (tmp_path / "labels.yaml").unlink()
    assert not found.poll()
    assert found.of("prod/web") == {"tier": "gold"}
    written(tmp_path / "labels.yaml", "prod/web: {tier: lead}")
    assert found.poll()


def test_a_labels_file_that_is_gone_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "peacemaker")
    found = labels(tmp_path)
    (tmp_path / "labels.yaml").unlink()
    assert [found.poll(), found.poll(), found.poll()] == [False] * 3
    assert len(caplog.records) == 1


def test_a_labels_file_that_is_too_long_is_refused_and_not_cut(tmp_path: Path) -> None:
    comment = f"#{'x' * 4094}\n"
    with pytest.raises(LabelsError):
        labels(tmp_path, comment * 256 + GOOD)


def test_an_alias_bomb_is_refused_in_a_short_message(tmp_path: Path) -> None:
    """Each level more makes the message ten times as long: ten levels are more than any memory."""
    levels = [f"&l{n} [{', '.join([f'*l{n - 1}'] * 10)}]" for n in range(1, 5)]
    with pytest.raises(LabelsError) as caught:
        labels(tmp_path, f"prod/z: [&l0 [x, x, x], {', '.join(levels)}]")
    assert len(str(caught.value)) < 1000
