"""Closed by default: what fails is never taken for an all-clear."""

from __future__ import annotations

import json
import math
import shutil
import sqlite3
import threading
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from structlog.testing import capture_logs

from guard.detectors.base import Finding
from guard.detectors.fingerprints import ProtectedText
from guard.driver import Driver
from guard.engine import Guard
from guard.errors import ConfigurationError
from guard.journal.store import Journal
from guard.loading import BUNDLED_MODEL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator

    from guard.detectors.base import Detector, Passage
    from guard.security_class import SecurityClass
    from guard.verdict import Verdict

TEXT = "The ferry leaves at nine. Bring a coat."
NOTICES = {"block": "[blocked]", "replace": "[replaced]"}
ACTIONS = {"block": "block", "replace": "rewrite", "flag": "flag"}
ON_FAILURE = tuple(ACTIONS)


class Faulty:
    """A detector that does what it is told, whatever its contract says."""

    name = "faulty"
    version = "1"
    categories = ("nothing",)

    def __init__(self, fault: Callable[[Passage], Any]) -> None:
        """Keep the fault."""
        self._fault = fault

    def __call__(self, passage: Passage) -> Any:
        """Commit it."""
        return self._fault(passage)


def found(**changes: Any) -> Callable[[Passage], list[Finding]]:
    """Return a fault that finds something in the unit, with `changes` applied."""

    def fault(passage: Passage) -> list[Finding]:
        values: dict[str, Any] = {
            "category": "nothing",
            "evidence": 1.0,
            "start": passage.start,
            "end": passage.end,
            "detector": "faulty",
            "version": "1",
        }
        return [Finding(**(values | changes))]

    return fault


def raises(error: BaseException) -> Callable[[Passage], Any]:
    """Return a fault that raises."""

    def fault(_: Passage) -> Any:
        raise error

    return fault


FAULTS: dict[str, tuple[Callable[[Passage], Any], str]] = {
    "raises": (raises(ValueError("out of order")), "failed"),
    "exits": (raises(SystemExit(1)), "failed"),
    "is interrupted": (raises(KeyboardInterrupt()), "failed"),
    "runs out of memory": (raises(MemoryError()), "failed"),
    "stops iterating": (raises(StopIteration()), "failed"),
    "returns nothing": (lambda _: None, "failed"),
    "returns no findings": (lambda _: ["nothing"], "invalid"),
    "has evidence NaN": (found(evidence=math.nan), "invalid"),
    "has evidence inf": (found(evidence=math.inf), "invalid"),
    "has evidence -inf": (found(evidence=-math.inf), "invalid"),
    "has no evidence": (found(evidence=None), "invalid"),
    "has an undeclared category": (found(category="other"), "invalid"),
    "has a span before the unit": (found(start=-1), "invalid"),
    "has a span behind the unit": (found(start=len(TEXT) + 1, end=len(TEXT) + 2), "invalid"),
    "has a span out of sight": (found(end=10_000), "invalid"),
    "has a span that ends before it begins": (found(start=5, end=4), "invalid"),
    "has a span of fractions": (found(start=0.5), "invalid"),
    "has a label of bytes": (found(label=b"label"), "invalid"),
    "has no name": (found(detector=None), "invalid"),
    "has a list for a name": (found(detector=["faulty"]), "invalid"),
    "has a list for a category": (found(category=["nothing"]), "invalid"),
    "finds without end": (lambda p: iter(lambda: found()(p)[0], None), "invalid"),
}

faults = pytest.mark.parametrize(("fault", "status"), FAULTS.values(), ids=FAULTS)
on_failures = pytest.mark.parametrize("on_failure", ON_FAILURE)


def assert_failed(verdict: Verdict, on_failure: str, status: str) -> None:
    """Fail unless the class's `on_failure` was done and the coverage says for whom."""
    assert verdict.action == ACTIONS[on_failure]
    assert verdict.delivered == NOTICES.get(on_failure, TEXT)
    assert (verdict.text is None) == (on_failure == "block")
    assert verdict.coverage.detectors["faulty"] == status
    assert [(f.detector, f.status) for f in verdict.coverage.failures] == [("faulty", status)]
    assert not verdict.coverage.complete
    assert verdict.reasons == (f"detector:faulty {status}: on_failure is {on_failure}",)


