"""The folder of a scan: nothing is judged twice or left out, however often it is cut short."""

from __future__ import annotations

import gzip
import os
import shutil
import stat
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guard.journal.store import Journal
from guard.loading import BUNDLED_MODEL
from guard.policy import load_class
from guard.scan import scan as walking
from guard.scan.errors import ScanError
from guard.scan.finish import Speed, finish
from guard.scan.folder import Folder, Selection, best_examples, header
from guard.scan.reading import lines
from guard.scan.work import LineJudge, Settings
from tests.scan.logs import FINE, KEY, SETTINGS, contents, line, log, opened, rows, steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from guard.scan.reading import Line
    from guard.scan.work import Result

LINES = 20


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory, judge: LineJudge) -> tuple[str, Path]:
    """Return a log, and the folder of a scan of it that nothing cut short."""
    place = tmp_path_factory.mktemp("known")
    name = log(place / "log.jsonl", LINES)
    with small_batches(), opened(place / "out", name) as folder:
        list(steps(folder, name, judge))
        finish(folder, Speed("local", 1, LINES, 1.0))
    return name, place / "out"


@contextmanager
def small_batches() -> Iterator[None]:
    """Have batches of three lines, so that there are several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(walking, "LINES", 3)
        yield


class Recalled(LineJudge):
    """Judges each line once, since the folder is what is tried here."""

    def __init__(self, judge: LineJudge) -> None:
        """Judge nothing yet."""
        self._judge = judge
        self._known: dict[Line, Result] = {}

    def __call__(self, given: Sequence[Line]) -> list[Result]:
        """Return the result of each line."""
        for each in given:
            if each not in self._known:
                self._known[each] = self._judge([each])[0]
        return [self._known[each] for each in given]


@pytest.fixture(scope="module")
def recalled(judge: LineJudge) -> LineJudge:
    """Return a judge that judges each line once."""
    return Recalled(judge)


@cache
def wanted(name: str, *, journal: bool = False) -> dict[str, Any]:
    """Return the header of a scan of a file that stays as it is."""
    return header(SETTINGS, Selection((name,)), BUNDLED_MODEL, journal=journal)


def figures(summary: dict[str, Any]) -> dict[str, Any]:
    """Return what of a summary does not depend on when it was made."""
    return {key: summary[key] for key in summary if key not in ("finished", "speed")}


def cut(path: Path, length: int) -> None:
    """Cut so many bytes off a file's end, as a crash does."""
    size = path.stat().st_size
    os.truncate(path, max(0, size - length))


ENDS = st.tuples(st.integers(0, 7), st.integers(0, 900), st.integers(0, 300))
"""Batches until a scan is killed, and bytes that each file lacks afterwards."""


@given(st.lists(ENDS, max_size=4))
def test_it_goes_on_where_it_was_killed(
    known: tuple[str, Path], recalled: LineJudge, ends: list[tuple[int, int, int]]
) -> None:
    """Whenever it is killed, in the end rows, figures and examples are those of one run."""
    name, whole = known
    with TemporaryDirectory() as place, small_batches():
        out = Path(place) / "out"
        for count, verdict_bytes, error_bytes in ends:
            with Folder(out, wanted(name)) as folder:
                killed_after(count, steps(folder, name, recalled))
            cut(out / "verdicts.jsonl", verdict_bytes)
            cut(out / "errors.jsonl", error_bytes)
        with Folder(out, wanted(name)) as folder:
            list(steps(folder, name, recalled))
            summary = finish(folder, Speed("local", 1, 0, 0.0))
        assert contents(out) == contents(whole)
        with Folder(whole, wanted(name)) as folder:
            assert figures(summary) == figures(finish(folder, Speed("local", 1, 0, 0.0)))
        assert best_examples(out / "examples.jsonl") == best_examples(whole / "examples.jsonl")


