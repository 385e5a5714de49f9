"""What the answers of an audit showed, kept so that nobody need judge them twice.

With the judgements go the detectors that made them and the errors that were known of each, so
that figures can be taken anew, compared or labelled without any detector.

This module does not know figures.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from guard.audit.errors import AuditError
from guard.audit.exact import canonical, read_limited, write_atomically
from guard.audit.instruments import Instrument
from guard.audit.judging import Judgement
from guard.audit.plan import SIZE_LIMIT
from guard.calibration import Confusion

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from typing import Self

FORMAT: Final = "clearance-audit-judged/1"


@dataclass(frozen=True, slots=True)
class Judged:
    """The judgements of a plan's answers.

    Attributes:
        plan: the plan's digest.
        detectors: version of each detector that judged, by name.
        instruments: the classifier of each category whose errors are known.
        judgements: by the probe's id; what the backend declined is not there.
        experimental: categories whose classifier is too weak to count, with the reason.
    """

    plan: str
    detectors: Mapping[str, str]
    instruments: Mapping[str, Instrument]
    judgements: Mapping[str, Judgement]
    experimental: Mapping[str, str] = field(default_factory=dict)

    def write(self, path: Path) -> None:
        """Write the file; one that was there is replaced at once or not at all.

        Raises:
            AuditError: it cannot be written.
        """
        errors = {
            name: asdict(instrument.confusion)
            for name, instrument in self.instruments.items()
            if instrument.confusion is not None
        }
        content = {
            "format": FORMAT,
            "plan": self.plan,
            "detectors": dict(self.detectors),
            "confusions": errors,
            "judgements": {name: each.plain() for name, each in self.judgements.items()},
            "experimental": dict(self.experimental),
        }
        try:
            write_atomically(path, canonical(content))
        except OSError as error:
            raise AuditError(f"`{path}` cannot be written: {error.strerror}") from error

    @classmethod
    def read(cls, path: Path, plan: str) -> Self:
        """Return what is in a file.

        Raises:
            AuditError: it is missing, of another plan, or damaged.
        """
        mend = "judge the answers anew (`guard audit profile`)"
        try:
            data = json.loads(read_limited(path, SIZE_LIMIT))
            found = cls._of(data)
        except (ValueError, TypeError, KeyError) as error:
            raise AuditError(f"`{path}`: {error}: {mend}") from error
        if (data["format"], found.plan) != (FORMAT, plan):
            raise AuditError(f"`{path}` is of another audit: {mend}")
        return found

    @classmethod
    def _of(cls, data: Mapping[str, Any]) -> Self:
        return cls(
            data["plan"],
            data["detectors"],
            {
                name: Instrument(name, "classifier", Confusion(**counts))
                for name, counts in data["confusions"].items()
            },
            {name: Judgement.of(each) for name, each in data["judgements"].items()},
            data["experimental"],
        )
