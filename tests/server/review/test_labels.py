"""The file of labels: the form of `guard flagged label`, and what was taken back is gone."""

from __future__ import annotations

import errno
import json
import os
import resource
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from guard import labelled
from guard.audit.errors import AuditError
from guard.audit.lines import LineFile
from guard.errors import InputError
from guard.labelled import flags_of
from guard.server.review.labels import LabelFile
from tests.server.review.conftest import LEAK

if TYPE_CHECKING:
    from pathlib import Path

    from guard.engine import Guard
    from guard.journal.record import Record
    from guard.journal.store import Journal


@pytest.fixture
def row(guard: Guard, journal: Journal) -> Record:
    """Return a row with one flag."""
    guard.check(LEAK, prompt="How?")
    (found,) = journal.list()
    return found


def text_of(row: Record) -> str:
    """Return the digest of a row's texts."""
    return flags_of(row.to_dict())["secret_leak"]


def read(path: Path) -> list[dict[str, bool]]:
    """Return the labels as `guard calibrate` reads them."""
    return [dict(one.labels) for one in labelled.read(path).rows]


def test_a_label_can_be_changed_and_taken_back(row: Record, labels: Path) -> None:
    """What is said last counts alone; taken back, nothing stays."""
    file = LabelFile(labels)
    assert file.known() == {}
    file.say(row, "secret_leak", right=True)
    assert read(labels) == [{"secret_leak": True}]
    file.say(row, "secret_leak", right=False)
    assert read(labels) == [{"secret_leak": False}]
    assert file.known() == {(text_of(row), "secret_leak"): False}
    file.take_back(text_of(row), "secret_leak")
    assert file.known() == {}
    assert not labels.read_bytes().strip()
    file.take_back(text_of(row), "secret_leak")


def test_a_label_in_the_middle_is_taken_out(guard: Guard, journal: Journal, labels: Path) -> None:
    """Those before it and behind it stay as they are."""
    for number in range(3):
        guard.check(f"{LEAK} {number}")
    file = LabelFile(labels)
    rows = list(journal.list())
    for each in rows:
        file.say(each, "secret_leak", right=True)
    lines = labels.read_bytes().splitlines()
    file.take_back(text_of(rows[1]), "secret_leak")
    left = [line for line in labels.read_bytes().splitlines() if line.strip()]
    assert left == [lines[0], *lines[2:]]
    assert len(read(labels)) == len(rows) - 1
    assert len(LabelFile(labels).known()) == len(rows) - 1


def test_what_is_broken_off_is_no_damage(
    guard: Guard, journal: Journal, labels: Path, tmp_path: Path
) -> None:
    """While a label is taken out the file can be read at every moment, and the others are there."""
    for number in range(3):
        guard.check(f"{LEAK} {number}", prompt='{"a": {}}, é')
    file, rows = LabelFile(labels), list(journal.list())
    for each in rows:
        file.say(each, "secret_leak", right=True)
    states = [labels.read_bytes()]

    def look(*_: object) -> None:
        if (now := labels.read_bytes()) != states[-1]:
            states.append(now)

    # Called at every call of a function, those of the system included.
    sys.setprofile(look)
    try:
        file.take_back(text_of(rows[1]), "secret_leak")
    finally:
        sys.setprofile(None)
    look()
    others = {(text_of(each), "secret_leak") for each in (rows[0], rows[2])}
    for before, after in pairwise(states):
        changed = [at for at in range(len(before)) if before[at] != after[at]]
        # A kill leaves a write's beginning; a power cut may leave its end alone.
        for cut in changed[:: max(1, len(changed) // 40)]:
            for state in (after[:cut] + before[cut:], before[:cut] + after[cut:]):
                copy = tmp_path / "copy.jsonl"
                copy.write_bytes(state)
                assert set(LabelFile(copy).known()) >= others
                assert len(read(copy)) in {2, 3}
                with LineFile(copy, None) as opened:
                    assert len(opened.rows) in {2, 3}
    assert set(file.known()) == others


def test_other_labels_of_the_same_line_stay(row: Record, labels: Path) -> None:
    """A line that a person wrote may label several categories."""
    line = row.to_dict() | {"label": {"secret_leak": 1, "pii_leak": 0}}
    labels.write_text(json.dumps(line), encoding="utf-8")
    file = LabelFile(labels)
    file.take_back(text_of(row), "secret_leak")
    assert read(labels) == [{"pii_leak": False}]


def test_another_process_may_add_in_between(row: Record, labels: Path) -> None:
    """The file is free between labels, and what others wrote counts at once."""
    file = LabelFile(labels)
    file.try_out()
    assert not labels.exists()
    file.say(row, "secret_leak", right=True)
    with LineFile(labels, None) as other:
        other.add(row.to_dict() | {"response": "Other.", "label": {"secret_leak": 0}})
        with pytest.raises(AuditError, match="another process"):
            file.say(row, "secret_leak", right=False)
    assert sorted(file.known().values()) == [False, True]


def test_threads_lose_nothing(guard: Guard, journal: Journal, labels: Path) -> None:
    """Labels that come at once are all there."""
    for number in range(8):
        guard.check(f"{LEAK} {number}")
    rows, file = list(journal.list()), LabelFile(labels)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda each: file.say(each, "secret_leak", right=True), rows))
    assert len(file.known()) == len(rows)


def test_a_file_that_holds_something_else_is_refused(row: Record, labels: Path) -> None:
    """It says which line, and leaves the file as it is."""
    labels.write_text('{"response": "x", "labels": {"violence": 1}}\n', encoding="utf-8")
    file = LabelFile(labels)
    with pytest.raises(InputError, match="has no `label`"):
        file.known()
    with pytest.raises(InputError, match="has no `label`"):
        file.say(row, "secret_leak", right=True)
    labels.write_text("[1]\nx", encoding="utf-8")
    with pytest.raises(InputError, match=r"labels\.jsonl:1: is no row"):
        file.known()
    with pytest.raises(InputError, match="without"):
        LabelFile(labels.with_suffix(".gz"))


def test_a_line_that_is_being_written_is_waited_for(row: Record, labels: Path) -> None:
    """Half of a last line says nothing yet."""
    LabelFile(labels).say(row, "secret_leak", right=True)
    with labels.open("ab") as file:
        file.write(b'{"respo')
    assert len(LabelFile(labels).known()) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no such limits on this system")
def test_a_full_disk_keeps_what_there_was(row: Record, labels: Path) -> None:
    """A label that cannot be kept is an error, and the file is as before."""
    file = LabelFile(labels)
    file.say(row, "secret_leak", right=True)
    before = labels.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    import signal

    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 10, limits[1]))
    try:
        with pytest.raises(AuditError, match=os.strerror(errno.EFBIG)):
            file.say(row, "secret_leak", right=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert labels.read_bytes() == before
    assert file.known() == {(text_of(row), "secret_leak"): True}