def test_it_goes_on_before_what_a_power_cut_left(
    known: tuple[str, Path], recalled: LineJudge, tmp_path: Path
) -> None:
    """A row with zeros in it, since a part of it never came to the disk, is judged again."""
    name, whole = known
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    good = (out / "verdicts.jsonl").read_bytes()
    (out / "verdicts.jsonl").write_bytes(good[:-200] + bytes(100) + good[-100:])
    with Folder(out, wanted(name)) as folder:
        assert folder.done < LINES
        list(steps(folder, name, recalled))
        finish(folder, Speed("local", 1, 0, 0.0))
    assert contents(out) == contents(whole)


def test_a_row_of_any_character_is_whole(tmp_path: Path, judge: LineJudge) -> None:
    """Whatever signs a line names itself with, its row is no remainder of a crash."""
    odd = "".join(map(chr, [*range(256), 0x2028, 0xD800, 0x1F600]))
    (tmp_path / "log.jsonl").write_text(line(FINE, id=odd) + "\n", "utf-8")
    for done in (0, 1):
        with opened(tmp_path / "out", str(tmp_path / "log.jsonl")) as folder:
            assert folder.done == done
            list(steps(folder, str(tmp_path / "log.jsonl"), judge))
    assert [row["id"] for row in rows(tmp_path / "out" / "verdicts.jsonl")] == [odd]


@given(st.lists(ENDS, max_size=3))
@settings(max_examples=20)
def test_the_journal_has_each_answer_once(
    known: tuple[str, Path], recalled: LineJudge, ends: list[tuple[int, int, int]]
) -> None:
    """However often a scan is killed, the journal has the rows that the verdicts name, once."""
    name, _ = known
    with TemporaryDirectory() as place, small_batches():
        out, journal = Path(place) / "out", Journal(Path(place) / "journal.sqlite3")
        for count, verdict_bytes, error_bytes in [*ends, (LINES, 0, 0)]:
            with Folder(out, wanted(name, journal=True)) as folder:
                killed_after(count, steps(folder, name, recalled, journal=journal))
            cut(out / "verdicts.jsonl", verdict_bytes)
            cut(out / "errors.jsonl", error_bytes)
        named = {row["record"] for row in rows(out / "verdicts.jsonl") if "record" in row}
        kept = {record.id for record in journal.list(limit=1000)}
        assert named == kept
        assert len(named) == 4
        journal.close()


def killed_after(count: int, walk: Iterator[int]) -> None:
    """Leave a scan after so many batches."""
    for number, _ in enumerate(walk, start=1):
        if number >= count:
            break
    walk.close()  # type: ignore[attr-defined]  # it is a generator


def test_a_limit_is_no_end(known: tuple[str, Path], judge: LineJudge, tmp_path: Path) -> None:
    """With a higher limit the same scan goes on; with none it is that of the whole log."""
    name, whole = known
    for limit in (4, 3, 9, None):
        with opened(tmp_path / "out", name) as folder:
            list(steps(folder, name, judge, limit=limit))
            assert folder.done == {4: 4, 3: 4, 9: 9, None: LINES}[limit]
    assert contents(tmp_path / "out") == contents(whole)


def test_another_scan_is_refused(known: tuple[str, Path], tmp_path: Path) -> None:
    """Another class or another file: an error says what differs and what to do."""
    name, whole = known
    with pytest.raises(ScanError, match=r"(?s)--out.*class: public .* there, internal .* now"):
        opened(whole, name, settings=Settings(load_class("internal")))
    other = log(tmp_path / "log.jsonl", LINES + 1)
    with pytest.raises(ScanError, match="files"):
        opened(whole, other)


def test_a_file_that_changed_is_another(tmp_path: Path, judge: LineJudge) -> None:
    """A log of the same name and size with other content is refused."""
    name = log(tmp_path / "log.jsonl", 3)
    with opened(tmp_path / "out", name) as folder:
        list(steps(folder, name, judge))
    text = Path(name).read_text("utf-8")
    Path(name).write_text(text.replace("basil", "thyme"), "utf-8")
    with pytest.raises(ScanError, match="files"):
        opened(tmp_path / "out", name)


