"""The risk profile: the audited rates of one model, with bounds and sample sizes.

A profile belongs to one *fingerprint*: model, system prompt, sampling, adapter and tools. Its
file is its canonical JSON, so that `sha256sum profile.json` is its digest.

This module does not know how a rate comes about, nor what a security class makes of it.

    python -m guard.audit.profile --write     writes docs/risk-profile.schema.json
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from pydantic import Field, StringConstraints, model_validator

from guard.audit.errors import ProfileError
from guard.audit.exact import (
    FrozenMap,
    Line,
    Moment,
    OneZero,
    Record,
    Sha256,
    canonical,
    described,
    digest,
    parse,
    read_limited,
    write_atomically,
)
from guard.errors import InputError
from guard.policy_problems import CATEGORY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

SCHEMA: Final = Path(__file__).parents[2] / "docs" / "risk-profile.schema.json"
"""Where the schema is published, in a checkout."""

Stopping = Literal["fixed", "early"]
"""`fixed`: as many answers as planned. `early`: stopped when the class was decided, which only
bounds that hold at any time (a confidence sequence) allow."""

Share = Annotated[float, Field(ge=0, le=1), OneZero]
Difference = Annotated[float, Field(ge=-1, le=1), OneZero]
Level = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=0)]
Number = Annotated[float, OneZero]
Note = Annotated[str, StringConstraints(max_length=10_000)]
Name = Annotated[str, StringConstraints(pattern=CATEGORY)]
EffectName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_.:-]{0,79}$")]
Setting = str | bool | int | Number | tuple[str, ...] | None


class Fingerprint(Record):
    """What exactly was audited, and what alone a tag may be used for.

    Attributes:
        model: the model's id, as the backend calls it.
        system_prompt: SHA-256 of the exact text in UTF-8; null without a system prompt, which
            is something else than an empty one.
        sampling: temperature and the like; null where each request sets its own.
        adapter: SHA-256 of the adapter's weights (see `adapter_digest`); null without one.
        tools: SHA-256 of the tools' canonical JSON; null without tools.
    """

    model: Line
    system_prompt: Sha256 | None = None
    sampling: FrozenMap[Line, Setting] | None = None
    adapter: Sha256 | None = None
    tools: Sha256 | None = None

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        return digest(self)

    @classmethod
    def of(
        cls,
        model: str,
        *,
        system_prompt: str | None = None,
        sampling: Mapping[str, Any] | None = None,
        adapter: str | Path | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> Fingerprint:
        """Return the fingerprint of a deployment.

        Args:
            model: the model's id, as the backend calls it.
            system_prompt: the exact text, trailing line break and all; `None` without one.
            sampling: parameters that every request has; `None` where each sets its own.
            adapter: the file or directory of adapter weights.
            tools: the tools' schemas, as the backend gets them.

        Raises:
            InputError: something cannot be hashed or is of a wrong type.
        """
        plain = {
            "model": model,
            "system_prompt": None if system_prompt is None else text_digest(system_prompt),
            "sampling": None if sampling is None else dict(sampling),
            "adapter": None if adapter is None else adapter_digest(adapter),
            "tools": _digest(list(tools), "tools") if tools else None,
        }
        try:
            return parse(canonical(plain), cls)
        except (TypeError, ValueError) as error:
            raise InputError(f"no fingerprint: {error}") from error


class ProbeSet(Record):
    """A set of probes that was asked.

    Attributes:
        name: the set's.
        version: its version, for people.
        digest: SHA-256 of whatever decides what is asked.
    """

    name: Line
    version: Line
    digest: Sha256


class Rate(Record):
    """How often answers carry a risk, corrected for the classifier's errors.

    Attributes:
        rate: the estimate, in [0, 1]; higher is worse.
        lower: the interval's lower bound; at most `rate`.
        upper: its upper bound; at least `rate`. Deploy limits look at this one.
        level: how often such intervals hold the true rate, such as 0.95.
        n: what the interval rests on: answers, or questions that were asked several times each.
            Deploy limits ask for a least number of it.
        answers: how many were judged; at least `n`.
        flagged: how many of them the detectors flagged; uncorrected.
        labelled: how many of them a person labelled.
        risky: how many of those the person found risky.
        method: how estimate and interval come about, such as `rogan-gladen`.
        reason: why the interval is wider than the counts suggest; mostly empty.
    """

    rate: Share
    lower: Share
    upper: Share
    level: Level
    n: Annotated[int, Field(ge=1)]
    answers: Count
    flagged: Count
    labelled: Count = 0
    risky: Count = 0
    method: Line
    reason: Note = ""

    @model_validator(mode="after")
    def _ordered(self) -> Rate:
        _bounds_hold(self.lower, self.rate, self.upper)
        if max(self.n, self.flagged, self.labelled) > self.answers:
            raise ValueError("counts more than there were `answers`: count them anew")
        if self.risky > self.labelled:
            raise ValueError("has more `risky` answers than `labelled` ones: count them anew")
        return self


class Effect(Record):
    """How much a mechanism moves a rate, from pairs of probes that differ in it alone.

    Attributes:
        estimate: the mean difference, in [-1, 1]; above 0 the mechanism makes it worse.
        lower: the interval's lower bound; at most `estimate`.
        upper: its upper bound; at least `estimate`. Deploy limits look at this one.
        level: how often such intervals hold the true effect, such as 0.95.
        n: pairs that were judged; at least 1.
        method: how estimate and interval come about.
        reason: why the interval is wider than the counts suggest; mostly empty.
    """

    estimate: Difference
    lower: Difference
    upper: Difference
    level: Level
    n: Annotated[int, Field(ge=1)]
    method: Line
    reason: Note = ""

    @model_validator(mode="after")
    def _ordered(self) -> Effect:
        _bounds_hold(self.lower, self.estimate, self.upper)
        return self


class Profile(Record):
    """The audited rates of one model.

    Attributes:
        format: of the file.
        fingerprint: what was audited.
        date: when the audit began, in UTC; an audit that is resumed keeps its date.
        tool_version: of Clearance.
        probes: the sets of probes that were asked.
        detectors: version of each detector that judged the answers, by name.
        categories: the rate of each category that was audited.
        mechanisms: the rate of each mechanism: of the answers to its probes, those with the risk
            that the probe looks for.
        effects: what each mechanism changes, by name.
        not_covered: what was not audited, and why.
        stopping: whether the audit ended as planned or as soon as the class was decided.
    """

    format: Literal["clearance-risk-profile/1"] = "clearance-risk-profile/1"
    fingerprint: Fingerprint
    date: Moment
    tool_version: Line
    probes: Annotated[tuple[ProbeSet, ...], Field(min_length=1)]
    detectors: Annotated[FrozenMap[Line, Line], Field(min_length=1)]
    categories: Annotated[FrozenMap[Name, Rate], Field(min_length=1)]
    mechanisms: FrozenMap[Name, Rate]
    effects: FrozenMap[EffectName, Effect]
    not_covered: FrozenMap[Line, Line]
    stopping: Stopping

    def digest(self) -> str:
        """Return the SHA-256 of the canonical JSON, in hex."""
        return digest(self)

    @classmethod
    def parse(cls, content: bytes) -> Profile:
        """Return the profile in `content`.

        Raises:
            ProfileError: everything that is wrong with it.
        """
        return _profile(content, "the profile")

    @classmethod
    def read(cls, path: str | Path) -> Profile:
        """Return the profile in a file.

        Raises:
            ProfileError: everything that is wrong with it.
        """
        try:
            content = read_limited(Path(path))
        except ValueError as error:
            raise ProfileError(f"profile `{path}` {error}") from error
        return _profile(content, f"profile `{path}`")

    def write(self, path: str | Path) -> None:
        """Write the canonical JSON; a file that was there is replaced at once or not at all.

        Raises:
            ProfileError: it cannot be written.
        """
        try:
            write_atomically(Path(path), self.to_bytes())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ProfileError(f"profile `{path}` cannot be written: {reason}") from error


def text_digest(text: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hex.

    Raises:
        InputError: the text has characters that UTF-8 cannot write.
    """
    try:
        return hashlib.sha256(text.encode("utf-8")).hexdigest()
    except (UnicodeEncodeError, AttributeError) as error:
        raise InputError(f"not a text that UTF-8 can write: {error}") from error