class TestDetector:
    """A detector that does not do what its contract says."""

    @on_failures
    @faults
    def test_check(
        self,
        make_guard: Callable[..., Guard],
        fault: Callable[[Passage], Any],
        status: str,
        on_failure: str,
    ) -> None:
        """Every fault leads to the class's `on_failure`, and the coverage names it."""
        guard = make_guard(Faulty(fault), limits={"nothing": {"act": 0.9}}, on_failure=on_failure)
        assert_failed(guard.check(TEXT), on_failure, status)

    @on_failures
    @faults
    async def test_streams_and_acheck(
        self,
        make_guard: Callable[..., Guard],
        fault: Callable[[Passage], Any],
        status: str,
        on_failure: str,
    ) -> None:
        """A stream and `acheck` do the same, and nothing leaves that `on_failure` holds back."""
        guard = make_guard(Faulty(fault), limits={"nothing": {"act": 0.9}}, on_failure=on_failure)
        assert_failed(await guard.acheck(TEXT), on_failure, status)
        stream = guard.stream(TEXT)
        assert "".join(stream) == NOTICES.get(on_failure, TEXT)
        assert_failed(stream.verdict, on_failure, status)

    def test_one_failure_on_the_way_is_enough(self, make_guard: Callable[..., Guard]) -> None:
        """A detector that fails on one unit of many is a failure of the whole, and stays so."""

        def fault(passage: Passage) -> list[Finding]:
            if "coat" in passage.unit:
                raise ValueError
            return []

        guard = make_guard(Faulty(fault), limits={"nothing": {"act": 0.9}}, on_failure="flag")
        verdict = guard.check("Fine weather today, they say. " * 20 + TEXT + " Fine. " * 40)
        assert verdict.coverage.units > 3
        assert verdict.coverage.detectors == {"faulty": "failed"}
        assert (verdict.action, len(verdict.coverage.failures)) == ("flag", 1)

    def test_a_span_that_begins_in_the_look_ahead(self, make_guard: Callable[..., Guard]) -> None:
        """It belongs to the next unit: were it redacted here, text would leave unjudged."""

        def fault(passage: Passage) -> list[Finding]:
            at = passage.end + 9
            return found(start=at, end=at + 1)(passage) if at < len(passage.text) else []

        limits = {"nothing": {"act": 0.5, "remedy": "redact"}}
        guard = make_guard(Faulty(fault), limits=limits)
        verdict = guard.check("Fine weather today, they say. " * 20)
        assert verdict.coverage.detectors == {"faulty": "invalid"}
        assert verdict.streamed == "[blocked]"

    def test_the_others_are_asked_all_the_same(
        self, make_guard: Callable[..., Guard], word_detector: Callable[..., Detector]
    ) -> None:
        """What the other detectors find counts beside a failure."""
        guard = make_guard(Faulty(raises(SystemExit(0))), word_detector(), on_failure="flag")
        verdict = guard.check("It was zredact that day.")
        assert verdict.text == "It was [redacted: to redact] that day."
        assert verdict.coverage.detectors == {"faulty": "failed", "words": "ok"}

    def test_a_failure_when_judged_again_counts(
        self, make_guard: Callable[..., Guard], word_detector: Callable[..., Detector]
    ) -> None:
        """A rewrite that could not be judged does not leave."""

        def fault(passage: Passage) -> list[Finding]:
            if "[redacted" in passage.unit:
                raise ValueError
            return []

        guard = make_guard(word_detector(), Faulty(fault))
        verdict = guard.check("It was zredact that day.")
        assert (verdict.action, verdict.text) == ("block", None)
        assert verdict.coverage.detectors["faulty"] == "failed"

    @on_failures
    def test_shadow_mode_journals_it(
        self, make_guard: Callable[..., Guard], tmp_path: Path, on_failure: str
    ) -> None:
        """In shadow mode a failure is delivered unchanged and journalled as what was due."""
        journal = Journal(tmp_path / "journal.sqlite3")
        guard = make_guard(
            Faulty(raises(ValueError())),
            limits={"nothing": {"act": 0.9}},
            on_failure=on_failure,
            shadow=True,
            journal=journal,
        )
        stream = guard.stream(TEXT)
        assert "".join(stream) == TEXT
        for verdict in (stream.verdict, guard.check(TEXT)):
            assert (verdict.text, verdict.action) == (TEXT, "flag")
            assert verdict.intended == ACTIONS[on_failure]
        first, second = journal.list()
        for row in (first, second):
            assert (row.action, row.delivered, row.shadow) == (ACTIONS[on_failure], "full", True)
            assert row.coverage["detectors"] == {"faulty": "failed"}


