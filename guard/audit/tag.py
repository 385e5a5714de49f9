"""The tag: a signed statement that one model may be deployed up to one security class.

An in-toto Statement v1 in a DSSE v1 envelope, signed with Ed25519:

    envelope    payload (Base64), payloadType, signatures: [{keyid, sig}]
    payload     _type, subject: [{name, digest}], predicateType, predicate
    predicate   security_class: {name, rank, limits}, profile, profile_digest,
                not_before, not_after, tool_version

The profile is in it whole, so that a class's limits can be held against the figures wherever
the tag is used. Signatures are checked over the raw bytes, before any of them is parsed.

This module does not know how the profile came about: it says who vouches for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self

from pydantic import Field, StringConstraints, model_validator

from guard import __version__
from guard.audit.deploy import limits_digest, unmet
from guard.audit.envelope import Envelope
from guard.audit.errors import (
    BadSignature,
    ClassExceeded,
    DeploymentRefused,
    MalformedTag,
    TagExpired,
    TagNotYetValid,
    UnknownSigner,
    UnreadableTag,
    WrongAdapter,
    WrongDetectors,
    WrongModel,
    WrongProbes,
    WrongPrompt,
    WrongSampling,
    WrongTools,
)
from guard.audit.exact import (
    SIZE_LIMIT,
    Line,
    Moment,
    Record,
    Sha256,
    canonical,
    moment_text,
    parse,
    read_limited,
    write_atomically,
)
from guard.audit.keys import SHORT, PublicKey
from guard.audit.profile import Profile  # noqa: TC001  # pydantic reads it
from guard.errors import InputError
from guard.policy_problems import NAME

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from guard.audit.errors import TagError
    from guard.audit.keys import SigningKey
    from guard.audit.profile import Fingerprint, ProbeSet
    from guard.security_class import SecurityClass

PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"

STATEMENT: Final = "https://in-toto.io/Statement/v1"

PREDICATE: Final = "urn:clearance:risk-tag:v1"

CLOCK_SKEW: Final = timedelta(minutes=5)
"""How far the clock here may be behind the signer's; a tag's end has no such grace."""

LONGEST: Final = timedelta(days=366)
"""The longest validity: models, probes and detectors move on."""

MEND: Final = "audit what is deployed and sign its profile (`guard audit`, `guard tag sign`)"

Trusted = PublicKey | str | Path


class ClassReference(Record):
    """The class that a tag reaches up to.

    Attributes:
        name: the class's.
        rank: its rank; the tag is good for this one and lower ones.
        limits: SHA-256 of the deploy limits that it had when the tag was signed.
    """

    name: Annotated[str, StringConstraints(pattern=NAME)]
    rank: Annotated[int, Field(ge=0, le=1000)]
    limits: Sha256


class Claims(Record):
    """What a tag says.

    Attributes:
        security_class: the highest class that the model may be deployed under.
        profile: what the model has shown.
        profile_digest: SHA-256 of the profile's canonical JSON.
        not_before: when the tag begins, in UTC.
        not_after: when it ends, in UTC.
        tool_version: of Clearance.
    """

    security_class: ClassReference
    profile: Profile
    profile_digest: Sha256
    not_before: Moment
    not_after: Moment
    tool_version: Line

    @model_validator(mode="after")
    def _consistent(self) -> Claims:
        if self.profile_digest != self.profile.digest():
            raise ValueError("holds another profile than its digest says: sign the profile anew")
        if not self.not_before < self.not_after:
            raise ValueError("ends before it begins: sign the profile anew")
        return self


class _Digest(Record):
    sha256: Sha256


class _Subject(Record):
    name: Line
    digest: _Digest


class _Statement(Record):
    type: Annotated[Literal["https://in-toto.io/Statement/v1"], Field(alias="_type")]
    subject: Annotated[tuple[_Subject, ...], Field(min_length=1, max_length=1)]
    predicate_type: Annotated[Literal["urn:clearance:risk-tag:v1"], Field(alias="predicateType")]
    predicate: Claims

    @model_validator(mode="after")
    def _of_one_model(self) -> _Statement:
        fingerprint = self.predicate.profile.fingerprint
        (subject,) = self.subject
        if (subject.name, subject.digest.sha256) != (fingerprint.model, fingerprint.digest()):
            raise ValueError("is about another model than its profile: sign the profile anew")
        return self


class Tag(Envelope):
    """A tag as it was read or signed: nobody has verified it yet."""

    __slots__ = ()

    @classmethod
    def parse(cls, content: bytes, name: str = "the tag") -> Self:
        """Return the tag in `content`, unverified.

        Raises:
            MalformedTag: it is no envelope, or not a whole one.
        """
        try:
            return super().parse(content)
        except ValueError as error:
            raise _malformed(name, error) from error

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Return the tag in a file, unverified.

        Raises:
            MalformedTag: it is no envelope, or not a whole one.
            UnreadableTag: the file cannot be read.
        """
        try:
            content = read_limited(Path(path))
        except ValueError as error:
            raise UnreadableTag(
                f"tag `{path}` {error}: give the file that `guard tag sign` wrote"
            ) from error
        return cls.parse(content, f"tag `{path}`")

    def write(self, path: str | Path) -> None:
        """Write the envelope; a file that was there is replaced at once or not at all.

        Raises:
            InputError: it cannot be written.
        """
        try:
            write_atomically(Path(path), self.to_bytes())
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"tag `{path}` cannot be written: {reason}") from error

    def unverified_claims(self) -> Claims:
        """Return what the tag says, whoever may have written it.

        Raises:
            MalformedTag: the payload is no such statement.
        """
        if self.payload_type != PAYLOAD_TYPE:
            raise MalformedTag(
                f"the tag's payload is {self.payload_type[:80]!r} and not `{PAYLOAD_TYPE}`: "
                "give the file that `guard tag sign` wrote"
            )
        try:
            return parse(self.payload, _Statement).predicate
        except ValueError as error:
            raise _malformed("the tag's payload", error) from error


