"""The errors that Clearance raises.

    GuardError
     ├─ ConfigurationError      everything wrong with a set-up, listed at once
     │   ├─ PolicyError         a policy file or a security class
     │   └─ ModelError          a model directory: files, hashes, shape
     ├─ MissingExtraError       an optional dependency; names the install command
     ├─ InputError              a value that cannot be judged, with the mend
     ├─ DetectorError           a detector broke its contract
     ├─ JournalError            the durable record cannot be read or written
     ├─ LiveStoreError          the shared state of live risk cannot be read or written
     └─ Blocked                 raised on request where a response was blocked

This module does not know when an error is turned into a verdict: that is the
security class's `on_failure`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence  # noqa: TC003  # hints are read at run time
from typing import Final

import guard  # noqa: TC001  # hints are read at run time


class GuardError(Exception):
    """Base of every error that this package raises by itself."""


class ConfigurationError(GuardError):
    """Something in the set-up is wrong.

    Args:
        problems: one sentence per problem, each saying how to mend it. All problems
            that could be found are listed, not only the first.
    """

    def __init__(self, problems: Sequence[str] | str) -> None:
        """Join `problems` into one message; keep them apart in `self.problems`."""
        self.problems: tuple[str, ...] = (
            (problems,) if isinstance(problems, str) else tuple(problems)
        )
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class PolicyError(ConfigurationError):
    """A policy file or a security class is wrong."""


class ModelError(ConfigurationError):
    """A model directory is incomplete, altered or of a shape that cannot be used."""


class MissingExtraError(GuardError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        """Name the missing `package` and the `extra` that brings it."""
        super().__init__(
            f"`{package}` is not installed. Install it with: "
            f"pip install 'clearance-guard[{extra}]'",
            name=package,
        )
        self._given = (package, extra)

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), self._given


class InputError(GuardError, ValueError):
    """A value cannot be judged; the message says what is wrong and how to mend it."""


class DetectorError(GuardError):
    """A detector returned something that its contract does not allow."""


class JournalError(GuardError):
    """The journal cannot be opened, read or written."""


class LiveStoreError(GuardError):
    """The shared state of live risk cannot be read or written."""


class Blocked(GuardError):  # noqa: N818  # the field's word; reads as `except Blocked`
    """A response was blocked and the caller asked for an exception.

    Attributes:
        verdict: the verdict with its reasons.
    """

    def __init__(self, verdict: guard.Verdict) -> None:
        """Keep `verdict`; show only its reasons, never the text."""
        self.verdict = verdict
        super().__init__("blocked: " + "; ".join(verdict.reasons))

    def __reduce__(self) -> tuple[type[Blocked], tuple[guard.Verdict]]:
        return type(self), (self.verdict,)


_CLOSE: Final = 0.75
"""How alike two words must be for one to be taken for a slip of the other, in [0, 1]."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return a hint at the known word that `word` may be a slip of, `""` where there is none."""
    import difflib  # noqa: PLC0415  # nobody who makes no mistake need have its memory

    close = difflib.get_close_matches(word, list(known), n=1, cutoff=_CLOSE)
    return f" (did you mean `{close[0]}`?)" if close else ""