class TestDetail:
    """What the coverage says about a failure."""

    @staticmethod
    def detail(make_guard: Callable[..., Guard], error: BaseException) -> str:
        """Return what is said about `error`."""
        guard = make_guard(Faulty(raises(error)), limits={"nothing": {"act": 0.9}})
        (failure,) = guard.check(TEXT, prompt="Where is my coat?").coverage.failures
        return failure.detail

    def test_type_and_message(self, make_guard: Callable[..., Guard]) -> None:
        """The error's type and message are told."""
        error = ValueError("the index is out of order")
        assert self.detail(make_guard, error) == "ValueError: the index is out of order"

    @pytest.mark.parametrize("said", ["bad: The ferry lea", TEXT, "Where is my coat?", ""])
    def test_no_text_of_the_exchange(self, make_guard: Callable[..., Guard], said: str) -> None:
        """A message that quotes response or prompt is left out: the journal must not hold it."""
        assert self.detail(make_guard, KeyError(said)) in ("KeyError", "KeyError: ''")

    def test_an_error_that_cannot_be_printed(self, make_guard: Callable[..., Guard]) -> None:
        """An error whose message raises is a failure like any other."""

        class Unprintable(Exception):  # noqa: N818  # it is none
            def __str__(self) -> str:
                raise RuntimeError

        assert self.detail(make_guard, Unprintable()) == "Unprintable"


class TestTimeout:
    """A detector that does not answer in time."""

    @pytest.fixture
    def hang(self) -> Iterator[Callable[[Passage], Any]]:
        """Yield a fault that lasts until the test is over."""
        over = threading.Event()
        yield lambda _: over.wait(60) and []
        over.set()

    @on_failures
    async def test_it_times_out_and_the_next_are_skipped(
        self,
        make_guard: Callable[..., Guard],
        word_detector: Callable[..., Detector],
        hang: Callable[[Passage], Any],
        on_failure: str,
    ) -> None:
        """Who had answered counts, who hangs timed out, who waited behind it was skipped."""
        guard = make_guard(
            word_detector("first"),
            Faulty(hang),
            word_detector("last"),
            on_failure=on_failure,
            timeout_seconds=0.2,
        )
        statuses = {"first": "ok", "faulty": "timed_out", "last": "skipped"}
        stream = guard.stream(TEXT)
        assert "".join(stream) == NOTICES.get(on_failure, TEXT)
        for verdict in (guard.check(TEXT), await guard.acheck(TEXT), stream.verdict):
            assert verdict.action == ACTIONS[on_failure]
            assert verdict.coverage.detectors == statuses
            assert not verdict.coverage.complete
            timed_out = next(f for f in verdict.coverage.failures if f.detector == "faulty")
            assert timed_out.detail == "no answer in 0.2 s"

    def test_the_guard_goes_on(
        self, make_guard: Callable[..., Guard], hang: Callable[[Passage], Any]
    ) -> None:
        """However often a detector hung, texts on which it does not hang are judged."""

        def fault(passage: Passage) -> Any:
            return hang(passage) if "hang" in passage.unit else []

        guard = make_guard(Faulty(fault), limits={"nothing": {"act": 0.9}}, timeout_seconds=0.5)
        for _ in range(5):
            assert guard.check("hang here").action == "block"
        assert guard.check(TEXT).action == "allow"