@dataclass(frozen=True, slots=True)
class VerifiedTag:
    """What a tag says, after its signature was found good.

    Attributes:
        claims: what it says.
        signers: ids of the trusted keys that have signed it; at least one.
    """

    claims: Claims
    signers: tuple[str, ...]

    @property
    def profile(self) -> Profile:
        """What the model has shown."""
        return self.claims.profile


def sign(
    profile: Profile,
    security_class: SecurityClass,
    key: SigningKey,
    *,
    validity: timedelta,
    now: datetime | None = None,
) -> Tag:
    """Return a tag: the profile's model may be deployed up to the class.

    Args:
        profile: what the model has shown.
        security_class: the highest class that it may be deployed under; it must have a
            `deploy` section, and the profile must meet it.
        key: the signer's.
        validity: how long from `now` on; above 0, at most `LONGEST`.
        now: when the tag begins; by default at once.

    Raises:
        DeploymentRefused: the profile does not meet the class's limits.
        InputError: the class asks for nothing, or the validity is out of bounds.
    """
    if security_class.deploy is None:
        raise InputError(
            f"class `{security_class.name}` has no `deploy` section, so that a tag would say "
            "nothing: add one to the policy, or name another class"
        )
    if not timedelta(seconds=1) <= validity <= LONGEST:
        raise InputError(f"a tag is valid for 1 second to {LONGEST.days} days, not {validity}")
    if missing := unmet(profile, security_class):
        raise DeploymentRefused(
            f"{profile.fingerprint.model} cannot be signed for class `{security_class.name}`: "
            "name a lower class, or mend the model and audit it anew",
            missing,
        )
    begin = _now(now)
    statement = {
        "_type": STATEMENT,
        "subject": [
            {
                "name": profile.fingerprint.model,
                "digest": {"sha256": profile.fingerprint.digest()},
            }
        ],
        "predicateType": PREDICATE,
        "predicate": {
            "security_class": {
                "name": security_class.name,
                "rank": security_class.rank,
                "limits": limits_digest(security_class),
            },
            "profile": profile.model_dump(mode="json"),
            "profile_digest": profile.digest(),
            "not_before": moment_text(begin),
            "not_after": moment_text(begin + validity),
            "tool_version": __version__,
        },
    }
    tag = Tag(canonical(statement), PAYLOAD_TYPE, ()).signed_by(key)
    if len(tag.to_bytes()) > SIZE_LIMIT:
        raise InputError(f"the tag would have more than {SIZE_LIMIT:,} bytes: shorten the profile")
    return tag


