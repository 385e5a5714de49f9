"""The errors: the tree in the docstring is the tree of the classes, and messages say enough."""

from __future__ import annotations

import inspect
import pickle
import re

import pytest

import guard.errors
from guard.assess import Assessment, Coverage
from guard.categories import CATEGORIES
from guard.errors import (
    Blocked,
    ConfigurationError,
    DetectorError,
    GuardError,
    InputError,
    JournalError,
    MissingExtraError,
    ModelError,
    PolicyError,
    did_you_mean,
)
from guard.verdict import Verdict

VERDICT = Verdict(
    action="block",
    text=None,
    message="Sorry.",
    choices=(None,),
    assessment=Assessment({}, (), Coverage()),
    reasons=("violence: live risk 0.95 reached 0.90 (block)",),
    intended="block",
    shadow=False,
    security_class="public",
    streamed="Sorry.",
)

LINE = re.compile(
    r"^ {4}(?P<branch>[ │├└─]*)(?P<name>[A-Z]\w+)(?: {2,}(?P<about>\S.*))?$", re.MULTILINE
)


def drawn() -> dict[str, str]:
    """Return each error in the docstring's tree with its parent, `""` for the root."""
    parents: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    for match in LINE.finditer(guard.errors.__doc__ or ""):
        depth = len(match["branch"])
        while path and path[-1][0] >= depth:
            path.pop()
        parents[match["name"]] = path[-1][1] if path else ""
        path.append((depth, match["name"]))
    return parents


def defined() -> dict[str, str]:
    """Return each error class of the module with its parent inside the module."""
    classes = inspect.getmembers(guard.errors, inspect.isclass)
    own = [item for _, item in classes if item.__module__ == "guard.errors"]
    return {
        item.__name__: next((b.__name__ for b in item.__bases__ if b in own), "") for item in own
    }


class TestTree:
    """The docstring's picture."""

    def test_it_shows_what_is_there(self) -> None:
        """Every class is drawn, below the class that it derives from, and nothing else is."""
        assert drawn() == defined()

    def test_each_error_but_the_base_is_explained(self) -> None:
        """Every line but the first says when the error is raised."""
        lines = list(LINE.finditer(guard.errors.__doc__ or ""))
        assert [line["name"] for line in lines if not line["about"]] == ["GuardError"]

    def test_one_except_catches_all(self) -> None:
        """Every error derives from `GuardError`."""
        assert all(issubclass(getattr(guard.errors, name), GuardError) for name in defined())


class TestConfigurationError:
    """A set-up's problems."""

    @pytest.mark.parametrize("kind", [ConfigurationError, PolicyError, ModelError])
    def test_problems_are_kept_apart_and_shown_together(
        self, kind: type[ConfigurationError]
    ) -> None:
        """The message has one line per problem; `problems` has them one by one."""
        error = kind(["first: mend it", "second: mend that"])
        assert error.problems == ("first: mend it", "second: mend that")
        assert str(error) == "first: mend it\nsecond: mend that"

    def test_one_problem_may_be_text(self) -> None:
        """A single problem needs no list."""
        assert ConfigurationError("only one").problems == ("only one",)


class TestOthers:
    """What callers rely on."""

    def test_a_missing_extra_names_the_command(self) -> None:
        """The message is the command that mends it, and the error is an `ImportError`."""
        error = MissingExtraError("openai", "openai")
        assert "pip install 'clearance-guard[openai]'" in str(error)
        assert isinstance(error, ImportError)
        assert error.name == "openai"

    def test_bad_input_is_a_value_error(self) -> None:
        """Code that knows nothing of this package can catch bad input."""
        assert issubclass(InputError, ValueError)

    def test_blocked_shows_reasons_and_no_text(self) -> None:
        """The message says why; the verdict, with its text, is an attribute."""
        error = Blocked(VERDICT)
        assert error.verdict is VERDICT
        assert str(error) == "blocked: violence: live risk 0.95 reached 0.90 (block)"


class TestDidYouMean:
    """Hints at slips."""

    @pytest.mark.parametrize("word", ["harasment", "harassments", "harrassment"])
    def test_a_slip_is_recognised(self, word: str) -> None:
        """A letter more or less is a slip."""
        assert did_you_mean(word, CATEGORIES) == " (did you mean `harassment`?)"

    @pytest.mark.parametrize("word", ["neutral", "x", ""])
    def test_another_word_is_not(self, word: str) -> None:
        """Words that merely share letters are no slips."""
        assert not did_you_mean(word, CATEGORIES)


class TestPickling:
    """Errors that come back from another process."""

    @pytest.mark.parametrize(
        "error",
        [
            PolicyError(["a", "b"]),
            ModelError("c"),
            MissingExtraError("openai", "openai"),
            InputError("d"),
            DetectorError("e"),
            JournalError("f"),
            Blocked(VERDICT),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_nothing_is_lost(self, error: GuardError) -> None:
        """Type, message and attributes survive."""
        other = pickle.loads(pickle.dumps(error))
        assert type(other) is type(error)
        assert str(other) == str(error)
        assert vars(other) == vars(error)