class TestConfiguration:
    """What cannot guard anything is refused at the start, with everything that is wrong."""

    def test_no_detector(self, make_class: Callable[..., SecurityClass]) -> None:
        """A guard without a detector would let everything pass."""
        with pytest.raises(ConfigurationError, match="no detector"):
            Guard(make_class(), [])

    def test_everything_at_once(
        self,
        make_class: Callable[..., SecurityClass],
        word_detector: Callable[..., Detector],
        tmp_path: Path,
    ) -> None:
        """Names given twice, limits out of reach and a missing redactor are told together."""
        limits = {"to_blok": {"act": 0.5}, "to_flag": {"flag": 0.5}, "other": {"act": 0.1}}
        detectors = [word_detector("one"), word_detector("two"), word_detector("one")]
        with pytest.raises(ConfigurationError) as caught:
            Guard(
                make_class(limits=limits),
                detectors,
                journal=Journal(tmp_path / "journal.sqlite3"),
            )
        twice, unknown, other, redactor = caught.value.problems
        assert "`one`: rename one" in twice
        assert "`to_blok`" in unknown
        assert "did you mean `to_block`?" in unknown
        assert "`other`, which no detector finds: remove the limit" in other
        assert "pass a `redactor`" in redactor

    @pytest.mark.parametrize("kind", [str, Path])
    def test_a_path_is_no_journal(
        self,
        kind: Any,
        make_class: Callable[..., SecurityClass],
        word_detector: Callable[..., Detector],
    ) -> None:
        """It is told at the start, and not by the first row that cannot be kept."""
        with pytest.raises(ConfigurationError, match="pass `Journal"):
            Guard(make_class(), [word_detector()], journal=kind("rows.sqlite3"), redactor=str)

    def test_the_stricter_class_may_need_a_redactor(
        self,
        make_class: Callable[..., SecurityClass],
        word_detector: Callable[..., Detector],
        tmp_path: Path,
    ) -> None:
        """Rows that are written while it judges are said to be redacted."""
        full = make_class(journal={"text": "full"})
        journal = Journal(tmp_path / "journal.sqlite3")
        stricter = make_class(name="strict", rank=2)
        with pytest.raises(ConfigurationError) as caught:
            Guard(full, [word_detector()], journal=journal, stricter=stricter)
        assert caught.value.problems == (
            "class `strict` journals redacted texts: pass a `redactor`",
        )
        Guard(full, [word_detector()], journal=journal, stricter=stricter, redactor=str)
        Guard(full, [word_detector()], journal=journal, stricter=full)
        Guard(full, [word_detector()], stricter=stricter)

    def test_an_iterator_of_detectors(
        self, make_class: Callable[..., SecurityClass], word_detector: Callable[..., Detector]
    ) -> None:
        """It gives each once, and all of them are asked."""
        guard = Guard(make_class(), iter([word_detector("one"), word_detector("two")]))
        assert list(guard.detectors) == ["one", "two"]
        assert guard.check("zblock").action == "block"

    def test_a_single_detector(
        self, make_class: Callable[..., SecurityClass], word_detector: Callable[..., Any]
    ) -> None:
        """It is refused with the mend."""
        with pytest.raises(ConfigurationError, match=r"`WordDetector`: .* `detectors=\[mine\]`"):
            Guard(make_class(), word_detector())

    @pytest.mark.parametrize("foreign", [object(), "words", lambda _: []])
    def test_something_that_is_no_detector(
        self, make_class: Callable[..., SecurityClass], foreign: Any
    ) -> None:
        """Anything without name, version, categories and a call is refused."""
        with pytest.raises(ConfigurationError, match="is no detector: it needs `name`"):
            Guard(make_class(), [foreign])

    def test_a_class_of_detectors(self, make_class: Callable[..., SecurityClass]) -> None:
        """A class is refused, also where it has all that a detector needs: it was not called."""
        several: Any = [Faulty, type("Complete", (Faulty,), {"version": "1"})]
        with pytest.raises(ConfigurationError, match=r"`Complete` is a class .*: call it"):
            Guard(make_class(), several)

    @pytest.mark.parametrize("categories", ["nothing", None, 7, ("nothing", 7)])
    def test_categories_that_are_no_names(
        self, make_class: Callable[..., SecurityClass], categories: Any
    ) -> None:
        """A lone text is not taken for its letters, and the error says what to write."""
        faulty = Faulty(found())
        faulty.categories = categories
        with pytest.raises(ConfigurationError, match=r"`faulty` must be a tuple .* needs a comma"):
            Guard(make_class(limits={"nothing": {"act": 0.9}}), [faulty])

    @pytest.mark.parametrize("field", ["name", "version"])
    def test_a_detector_without(self, make_class: Callable[..., SecurityClass], field: str) -> None:
        """Name and version are texts: findings, failures and rows are known by them."""
        faulty = Faulty(found())
        setattr(faulty, field, None)
        with pytest.raises(ConfigurationError, match=f"`{field}` of detector .* must be `str`"):
            Guard(make_class(limits={"nothing": {"act": 0.9}}), [faulty])

    def test_a_detector_that_finds_nothing(self, make_class: Callable[..., SecurityClass]) -> None:
        """A detector without categories is as good as none: the limits are out of reach."""
        idle = Faulty(found())
        idle.categories = ()  # type: ignore[assignment]
        with pytest.raises(ConfigurationError, match="which no detector finds"):
            Guard(make_class(), [idle])

    @pytest.mark.parametrize("live", ["live.sqlite3", Path("live.sqlite3"), "redis://localhost"])
    def test_a_place_instead_of_a_store(self, live: Any) -> None:
        """The error names the stores."""
        with pytest.raises(ConfigurationError, match="SQLiteStore"):
            Guard.load("public", live=live, journal=None)

    @pytest.mark.parametrize("journal", [True, 7, b"journal.sqlite3"])
    def test_something_that_is_no_journal(self, journal: Any) -> None:
        """It is refused and makes no file of that name."""
        with pytest.raises(ConfigurationError, match="`journal` must be a `Journal`, a path"):
            Guard.load("public", journal=journal)

    @pytest.mark.parametrize("live", [False, True])
    def test_a_single_notifier(self, live: bool) -> None:  # noqa: FBT001  # pytest's values
        """It is refused with the mend."""
        notify: Any = print
        with pytest.raises(ConfigurationError, match="single notifier in brackets"):
            Guard.load("public", journal=None, live=live, notify=notify)

    @pytest.mark.parametrize("protected", ["the whole text", ["one text", "another one"]])
    def test_a_text_instead_of_a_protected_one(self, protected: Any) -> None:
        """One problem, however many letters it has."""
        with pytest.raises(ConfigurationError, match="`ProtectedText") as raised:
            Guard.load("public", protected=protected, journal=None)
        assert len(raised.value.problems) == 1

    def test_load_tells_everything_at_once(self, tmp_path: Path) -> None:
        """Unknown class, altered model and unusable protected text are told together."""
        model = tmp_path / "model"
        shutil.copytree(BUNDLED_MODEL, model)
        altered = json.loads((model / "config.json").read_text("utf-8")) | {"altered": True}
        (model / "config.json").write_text(json.dumps(altered), "utf-8")
        with pytest.raises(ConfigurationError) as caught:
            Guard.load("publik", model=model, protected=[ProtectedText("short", "Two words.")])
        problems = "\n".join(caught.value.problems)
        assert len(caught.value.problems) == 3
        assert "no security class `publik` (did you mean `public`?)" in problems
        assert "config.json` is not the file that was sealed (SHA-256 differs)" in problems
        assert "register a longer text" in problems

    def test_unknown_category_in_a_class(self, tmp_path: Path) -> None:
        """A policy that limits what nothing can find is refused, with file and line."""
        policy = tmp_path / "policy.yaml"
        policy.write_text(
            "version: 1\n"
            "classes:\n"
            "  - name: own\n"
            "    rank: 1\n"
            "    limits:\n"
            "      harasment: {act: 0.9}\n"
            "      voilence: {act: 0.9}\n"
            "    messages: {en: {blocked: no, replaced: other}}\n",
            "utf-8",
        )
        with pytest.raises(ConfigurationError) as caught:
            Guard.load(policy, journal=None)
        problems = "\n".join(caught.value.problems)
        assert "policy.yaml:6" in problems
        assert "did you mean `harassment`?" in problems
        assert "policy.yaml:7" in problems
        assert "did you mean `violence`?" in problems