def verify(  # noqa: PLR0913  # each is one thing that may be held against the tag
    tag: Tag | bytes | str | Path,
    trust: Trusted | Iterable[Trusted],
    *,
    fingerprint: Fingerprint | None = None,
    detectors: Mapping[str, str] | None = None,
    probes: Iterable[ProbeSet] | None = None,
    security_class: SecurityClass | None = None,
    now: datetime | None = None,
) -> VerifiedTag:
    """Return what a tag says, if it is genuine, in time, and good for this deployment.

    What is not given is not held against the tag; a gate is `admit`.

    Args:
        tag: a tag, an envelope's bytes, or a path to one.
        trust: public keys, or paths to them.
        fingerprint: what is deployed. All of it must be as audited; only where its `sampling`
            is `None` is that left to each request.
        detectors: version of each deployed detector by name. Those of the audit must be
            there, in the same version; further ones may be.
        probes: the sets of probes that must have been asked, exactly.
        security_class: the class that the model is deployed under.
        now: by default the clock's time.

    Raises:
        TagError: the first thing that is wrong; each has a class of its own.
        KeyFileError: a trusted key cannot be read.
    """
    opened = tag if isinstance(tag, Tag) else _opened(tag)
    signers = _signers(opened, _keys(trust))
    claims = opened.unverified_claims()
    _check_time(claims, _now(now))
    profile = claims.profile
    if fingerprint is not None:
        _check_fingerprint(profile.fingerprint, fingerprint)
    if detectors is not None:
        _check_detectors(profile.detectors, detectors)
    if probes is not None:
        _check_probes(profile.probes, tuple(probes))
    if security_class is not None:
        _check_class(claims, security_class)
    return VerifiedTag(claims, signers)


def admit(  # noqa: PLR0913  # what is deployed, and who says that it may be
    security_class: SecurityClass,
    tag: Tag | bytes | str | Path | None,
    trust: Trusted | Iterable[Trusted],
    *,
    fingerprint: Fingerprint | None,
    detectors: Mapping[str, str],
    now: datetime | None = None,
) -> VerifiedTag | None:
    """Return the tag under which a deployment may start, `None` where it needs and has none.

    A tag that is given is held against everything, even where the class asks for none.

    Raises:
        DeploymentRefused: the class demands a tag and there is none.
        TagError: the tag is not good for this deployment; see `verify`.
        KeyFileError: a trusted key cannot be read.
    """
    deploy = security_class.deploy
    if tag is None:
        if deploy is None or deploy.tag == "optional":
            return None
        raise DeploymentRefused(
            f"class `{security_class.name}` demands a tag, and there is none: {MEND}",
            unmet(None, security_class),
        )
    if fingerprint is None:
        raise WrongModel(
            "what is deployed is not known, so that no tag can be for it: say which model, "
            "system prompt, adapter and tools it is (`fingerprint=Fingerprint.of(...)`)"
        )
    return verify(
        tag,
        trust,
        fingerprint=fingerprint,
        detectors=detectors,
        security_class=security_class,
        now=now,
    )


def _opened(tag: bytes | str | Path) -> Tag:
    return Tag.parse(tag) if isinstance(tag, bytes) else Tag.read(tag)


def _keys(trust: Trusted | Iterable[Trusted]) -> list[PublicKey]:
    given = [trust] if isinstance(trust, PublicKey | str | Path) else list(trust)
    return [key if isinstance(key, PublicKey) else PublicKey.read(key) for key in given]


def _signers(tag: Tag, keys: Sequence[PublicKey]) -> tuple[str, ...]:
    """Return the trusted keys that have signed the tag; at least one."""
    if signers := tag.signers(keys):
        return signers
    trusted = {key.id for key in keys}
    if claimed := [item.keyid for item in tag.signatures if item.keyid in trusted]:
        raise BadSignature(
            f"the signature by key {claimed[0][:SHORT]} is not of this content, so it was altered "
            "after it was signed: get the tag anew from its signer"
        )
    names = ", ".join(item.keyid[:SHORT] or "somebody" for item in tag.signatures)
    known = ", ".join(sorted(key[:SHORT] for key in trusted)) or "nobody"
    raise UnknownSigner(
        f"no trusted key has signed the tag (signed by: {names}; trusted: {known}): if you know "
        "the signer, trust their public key, else have the tag signed by somebody you trust"
    )


