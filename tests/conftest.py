"""What all tests share: Hypothesis profiles, a detector that fires on words, classes, guards.

`HYPOTHESIS_PROFILE=ci` or `=slow` runs every property on more examples.
"""

from __future__ import annotations

import os
import re
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from hypothesis import settings

from guard.detectors.base import Finding
from guard.detectors.fingerprints import FingerprintDetector, ProtectedText
from guard.detectors.patterns import redact
from guard.detectors.personal import personal_data_detector
from guard.detectors.secrets import secret_detector
from guard.engine import Guard
from guard.security_class import SecurityClass

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from guard.detectors.base import Detector, Passage
    from guard.server.scripted import ScriptedApp

# Where a change is let in, the same examples are tried each time: what is red there was made red by
# the change. Everywhere else every run looks at others.
_FIXED = bool(os.environ.get("CI"))
settings.register_profile("default", max_examples=60, deadline=None, derandomize=_FIXED)
settings.register_profile("ci", max_examples=300, deadline=None, derandomize=_FIXED)
settings.register_profile("slow", max_examples=5000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))

# readline leaves them to processes like pytest-xdist's, and a console keeps the width that it finds
# when it is made: so it is made without, and before a test sets a width of its own.
for _name in ("COLUMNS", "LINES"):
    os.environ.pop(_name, None)
import_module("guard.cli.screen")

REMEDIES = ("flag", "redact", "excise", "replace", "block")

PROTECTED = (
    "The night ferry leaves the third pier when both lamps are lit, and nobody boards before "
    "the mate has counted the crates twice and signed the green ledger in the wheelhouse."
)
"""What the guards of `pack_guard` must not repeat, under the name `ferry`."""


class WordDetector:
    """Fires on the words `zflag`, `zredact`, `zexcise`, `zreplace` and `zblock`.

    Each is strong evidence for the category of its name, for which `new_class` has the
    remedy of its name. Like a pattern pack it points at the word; for `zexcise` it
    points at the unit, like a classifier.
    """

    version = "1"

    def __init__(self, name: str = "words", words: Sequence[str] = REMEDIES) -> None:
        """Fire on `z` and one of `words`."""
        self.name = name
        self.categories = tuple(f"to_{word}" for word in words)
        self._expression = re.compile(f"z({'|'.join(words)})")

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return a finding per word that begins in the unit."""
        return [
            self._finding(match, passage)
            for match in self._expression.finditer(passage.text)
            if passage.start <= match.start() < passage.end
        ]

    def _finding(self, match: re.Match[str], passage: Passage) -> Finding:
        whole = match[1] == "excise"
        start, end = (passage.start, passage.end) if whole else match.span()
        return Finding(
            f"to_{match[1]}", 9.0, start, end, self.name, "1", match[0], localised=not whole
        )


def new_class(**changes: Any) -> SecurityClass:
    """Return a class that limits the categories of `WordDetector`, with `changes` applied."""
    limits: dict[str, Any] = {
        f"to_{remedy}": {"flag": 0.5, "act": 0.9, "remedy": remedy}
        for remedy in REMEDIES
        if remedy != "flag"
    }
    values: dict[str, Any] = {
        "name": "test",
        "rank": 1,
        "limits": {"to_flag": {"flag": 0.5}, **limits},
        # Long, since machines that run tests may be slow; what hangs is tested with less.
        "timeout_seconds": 60.0,
        "messages": {"en": {"blocked": "[blocked]", "replaced": "[replaced]"}},
    }
    return SecurityClass.model_validate(values | changes)


def new_guard(*detectors: Detector, journal: Any = None, **changes: Any) -> Guard:
    """Return a guard of `detectors` (by default of a `WordDetector`) under `new_class`."""
    packs = (secret_detector(), personal_data_detector())
    return Guard(
        new_class(**changes),
        detectors or (WordDetector(),),
        journal=journal,
        redactor=partial(redact, detectors=packs),
    )


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    """Take back the logging that `guard` configures or a benchmark configures as an application."""
    yield
    structlog.reset_defaults()


@pytest.fixture(scope="session")
def word_detector() -> Callable[..., Detector]:
    """Return the maker of detectors that fire on words."""
    return WordDetector


@pytest.fixture(scope="session")
def make_class() -> Callable[..., SecurityClass]:
    """Return the maker of classes."""
    return new_class


@pytest.fixture(scope="session")
def make_guard() -> Callable[..., Guard]:
    """Return the maker of guards."""
    return new_guard


@pytest.fixture(scope="session")
def protected() -> str:
    """Return a text that the guards of `make_pack_guard` must not repeat."""
    return PROTECTED


@pytest.fixture(scope="session")
def make_pack_guard() -> Callable[..., Guard]:
    """Return the maker of guards with everything but the classifier, and a `WordDetector`."""

    def make(*detectors: Detector, **changes: Any) -> Guard:
        limits = dict(new_class().limits) | {
            "secret_leak": {"flag": 0.3, "act": 0.5, "remedy": "redact"},
            "pii_leak": {"flag": 0.4, "act": 0.85, "remedy": "redact"},
            "proprietary_leak": {"flag": 0.4, "act": 0.6, "remedy": "redact"},
            "system_prompt_leak": {"flag": 0.4, "act": 0.6, "remedy": "excise"},
        }
        standard: tuple[Detector, ...] = (
            secret_detector(),
            personal_data_detector(),
            FingerprintDetector([ProtectedText("ferry", PROTECTED)]),
            WordDetector(),
        )
        return new_guard(*standard, *detectors, **({"limits": limits} | changes))

    return make


@pytest.fixture(scope="session")
def pack_guard(make_pack_guard: Callable[..., Guard]) -> Guard:
    """Return a guard with everything but the classifier, and no journal."""
    return make_pack_guard()


@pytest.fixture(scope="session")
def real_guard() -> Guard:
    """Return a guard as users load it, with the bundled model; without a journal."""
    return Guard.load("public", journal=None)


@pytest.fixture(scope="session")
def served_backend() -> Iterator[ScriptedApp]:
    """Serve a scripted backend on a loopback port; tests use `backend`."""
    from guard.server.scripted import ScriptedApp

    with ScriptedApp().served() as app:
        yield app


@pytest.fixture
def backend(served_backend: ScriptedApp) -> Iterator[ScriptedApp]:
    """Return a scripted backend at `backend.url` that speaks OpenAI's and Anthropic's formats.

    Its script and its requests are the test's own; `backend.script(prompt, reply)` sets what it
    answers, see `guard.server.scripted`.
    """
    served_backend.reset()
    yield served_backend
    served_backend.reset()