class TestJournal:
    """A journal that cannot be written."""

    @pytest.fixture
    def broken(self, tmp_path: Path) -> Journal:
        """Return a journal that lost its table behind its back."""
        journal = Journal(tmp_path / "journal.sqlite3")
        with closing(sqlite3.connect(tmp_path / "journal.sqlite3")) as connection:
            connection.execute("DROP TABLE journal")
        return journal

    @on_failures
    def test_check(
        self, make_guard: Callable[..., Guard], broken: Journal, on_failure: str
    ) -> None:
        """Flagged text whose row cannot be written is handled as `on_failure` says."""
        guard = make_guard(journal=broken, on_failure=on_failure)
        with capture_logs() as logs:
            verdict = guard.check("It was zflag that day.")
        assert verdict.action == ACTIONS[on_failure]
        assert verdict.record is None
        assert f"journal failed: on_failure is {on_failure}" in verdict.reasons
        assert "guard.journal_failed" in [entry["event"] for entry in logs]
        if on_failure != "flag":
            assert verdict.delivered == NOTICES[on_failure]
            assert "It was" not in repr(verdict)

    @on_failures
    async def test_streams(
        self, make_guard: Callable[..., Guard], broken: Journal, on_failure: str
    ) -> None:
        """A stream finds out before the flagged text leaves."""
        guard = make_guard(journal=broken, on_failure=on_failure)
        fine = "Fine weather today, they say. " * 20
        text = fine + "It was zflag that day. " + fine
        stream = guard.stream(text)
        delivered = "".join(stream)

        async def source() -> AsyncIterator[str]:
            yield text

        astream = guard.astream(source())
        assert delivered == "".join([piece async for piece in astream])
        for verdict in (stream.verdict, astream.verdict):
            assert verdict.action == ACTIONS[on_failure]
            assert verdict.record is None
        if on_failure == "flag":
            assert delivered == text
        else:
            left, _, notice = delivered.rpartition("\n\n")
            assert left
            assert fine.startswith(left)
            assert notice == NOTICES[on_failure]

    def test_nothing_to_keep_nothing_to_fail(
        self, make_guard: Callable[..., Guard], broken: Journal
    ) -> None:
        """Responses that need no row are not held up by the journal."""
        assert make_guard(journal=broken).check(TEXT).action == "allow"

    def test_shadow_mode(self, make_guard: Callable[..., Guard], broken: Journal) -> None:
        """In shadow mode not even a broken journal holds anything back."""
        guard = make_guard(journal=broken, shadow=True)
        text = "It was zblock that day."
        assert "".join(guard.stream(text)) == text
        verdict = guard.check(text)
        assert (verdict.text, verdict.streamed, verdict.intended) == (text, text, "block")
        assert "journal failed: on_failure is block" in verdict.reasons

    def test_a_row_that_cannot_be_updated_at_the_end(
        self, make_guard: Callable[..., Guard], tmp_path: Path
    ) -> None:
        """Where the journal breaks while a stream runs, the verdict says so; what left, left."""
        path = tmp_path / "journal.sqlite3"
        guard = make_guard(journal=Journal(path))
        text = "It was zflag that day. " + "Fine weather today, they say. " * 20
        stream = guard.stream(text)
        left = [next(stream)]
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE journal")
        left += stream
        assert "".join(left) == text
        assert stream.verdict.action == "flag"
        assert "journal failed: on_failure is flag" in stream.verdict.reasons

    def test_no_redactor_at_all(
        self,
        make_class: Callable[..., SecurityClass],
        word_detector: Callable[..., Detector],
        tmp_path: Path,
    ) -> None:
        """A row that is to be redacted is not kept as it is, and `on_failure` is done."""
        journal = Journal(tmp_path / "journal.sqlite3")
        guard = Guard(make_class(), [word_detector()], journal=journal, redactor=str)
        guard._driver = Driver([word_detector()], 60.0, journal, None)
        verdict = guard.check("It was zflag that day.")
        assert (verdict.action, journal.count()) == ("block", 0)

    def test_a_redactor_that_raises(
        self,
        make_class: Callable[..., SecurityClass],
        word_detector: Callable[..., Detector],
        tmp_path: Path,
    ) -> None:
        """Texts that cannot be redacted are not kept, and `on_failure` is done."""

        def redactor(text: str) -> str:
            raise ValueError(text)

        journal = Journal(tmp_path / "journal.sqlite3")
        guard = Guard(make_class(), [word_detector()], journal=journal, redactor=redactor)
        with capture_logs() as logs:
            verdict = guard.check("It was zflag that day.")
        assert (verdict.action, journal.count()) == ("block", 0)
        assert "zflag" not in repr(logs)