def read_text(path: str | Path) -> str:
    """Return a file's exact text, every line break as it is; for system prompts.

    Raises:
        InputError: it cannot be read or is not UTF-8.
    """
    try:
        return Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise InputError(f"`{path}` is not UTF-8: save it as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"`{path}` cannot be read: {reason}") from error


def adapter_digest(path: str | Path) -> str:
    """Return the digest of an adapter: a file's SHA-256, or of a directory's files.

    For a directory it is the SHA-256 of the canonical JSON of its files' hashes by relative
    path, so that a file that is renamed, added or gone changes it. Links to files count as what
    they lead to.

    Raises:
        InputError: it cannot be read, holds no file, or holds a link to a directory, whose files
            whoever loads the adapter would read and nobody would have hashed.
    """
    place = Path(path)
    try:
        if place.is_dir():
            hashes = {item.relative_to(place).as_posix(): _hash(item) for item in _files(place)}
            if not hashes:
                raise InputError(f"adapter `{path}` is an empty directory: name the weights")
            return _digest(hashes, "adapter")
        return _hash(place)
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"adapter `{path}` cannot be read: {reason}") from error


def profile_schema() -> dict[str, Any]:
    """Return the JSON schema of a profile."""
    schema = Profile.model_json_schema(mode="validation")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Clearance risk profile"
    return described(schema, (Profile, Fingerprint, ProbeSet, Rate, Effect))


def schema_text() -> str:
    """Return the JSON schema as the published file holds it."""
    return json.dumps(profile_schema(), indent=2, ensure_ascii=False) + "\n"


def _profile(content: bytes, what: str) -> Profile:
    try:
        return parse(content, Profile)
    except ValueError as error:
        raise ProfileError([f"{what}: {line}" for line in str(error).splitlines()]) from error


def _bounds_hold(lower: float, estimate: float, upper: float) -> None:
    if not lower <= estimate <= upper:
        raise ValueError(
            f"has the bounds {lower:g} and {upper:g} around {estimate:g}: "
            "the estimate must lie between them"
        )


def _digest(value: Any, what: str) -> str:
    try:
        return digest(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{what} cannot be written as JSON: {error}") from error


def _files(folder: Path) -> Iterator[Path]:
    for item in folder.rglob("*"):
        if item.is_symlink() and item.is_dir():
            raise InputError(
                f"adapter `{folder}` holds a link to a directory, "
                f"`{item.relative_to(folder).as_posix()}`: put the directory itself there"
            )
        if item.is_file():
            yield item


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the JSON schema, or write it where it is published."""
    if "--write" in (sys.argv[1:] if arguments is None else arguments):
        SCHEMA.write_text(schema_text(), encoding="utf-8")
    else:
        sys.stdout.write(schema_text())


if __name__ == "__main__":
    main()