def test_a_log_that_can_be_read_again_is_another(tmp_path: Path, judge: LineJudge) -> None:
    """Where a scan went on behind a file that broke off, and that is whole now, no line is lost."""
    names = tuple(str(tmp_path / name) for name in ("a.jsonl.gz", "b.jsonl"))
    packed = gzip.compress(f"{line(FINE)}\n".encode() * 9, mtime=0)
    Path(names[0]).write_bytes(packed[:-6] + bytes(6))
    Path(names[1]).write_text(f"{line(FINE)}\n" * 3, "utf-8")
    selection = Selection(names)
    said = header(SETTINGS, selection, BUNDLED_MODEL, journal=False)
    engine = partial(inline_with, judge)
    with Folder(tmp_path / "out", said) as folder:
        list(walking.scan(folder, selection, engine, limit=11))
    Path(names[0]).write_bytes(packed)
    with Folder(tmp_path / "out", said) as folder, pytest.raises(ScanError, match="other lines"):
        list(walking.scan(folder, selection, engine))


def inline_with(judge: LineJudge, batches: Iterable[Sequence[Line]]) -> Iterator[list[Result]]:
    """Judge batches in this process."""
    yield from map(judge, batches)


def test_one_process_at_a_time(known: tuple[str, Path]) -> None:
    """While a folder is open, nobody else can scan into it."""
    name, whole = known
    with opened(whole, name), pytest.raises(ScanError, match="another process"):
        opened(whole, name)


@pytest.mark.parametrize("there", ["verdicts.jsonl", "summary.json", "report.html"])
def test_files_of_others_are_left_alone(
    known: tuple[str, Path], tmp_path: Path, there: str
) -> None:
    """A folder with files that a scan would write over, and no `scan.json`, is refused."""
    (tmp_path / there).write_text("mine", "utf-8")
    with pytest.raises(ScanError, match=r"holds .*--out"):
        opened(tmp_path, known[0])
    assert (tmp_path / there).read_text("utf-8") == "mine"


@pytest.mark.skipif(os.name == "nt", reason="Windows has other permissions")
def test_files_are_for_their_owner(known: tuple[str, Path]) -> None:
    """The folder and every file in it can be read by nobody else."""
    _, whole = known
    assert stat.S_IMODE(whole.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in whole.iterdir()}
    assert len(modes) == 6
    assert set(modes.values()) == {0o600}


def test_no_secret_is_kept(known: tuple[str, Path]) -> None:
    """Nothing in the folder holds the secret that an answer leaked; verdicts hold no text."""
    for path in known[1].iterdir():
        assert KEY not in path.read_text("utf-8")
    assert all("text" not in row for row in rows(known[1] / "verdicts.jsonl"))


@given(st.integers(0, 2**31), st.floats(0.01, 0.99))
def test_a_sample_is_the_same_each_time(seed: int, share: float) -> None:
    """Whether a line is drawn depends on the line alone; a larger share holds a smaller one."""
    contents = [f"{seed} {n}".encode() for n in range(50)]
    small, same, large = (Selection((), s) for s in (share, share, share + 0.01))
    for number, content in enumerate(contents, start=1):
        assert small.takes(number, content) == same.takes(number, content)
        assert large.takes(number, content) or not small.takes(number, content)


def test_a_broken_archive_is_one_bad_line(tmp_path: Path) -> None:
    """What can be read of it is; behind that a line says that no more can."""
    packed = gzip.compress(b'{"response": "a"}\n' * 3)
    (tmp_path / "a.jsonl.gz").write_bytes(packed[:-6])
    *good, last = lines([str(tmp_path / "a.jsonl.gz")])
    assert [each.number for each in good] == [1, 2, 3][: len(good)]
    assert last.problem.startswith("cannot be read")