def _check_time(claims: Claims, now: datetime) -> None:
    if now + CLOCK_SKEW < claims.not_before:
        raise TagNotYetValid(
            f"the tag begins at {moment_text(claims.not_before)}, and the clock says "
            f"{moment_text(now)}: set the clock, or wait"
        )
    if now >= claims.not_after:
        raise TagExpired(
            f"the tag ended at {moment_text(claims.not_after)}, and the clock says "
            f"{moment_text(now)}: {MEND}"
        )


def _check_fingerprint(audited: Fingerprint, deployed: Fingerprint) -> None:
    if audited.model != deployed.model:
        raise WrongModel(
            f"the tag is for model `{audited.model}` and not for `{deployed.model}`: {MEND}"
        )
    parts: tuple[tuple[type[TagError], str, str | None, str | None], ...] = (
        (WrongPrompt, "system prompt", audited.system_prompt, deployed.system_prompt),
        (WrongAdapter, "adapter", audited.adapter, deployed.adapter),
        (WrongTools, "tools", audited.tools, deployed.tools),
    )
    for kind, name, before, here in parts:
        if before != here:
            raise kind(f"{name}: the tag is for {_hash(before)}, here is {_hash(here)}: {MEND}")
    if deployed.sampling is not None and audited.sampling != deployed.sampling:
        raise WrongSampling(
            f"sampling: the tag is for {_settings(audited)}, here is {_settings(deployed)}: {MEND}"
        )


def _check_detectors(audited: Mapping[str, str], deployed: Mapping[str, str]) -> None:
    wrong = [
        f"`{name}` {version} (here {deployed.get(name, 'not at all')})"
        for name, version in audited.items()
        if deployed.get(name) != version
    ]
    if wrong:
        raise WrongDetectors(
            f"the audit's detectors are not the deployed ones: {', '.join(wrong)}: deploy these "
            f"versions, or {MEND}"
        )


def _check_probes(audited: Sequence[ProbeSet], wanted: Sequence[ProbeSet]) -> None:
    if set(audited) != set(wanted):
        raise WrongProbes(
            f"the audit asked {_sets(audited)} and not {_sets(wanted)}: audit with these probes"
        )


def _check_class(claims: Claims, security_class: SecurityClass) -> None:
    missing = unmet(claims.profile, security_class)
    limit = claims.security_class
    if security_class.rank > limit.rank:
        raise ClassExceeded(
            f"the tag reaches up to class `{limit.name}` (rank {limit.rank}) and not to "
            f"`{security_class.name}` (rank {security_class.rank}): deploy under a lower class, "
            "or have the model signed for this one",
            missing,
        )
    if missing:
        raise DeploymentRefused(
            f"{claims.profile.fingerprint.model} may not be deployed under class "
            f"`{security_class.name}`: deploy under a lower class, or mend the model and audit "
            "it anew",
            missing,
        )


def _now(now: datetime | None) -> datetime:
    if now is None:
        return datetime.now(UTC)
    if now.utcoffset() is None:
        raise InputError(f"`now` has no time zone: give one, as in `{now.isoformat()}+00:00`")
    return now


def _malformed(what: str, error: ValueError) -> MalformedTag:
    lines = "\n".join(f"{what}: {line}" for line in str(error).splitlines())
    return MalformedTag(f"{lines}\ngive the file that `guard tag sign` wrote, unchanged")


def _hash(value: str | None) -> str:
    return "none" if value is None else f"sha256 {value[:SHORT]}"


def _settings(fingerprint: Fingerprint) -> str:
    return str(None if fingerprint.sampling is None else dict(fingerprint.sampling))


def _sets(probes: Iterable[ProbeSet]) -> str:
    names = (f"`{item.name}` {item.version} ({item.digest[:SHORT]})" for item in probes)
    return ", ".join(names) or "none"
