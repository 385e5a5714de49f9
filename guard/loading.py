"""Puts a guard's parts together from names and paths, and says everything that is wrong.

This module does not judge anything and does not open the journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from guard import heads
from guard.detectors.base import Passage
from guard.detectors.classifier import Classifier
from guard.detectors.fingerprints import FingerprintDetector
from guard.detectors.patterns import redact
from guard.detectors.personal import personal_data_detector
from guard.detectors.secrets import secret_detector
from guard.errors import ConfigurationError
from guard.memory import give_back
from guard.policy import load_class

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from guard.audit.keys import PublicKey
    from guard.audit.profile import Fingerprint
    from guard.audit.tag import Tag
    from guard.detectors.base import Detector
    from guard.detectors.fingerprints import ProtectedText
    from guard.security_class import SecurityClass

_T = TypeVar("_T")

BUNDLED_MODEL: Final = Path(__file__).parent / "models" / "clearance-minilm"
"""The directory of the model that comes with the package."""

_TRIAL: Final = "A first sentence that nobody reads, to see that every part works."


@dataclass(frozen=True, slots=True)
class Parts:
    """What a guard is made of.

    Attributes:
        security_class: the class under which it judges.
        detectors: everything that sees risk.
        redactor: takes secrets and personal data out of texts.
    """

    security_class: SecurityClass
    detectors: tuple[Detector, ...]
    redactor: Callable[[str], str]


def load_parts(
    security_class: str | Path | SecurityClass,
    name: str | None,
    model: str | Path | None,
    detectors: Sequence[Detector],
    protected: Iterable[ProtectedText],
) -> Parts:
    """Load the class, the classifier and the standard detectors.

    The classifier has the heads of the class that an alarm would have judge, too, whether or not
    the live risk is followed: a tag is held against the same detectors either way.

    Raises:
        ConfigurationError: all problems of all parts.
    """
    problems: list[str] = []
    own = [category for detector in detectors for category in detector.categories]
    loaded = _collect(
        problems, partial(load_class, security_class, name, extra_categories=tuple(own))
    )
    own_heads = () if loaded is None else _heads(loaded, problems)
    classifier = _collect(problems, partial(Classifier, model or BUNDLED_MODEL, heads=own_heads))
    fingerprints = _collect(problems, partial(FingerprintDetector, tuple(protected)))
    if problems or loaded is None or classifier is None or fingerprints is None:
        raise ConfigurationError(problems)
    packs = (secret_detector(), personal_data_detector())
    _try_out((*packs, fingerprints, classifier))
    give_back()
    # The cheap detectors go first: if the time runs out, they have answered.
    return Parts(
        security_class=loaded,
        detectors=(*packs, fingerprints, classifier, *detectors),
        redactor=partial(redact, detectors=packs),
    )


def stricter(security_class: SecurityClass) -> SecurityClass | None:
    """Return the class that judges while an alarm asks to tighten, `None` where none does.

    Only a guard that follows the live risk needs it: elsewhere no alarm is ever raised.

    Raises:
        ConfigurationError: some alarm would ask for it, and there is none.
    """
    if not security_class.tightens:
        return None
    found = security_class.stricter
    if found is None:
        raise ConfigurationError(
            f"an alarm of class `{security_class.name}` tightens, and its policy has no class of "
            "a higher rank: add one, or choose another action"
        )
    return found


def head_files(security_class: SecurityClass) -> tuple[str, ...]:
    """Return the heads that judge under a class, or under the one that its alarms tighten to."""
    above = security_class.stricter if security_class.tightens else None
    return tuple(dict.fromkeys([*security_class.heads, *(above.heads if above else ())]))


def admitted(
    parts: Parts,
    tag: Tag | bytes | str | Path | None,
    trust: PublicKey | str | Path | Iterable[PublicKey | str | Path],
    fingerprint: Fingerprint | None,
) -> SecurityClass:
    """Return the class under which a model may be deployed, with the priors that it starts with.

    Raises:
        TagError: the class demands a tag and there is none, or the tag is not good for this.
    """
    deploy = parts.security_class.deploy
    if tag is None and (deploy is None or deploy.tag == "optional"):
        return parts.security_class
    from guard.audit.priors import starting_priors  # noqa: PLC0415  # needs an extra
    from guard.audit.tag import admit  # noqa: PLC0415

    verified = admit(
        parts.security_class,
        tag,
        trust,
        fingerprint=fingerprint,
        detectors={detector.name: detector.version for detector in parts.detectors},
    )
    if verified is None:
        return parts.security_class
    priors = starting_priors(verified.profile, parts.security_class)
    return parts.security_class.with_priors(priors)


def _heads(security_class: SecurityClass, problems: list[str]) -> tuple[heads.OwnHead, ...]:
    """Load the heads that judge under a class."""
    names = head_files(security_class)
    found = [_collect(problems, partial(heads.read, Path(name))) for name in names]
    # Two classes may each have a copy of one head.
    return tuple({head.digest: head for head in found if head is not None}.values())


def _try_out(detectors: Iterable[Detector]) -> None:
    """Have each detector judge once.

    What is compiled on first use is compiled now and not under the first response's deadline,
    and a model that loads but cannot judge is found before it is relied on.
    """
    problems = []
    for detector in detectors:
        try:
            detector(Passage(_TRIAL))
        except Exception as error:  # noqa: BLE001  # whatever it is, the guard must not load
            kind = type(error).__name__
            problems.append(f"detector `{detector.name}` cannot judge: {kind}: {error}")
    if problems:
        raise ConfigurationError(problems)


def _collect(problems: list[str], load: Callable[[], _T]) -> _T | None:
    """Return what `load` gives, or `None` with its problems added."""
    try:
        return load()
    except ConfigurationError as error:
        problems.extend(error.problems)
        return None
