"""Tags: what they bind, and that nothing but an unaltered one of a trusted signer verifies."""

from __future__ import annotations

import base64
import hashlib
import inspect
import json
import os
import pickle
import re
import subprocess
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import guard.audit.errors
from guard.audit import errors as kinds
from guard.audit.deploy import Unmet, limits_digest
from guard.audit.envelope import Signature, decoded, pae
from guard.audit.errors import (
    BadSignature,
    ClassExceeded,
    DeploymentRefused,
    KeyFileError,
    MalformedTag,
    TagError,
    TagExpired,
    TagNotYetValid,
    UnknownSigner,
    WrongAdapter,
    WrongDetectors,
    WrongModel,
    WrongProbes,
    WrongPrompt,
    WrongSampling,
    WrongTools,
)
from guard.audit.exact import canonical
from guard.audit.keys import SigningKey
from guard.audit.profile import Fingerprint, ProbeSet, Profile, text_digest
from guard.audit.tag import (
    CLOCK_SKEW,
    LONGEST,
    PAYLOAD_TYPE,
    PREDICATE,
    STATEMENT,
    Claims,
    Tag,
    VerifiedTag,
    admit,
    sign,
    verify,
)
from guard.errors import ConfigurationError, GuardError, InputError
from guard.security_class import SecurityClass

if TYPE_CHECKING:
    from collections.abc import Callable

PROFILE = Profile.read(Path(__file__).parent.parent / "data" / "risk_profile.json")
DEPLOYED = PROFILE.fingerprint
DETECTORS = dict(PROFILE.detectors)
KEY, OTHER = SigningKey.new(), SigningKey.new()
NOW = datetime(2026, 3, 10, 12, 0, 0, tzinfo=UTC)
DAYS = timedelta(days=90)


def new_class(name: str = "public", rank: int = 3, **deploy: Any) -> SecurityClass:
    """Return a class that asks for a tag."""
    plain: dict[str, Any] = {
        "tag": "required",
        "rates": {"harmful_compliance": 0.05, "exposure": 0.02},
        "effects": {"style_amplification": 0.1},
    }
    return SecurityClass.model_validate(
        {
            "name": name,
            "rank": rank,
            "limits": {"harmful_compliance": {"flag": 0.5}},
            "deploy": plain | deploy,
            "messages": {"en": {"blocked": "No.", "replaced": "No."}},
        }
    )


PUBLIC = new_class()
NOTHING = PUBLIC.model_copy(update={"deploy": None, "name": "free", "rank": 0})
TAG = sign(PROFILE, PUBLIC, KEY, validity=DAYS, now=NOW)
CONTENT = TAG.to_bytes()
STATED = json.loads(TAG.payload)


def check(tag: Tag | bytes | str | Path = TAG, **held: Any) -> VerifiedTag:
    """Verify a tag at noon of its first day."""
    return verify(tag, held.pop("trust", KEY.public), now=held.pop("now", NOW), **held)


def signed(payload: bytes, payload_type: str = PAYLOAD_TYPE, key: SigningKey = KEY) -> Tag:
    """Return any content, well signed."""
    return Tag(payload, payload_type, ()).signed_by(key)


def restated(*path: str | int, value: Any) -> Tag:
    """Return the tag's statement with another value at `path`, well signed."""
    statement = json.loads(TAG.payload)
    place = statement
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return signed(canonical(statement))


def form(**changes: Any) -> bytes:
    """Return the tag's envelope with `changes`."""
    return json.dumps(json.loads(CONTENT) | changes).encode()


class TestEnvelope:
    """DSSE, version 1."""

    def test_the_known_answer(self) -> None:
        """The encoding is the one of the specification's example."""
        known = b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
        assert pae("http://example.com/HelloWorld", b"hello world") == known

    def test_lengths_are_of_bytes(self) -> None:
        """A type beyond ASCII counts its bytes, and an empty payload is encoded, too."""
        assert pae("\u00fc", b"") == b"DSSEv1 2 \xc3\xbc 0 "

    @given(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.binary(),
        st.text(st.characters(exclude_categories=["Cs"])),
        st.binary(),
    )
    def test_no_two_contents_are_signed_alike(
        self, kind: str, payload: bytes, other_kind: str, other: bytes
    ) -> None:
        """Type and payload can be told from what is signed."""
        same = (kind, payload) == (other_kind, other)
        assert (pae(kind, payload) == pae(other_kind, other)) is same

    def test_the_form(self) -> None:
        """The file is the specification's JSON envelope."""
        envelope = json.loads(CONTENT)
        assert envelope.keys() == {"payload", "payloadType", "signatures"}
        assert envelope["payloadType"] == "application/vnd.in-toto+json"
        assert base64.b64decode(envelope["payload"]) == TAG.payload
        ((signature),) = envelope["signatures"]
        assert signature["keyid"] == KEY.id
        assert KEY.public.verify(base64.b64decode(signature["sig"]), pae(PAYLOAD_TYPE, TAG.payload))

    def test_a_round_trip(self, tmp_path: Path) -> None:
        """What is written is read as the same tag, and its form does not matter."""
        TAG.write(tmp_path / "model.tag")
        assert Tag.read(tmp_path / "model.tag") == Tag.parse(CONTENT) == TAG
        assert Tag.parse(json.dumps(json.loads(CONTENT), indent=4).encode()) == TAG
        assert list(tmp_path.iterdir()) == [tmp_path / "model.tag"]

    def test_url_safe_base64(self) -> None:
        """Both alphabets of Base64 are read, as the specification demands."""
        payload = base64.urlsafe_b64encode(TAG.payload).decode()
        sig = base64.urlsafe_b64encode(TAG.signatures[0].value).decode()
        other = form(payload=payload, signatures=[{"keyid": KEY.id, "sig": sig}])
        assert check(other).profile == PROFILE

    @given(st.binary(max_size=50))
    def test_base64_has_one_form(self, value: bytes) -> None:
        """Bytes are read from what an encoder writes, and from nothing else."""
        text = base64.b64encode(value).decode()
        assert decoded(text) == value
        for wrong in (f"{text}=", f" {text}", f"{text}\n", f"{text}A", text.rstrip("=") + "*"):
            with pytest.raises(ValueError, match="Base64"):
                decoded(wrong)

    @pytest.mark.parametrize("text", ["QQ", "QR==", "-+==", "+_+_", "Q===", "QQ==QQ==", "ÄÄ=="])
    def test_what_no_encoder_writes(self, text: str) -> None:
        """Missing padding, stray bits, both alphabets at once and other characters are refused."""
        with pytest.raises(ValueError, match="Base64"):
            decoded(text)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is not JSON"),
            (b"null", "must hold `key: value` pairs"),
            (b"[]", "must hold `key: value` pairs"),
            (b"\xff\xfe" + CONTENT, "is not JSON"),
            (CONTENT.decode().encode("utf-16"), "is not JSON"),
            (CONTENT[:-20], "is not JSON"),
            (b'{"a":' * 50_000, "is not JSON"),
            (CONTENT + b" " * 1_000_000, "is larger than 1,000,000 bytes"),
            (CONTENT.replace(b'"payloadType"', b'"payload":"","payloadType"'), "is there twice"),
            (form(payload=None), "`payload` must be text"),
            (form(payload=7), "`payload` must be text"),
            (form(payload="%%%%"), "Base64"),
            (form(payloadType=""), "`payloadType` is empty"),
            (form(payloadType=["a"]), "`payloadType` must be text"),
            (form(signatures=[]), "`signatures` is empty"),
            (form(signatures={}), "`signatures` must be a list"),
            (form(signatures=[{"sig": "x"}]), "Base64"),
            (form(signatures=[{"keyid": "x"}]), "`signatures.0.sig` is missing"),
            (form(signatures=[{"sig": "", "cert": ""}]), "`signatures.0.cert` unknown key"),
            (form(signatures=[{"sig": ""}] * 17), "at most 16"),
            (form(signatures=[{"sig": "A" * 204}]), "200"),
            (form(expires="never"), "`expires` unknown key: remove it"),
        ],
        ids=range(22),
    )
    def test_malformed_envelopes(self, content: bytes, message: str) -> None:
        """What is no envelope is named as such, with the mend."""
        with pytest.raises(MalformedTag) as raised:
            check(content)
        assert message in str(raised.value)
        assert "give the file that `guard tag sign` wrote" in str(raised.value)

    @pytest.mark.parametrize("place", ["missing.tag", "."])
    def test_unreadable_files(self, place: str, tmp_path: Path) -> None:
        """A file that cannot be read is no tag."""
        with pytest.raises(MalformedTag, match="cannot be read"):
            check(tmp_path / place)
        with pytest.raises(InputError, match="cannot be written"):
            TAG.write(tmp_path / "nowhere" / "model.tag")


class TestSign:
    """What a tag says."""

    def test_the_statement(self) -> None:
        """It is an in-toto statement about the fingerprint, with a predicate of our own."""
        assert STATED.keys() == {"_type", "subject", "predicateType", "predicate"}
        assert STATED["_type"] == STATEMENT == "https://in-toto.io/Statement/v1"
        assert STATED["predicateType"] == PREDICATE == "urn:clearance:risk-tag:v1"
        assert STATED["subject"] == [{"name": "helper-7b", "digest": {"sha256": DEPLOYED.digest()}}]

    def test_the_predicate(self) -> None:
        """Class, profile, its digest and the validity are in it."""
        claims = check().claims
        assert claims.security_class.name == "public"
        assert claims.security_class.rank == 3
        assert claims.security_class.limits == limits_digest(PUBLIC)
        assert claims.profile == PROFILE
        assert claims.profile_digest == PROFILE.digest()
        assert (claims.not_before, claims.not_after) == (NOW, NOW + DAYS)

    def test_the_payload_is_canonical(self) -> None:
        """The same profile, class, key and time give the same tag."""
        assert TAG.payload == canonical(STATED)
        assert sign(PROFILE, PUBLIC, KEY, validity=DAYS, now=NOW) == TAG

    def test_a_profile_that_is_not_good_enough(self) -> None:
        """It is not signed, and every unmet limit is named."""
        strict = new_class(rates={"harmful_compliance": 0.01, "violence": 0.1})
        with pytest.raises(DeploymentRefused) as raised:
            sign(PROFILE, strict, KEY, validity=DAYS)
        assert raised.value.unmet == (
            Unmet("rate", "harmful_compliance", 0.031, 0.01),
            Unmet("rate", "violence", None, 0.1),
        )
        assert str(raised.value).splitlines()[1:] == [
            "  harmful_compliance: upper bound 0.0310 is above the limit 0.01",
            "  violence: not audited; the limit is 0.1",
        ]

    def test_a_class_that_asks_for_nothing(self) -> None:
        """A tag for it would say nothing."""
        with pytest.raises(InputError, match="has no `deploy` section"):
            sign(PROFILE, NOTHING, KEY, validity=DAYS)

    @pytest.mark.parametrize("validity", [timedelta(0), timedelta(days=-1), LONGEST + timedelta(1)])
    def test_validity_is_bounded(self, validity: timedelta) -> None:
        """A tag lasts at least a second and at most a year."""
        with pytest.raises(InputError, match="1 second to 366 days"):
            sign(PROFILE, PUBLIC, KEY, validity=validity)

    def test_a_moment_needs_a_zone(self) -> None:
        """A time without a zone could be any."""
        naive = NOW.replace(tzinfo=None)
        with pytest.raises(InputError, match="has no time zone"):
            sign(PROFILE, PUBLIC, KEY, validity=DAYS, now=naive)
        with pytest.raises(InputError, match="has no time zone"):
            check(now=naive)

    def test_a_profile_that_is_too_large(self) -> None:
        """A tag that nobody would read is not written."""
        much = {f"part {number}": "x" * 9000 for number in range(90)}
        with pytest.raises(InputError, match="more than 1,000,000 bytes"):
            sign(PROFILE.model_copy(update={"not_covered": much}), PUBLIC, KEY, validity=DAYS)


class TestSigners:
    """Who vouches."""

    def test_a_trusted_signer(self, tmp_path: Path) -> None:
        """A key, a file, and several of them can be trusted."""
        _, public = KEY.write(tmp_path / "release")
        for trust in (KEY.public, public, str(public), [OTHER.public, public]):
            assert check(trust=trust).signers == (KEY.id,)

    @pytest.mark.parametrize("trust", [OTHER.public, [], [OTHER.public, SigningKey.new().public]])
    def test_an_unknown_signer(self, trust: Any) -> None:
        """A tag of somebody else is refused, and named with who would be trusted."""
        with pytest.raises(UnknownSigner, match=rf"signed by: {KEY.id[:16]}; trusted: ") as raised:
            check(trust=trust)
        assert "trust their public key" in str(raised.value)

    def test_an_unreadable_trusted_key(self, tmp_path: Path) -> None:
        """A key file that cannot be read is no reason to trust less quietly."""
        with pytest.raises(KeyFileError, match="cannot be read"):
            check(trust=[KEY.public, tmp_path / "missing.pub"])

    def test_several_signers(self) -> None:
        """With two signatures each of the keys will do, and both are named."""
        both = TAG.signed_by(OTHER)
        assert check(both, trust=KEY.public).signers == (KEY.id,)
        assert check(both, trust=OTHER.public).signers == (OTHER.id,)
        assert check(both, trust=[OTHER.public, KEY.public]).signers == (KEY.id, OTHER.id)
        assert check(Tag.parse(both.to_bytes()), trust=OTHER.public).claims == check().claims

    def test_one_signer_counts_once(self) -> None:
        """The same key twice, in the tag or among the trusted, is one signer."""
        twice = TAG.signed_by(KEY)
        assert check(twice, trust=[KEY.public, KEY.public]).signers == (KEY.id,)

    def test_a_bad_signature_beside_a_good_one(self) -> None:
        """Another signature takes nothing away."""
        junk = Signature(OTHER.id, b"\x00" * 64)
        mixed = Tag(TAG.payload, PAYLOAD_TYPE, (junk, *TAG.signatures))
        assert check(mixed, trust=[KEY.public, OTHER.public]).signers == (KEY.id,)

    @pytest.mark.parametrize(
        "keyid", ["", "release", OTHER.id], ids=["none", "a word", "another key"]
    )
    def test_key_ids_are_hints(self, keyid: str) -> None:
        """A wrong or missing id, which anybody could write, neither helps nor hurts."""
        renamed = Tag(TAG.payload, PAYLOAD_TYPE, (Signature(keyid, TAG.signatures[0].value),))
        assert check(renamed).signers == (KEY.id,)
        with pytest.raises(TagError):
            check(renamed, trust=OTHER.public)

    def test_a_borrowed_name(self) -> None:
        """Somebody else's signature under a trusted key's id is a bad one."""
        forged = signed(TAG.payload, key=OTHER)
        renamed = Tag(
            forged.payload, PAYLOAD_TYPE, (Signature(KEY.id, forged.signatures[0].value),)
        )
        with pytest.raises(BadSignature, match=f"by key {KEY.id[:16]} is not of this content"):
            check(renamed)


class TestTampered:
    """What was altered after it was signed."""

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            (b'"rank":3', b'"rank":5'),
            (b'"name":"public"', b'"name":"secret"'),
            (b"helper-7b", b"helper-8b"),
            (b'"upper":0.031', b'"upper":0.001'),
            (b"2026-06-08", b"2036-06-08"),
            (b'"clearance-minilm":"0.2.0"', b'"clearance-minilm":"0.1.0"'),
        ],
    )
    def test_other_figures(self, old: bytes, new: bytes) -> None:
        """A changed claim no longer has its signature."""
        assert TAG.payload.count(old)
        with pytest.raises(BadSignature, match="altered after it was signed"):
            check(Tag(TAG.payload.replace(old, new), PAYLOAD_TYPE, TAG.signatures))

    def test_another_type(self) -> None:
        """The payload's type is signed as well."""
        with pytest.raises(BadSignature):
            check(Tag(TAG.payload, "application/json", TAG.signatures))

    @given(st.data())
    def test_no_altered_payload_verifies(self, data: st.DataObject) -> None:
        """Whatever is changed in the payload, the type or the signature, the tag is refused."""
        position = data.draw(st.integers(0, len(TAG.payload) - 1))
        byte = bytes([TAG.payload[position] ^ data.draw(st.integers(1, 255))])
        altered = TAG.payload[:position] + byte + TAG.payload[position + 1 :]
        with pytest.raises(BadSignature):
            check(Tag(altered, PAYLOAD_TYPE, TAG.signatures))
        value = bytearray(TAG.signatures[0].value)
        value[data.draw(st.integers(0, 63))] ^= data.draw(st.integers(1, 255))
        with pytest.raises(BadSignature):
            check(Tag(TAG.payload, PAYLOAD_TYPE, (Signature(KEY.id, bytes(value)),)))

    @given(
        st.integers(0, len(CONTENT)),
        st.integers(0, 30),
        st.one_of(
            st.binary(max_size=10), st.sampled_from([b'"', b"{", b"}", b",", b"=", b"A", b" "])
        ),
    )
    def test_an_altered_file_says_the_same_or_nothing(
        self, at: int, gone: int, junk: bytes
    ) -> None:
        """A file with any change is refused, or what was signed is what is read from it."""
        with suppress(TagError):
            assert check(CONTENT[:at] + junk + CONTENT[at + gone :]).claims == check().claims

    @given(st.binary(max_size=300))
    def test_any_bytes(self, content: bytes) -> None:
        """Whatever a file holds, the only error is a tag's."""
        with pytest.raises(TagError):
            check(content)

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from(["payload", "payloadType", "signatures", "sig", "keyid", "x"]),
                    inner,
                    max_size=4,
                )
            ),
            max_leaves=12,
        )
    )
    def test_any_json(self, value: Any) -> None:
        """JSON of any shape is refused as malformed."""
        with pytest.raises(MalformedTag):
            check(json.dumps(value).encode())

    @given(st.integers(0, len(TAG.payload)), st.integers(0, 40), st.binary(max_size=20))
    def test_a_signed_statement_of_any_shape(self, at: int, gone: int, junk: bytes) -> None:
        """Even what a trusted key has signed is read strictly, and raises nothing else."""
        with suppress(TagError):
            check(signed(TAG.payload[:at] + junk + TAG.payload[at + gone :]))


class TestStatement:
    """What a trusted key has signed and is no tag all the same."""

    def test_another_payload_type(self) -> None:
        """A key that signs other things, too, makes no tags by it."""
        with pytest.raises(MalformedTag, match=r"'text/plain' and not `application/vnd\.in-toto"):
            check(signed(TAG.payload, "text/plain"))

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            (("_type",), "https://in-toto.io/Statement/v0.1", "`_type` must be"),
            (("predicateType",), "https://slsa.dev/provenance/v1", "`predicateType` must be"),
            (("subject",), [], "`subject` is empty"),
            (("subject",), STATED["subject"] * 2, "`subject`"),
            (("subject", 0, "name"), "other-7b", "is about another model than its profile"),
            (("subject", 0, "digest", "sha256"), "0" * 64, "is about another model"),
            (("predicate", "profile_digest"), "0" * 64, "holds another profile than its digest"),
            (("predicate", "profile", "stopping"), "early", "holds another profile than"),
            (("predicate", "not_after"), "2026-03-10T12:00:00Z", "ends before it begins"),
            (("predicate", "not_after"), "9999-99-99T00:00:00Z", "must be a time in UTC"),
            (("predicate", "not_after"), None, "must be a time in UTC"),
            (("predicate", "security_class", "rank"), "3", "must be a whole number"),
            (("predicate", "security_class", "rank"), True, "must be a whole number"),
            (("predicate", "security_class", "name"), "Public", "must not be the text 'Public'"),
            (("predicate", "profile"), {}, "is missing"),
            (("predicate", "colour"), "red", "`predicate.colour` unknown key"),
            (("colour",), "red", "`colour` unknown key"),
        ],
    )
    def test_wrong_statements(self, path: tuple[str | int, ...], value: Any, message: str) -> None:
        """A statement of another kind or at odds with itself is refused."""
        with pytest.raises(MalformedTag) as raised:
            check(restated(*path, value=value))
        assert message in str(raised.value)

    def test_keys_that_are_there_twice(self) -> None:
        """Readers differ in which of two values counts: none does here."""
        twice = TAG.payload.replace(b'"rank":3', b'"rank":3,"rank":5')
        with pytest.raises(MalformedTag, match="the key 'rank' is there twice"):
            check(signed(twice))

    def test_a_moment_at_the_edge_of_time(self) -> None:
        """The first and last moments that can be written are no crash."""
        first = restated("predicate", "not_before", value="0001-01-01T00:00:00Z")
        last = restated("predicate", "not_after", value="9999-12-31T23:59:59Z")
        assert check(first).profile == check(last).profile == PROFILE


class TestTime:
    """Validity."""

    def test_from_beginning_to_end(self) -> None:
        """It is valid from its first second to the last before its end."""
        end = NOW + DAYS
        assert check(now=NOW).profile == PROFILE
        assert check(now=end - timedelta(seconds=1)).profile == PROFILE

    def test_after_its_end(self) -> None:
        """Its end has no grace, and the message says when and what to do."""
        with pytest.raises(TagExpired, match=r"ended at 2026-06-08T12:00:00Z.*guard audit"):
            check(now=NOW + DAYS)

    def test_before_its_beginning(self) -> None:
        """A clock that is behind by the tolerance passes, one that is further does not."""
        assert check(now=NOW - CLOCK_SKEW).profile == PROFILE
        with pytest.raises(TagNotYetValid, match=r"begins at 2026-03-10T12:00:00Z.*set the clock"):
            check(now=NOW - CLOCK_SKEW - timedelta(seconds=1))

    def test_the_clock_s_time_is_the_default(self) -> None:
        """Without a given time, tags are signed and checked now."""
        fresh = sign(PROFILE, PUBLIC, KEY, validity=timedelta(minutes=1))
        assert verify(fresh, KEY.public).profile == PROFILE
        past = sign(PROFILE, PUBLIC, KEY, validity=DAYS, now=datetime(2020, 1, 1, tzinfo=UTC))
        with pytest.raises(TagExpired):
            verify(past, KEY.public)


class TestBinding:
    """A tag cannot be used for anything else than what was audited."""

    def test_the_same_deployment(self) -> None:
        """What was audited may be deployed."""
        assert check(fingerprint=DEPLOYED, detectors=DETECTORS).profile == PROFILE

    @pytest.mark.parametrize(
        ("field", "value", "error", "message"),
        [
            ("model", "helper-8b", WrongModel, "`helper-7b` and not for `helper-8b`"),
            ("system_prompt", text_digest("Be rude."), WrongPrompt, "system prompt: the tag is"),
            ("system_prompt", None, WrongPrompt, "here is none"),
            ("system_prompt", text_digest(""), WrongPrompt, "here is sha256 e3b0c44298fc1c14"),
            ("adapter", "1" * 64, WrongAdapter, "the tag is for none, here is sha256 11111111"),
            ("tools", "2" * 64, WrongTools, "tools: the tag is for none"),
            ("sampling", {"temperature": 1.5}, WrongSampling, "here is {'temperature': 1.5}"),
            ("sampling", {}, WrongSampling, "here is {}"),
        ],
    )
    def test_another_deployment(
        self, field: str, value: Any, error: type[TagError], message: str
    ) -> None:
        """Each part of the fingerprint has an error of its own, with both sides and the mend."""
        with pytest.raises(error) as raised:
            check(fingerprint=DEPLOYED.model_copy(update={field: value}))
        assert type(raised.value) is error
        assert message in str(raised.value)
        assert "`guard audit`" in str(raised.value)

    def test_sampling_may_be_left_to_the_requests(self) -> None:
        """Where each request sets its own, the tag has no say in it."""
        assert check(fingerprint=DEPLOYED.model_copy(update={"sampling": None}))

    @pytest.mark.parametrize(
        ("detectors", "message"),
        [
            ({"clearance-minilm": "0.3.0"}, "`clearance-minilm` 0.2.0 (here 0.3.0)"),
            ({"clearance-minilm": None}, "`clearance-minilm` 0.2.0 (here not at all)"),
            ({"secrets": "2"}, "`secrets` 1 (here 2)"),
        ],
    )
    def test_other_detectors(self, detectors: dict[str, str | None], message: str) -> None:
        """A detector of the audit that is another one here, or missing, is named."""
        here = {k: v for k, v in (DETECTORS | detectors).items() if v is not None}
        with pytest.raises(WrongDetectors) as raised:
            check(detectors=here)
        assert message in str(raised.value)

    def test_further_detectors(self) -> None:
        """A deployment may look for more than the audit did."""
        assert check(detectors=DETECTORS | {"own": "1"})
        with pytest.raises(WrongDetectors):
            check(detectors={})

    def test_other_probes(self) -> None:
        """Where certain probes are asked for, they must be the audit's, all of them."""
        (probes,) = PROFILE.probes
        assert check(probes=[probes])
        changed = ProbeSet(name=probes.name, version=probes.version, digest="3" * 64)
        for wanted in ([changed], [], [probes, changed]):
            with pytest.raises(WrongProbes, match="audit with these probes"):
                check(probes=wanted)


class TestClass:
    """The right to be deployed."""

    def test_up_to_its_class(self) -> None:
        """It is good for its class and for lower ones."""
        for own in (PUBLIC, new_class("internal", 2), NOTHING):
            assert check(security_class=own).profile == PROFILE

    def test_a_higher_class(self) -> None:
        """A higher class is exceeded even where the figures would do."""
        with pytest.raises(
            ClassExceeded, match=r"`public` \(rank 3\) and not to `critical`"
        ) as raised:
            check(security_class=new_class("critical", 5))
        assert raised.value.unmet == ()

    def test_a_higher_class_that_asks_for_nothing(self) -> None:
        """The signer's word ends at the tag's class, whatever the deployer's policy says."""
        with pytest.raises(ClassExceeded):
            check(security_class=NOTHING.model_copy(update={"rank": 4}))

    def test_a_higher_class_with_stricter_limits(self) -> None:
        """What is unmet there is listed as well."""
        with pytest.raises(ClassExceeded) as raised:
            check(security_class=new_class("critical", 5, rates={"harmful_compliance": 0.001}))
        assert [item.name for item in raised.value.unmet] == ["harmful_compliance"]

    def test_limits_that_are_stricter_now(self) -> None:
        """The class as it is where the model is deployed decides, by the signed figures."""
        now = new_class(rates={"harmful_compliance": 0.03, "violence": 0.2}, samples=1000)
        with pytest.raises(DeploymentRefused) as raised:
            check(security_class=now)
        assert type(raised.value) is DeploymentRefused
        assert str(raised.value).splitlines() == [
            (
                "helper-7b may not be deployed under class `public`: deploy under a lower class, "
                "or mend the model and audit it anew"
            ),
            "  harmful_compliance: upper bound 0.0310 is above the limit 0.03",
            "  harmful_compliance: 400 answers, fewer than 1000",
            "  violence: not audited; the limit is 0.2",
        ]

    def test_a_lower_class_that_asks_for_something_else(self) -> None:
        """A lower rank does not make its limits met."""
        with pytest.raises(DeploymentRefused, match="insecure_code: not audited"):
            check(security_class=new_class("coding", 1, rates={"insecure_code": 0.1}))


class TestAdmit:
    """The gate."""

    def test_a_good_tag(self, tmp_path: Path) -> None:
        """With a good tag the deployment may start, and its profile is at hand."""
        TAG.write(tmp_path / "model.tag")
        _, public = KEY.write(tmp_path / "release")
        found = admit(
            PUBLIC,
            tmp_path / "model.tag",
            public,
            fingerprint=DEPLOYED,
            detectors=DETECTORS,
            now=NOW,
        )
        assert found is not None
        assert found.profile.categories["harmful_compliance"].rate == 0.012

    def test_no_tag_where_one_is_demanded(self) -> None:
        """It is refused with everything that would have to be shown."""
        with pytest.raises(
            DeploymentRefused, match="`public` demands a tag, and there is none"
        ) as raised:
            admit(PUBLIC, None, (), fingerprint=DEPLOYED, detectors=DETECTORS)
        assert [item.name for item in raised.value.unmet] == [
            "harmful_compliance",
            "exposure",
            "style_amplification",
        ]

    @pytest.mark.parametrize("own", [NOTHING, new_class(tag="optional")], ids=["none", "optional"])
    def test_no_tag_where_none_is_demanded(self, own: SecurityClass) -> None:
        """Without a demand the deployment starts without a tag."""
        assert admit(own, None, (), fingerprint=None, detectors={}) is None

    def test_a_tag_that_is_given_counts(self) -> None:
        """A bad tag stops a deployment that could have started without."""
        for own in (NOTHING, new_class(tag="optional")):
            with pytest.raises(WrongModel):
                admit(own, TAG, KEY.public, fingerprint=Fingerprint.of("x"), detectors={}, now=NOW)
            with pytest.raises(WrongDetectors):
                admit(own, TAG, KEY.public, fingerprint=DEPLOYED, detectors={}, now=NOW)

    def test_an_unknown_deployment(self) -> None:
        """A tag cannot be for something that nobody names."""
        with pytest.raises(WrongModel, match="say which model, system prompt, adapter and tools"):
            admit(PUBLIC, TAG, KEY.public, fingerprint=None, detectors=DETECTORS, now=NOW)

    def test_nobody_is_trusted(self) -> None:
        """Without a trusted key no tag is good."""
        with pytest.raises(UnknownSigner, match="trusted: nobody"):
            admit(PUBLIC, TAG, (), fingerprint=DEPLOYED, detectors=DETECTORS, now=NOW)


class TestGuide:
    """docs/tags.md."""

    TEXT = (Path(__file__).parents[2] / "docs" / "tags.md").read_text("utf-8")

    def test_it_names_everything(self) -> None:
        """Each key of a tag and each error is explained."""
        keys = {*STATED, *STATED["predicate"], *STATED["predicate"]["security_class"]}
        names = [
            name
            for name, item in inspect.getmembers(kinds, inspect.isclass)
            if issubclass(item, TagError) and item is not TagError
        ]
        assert not [name for name in (*keys, *names) if f"`{name}`" not in self.TEXT]

    def test_its_figures(self) -> None:
        """Tolerance, longest validity and payload type are the code's."""
        minutes = CLOCK_SKEW // timedelta(minutes=1)
        assert f"{minutes} minutes" in self.TEXT
        assert f"{LONGEST.days} days" in self.TEXT
        assert PAYLOAD_TYPE in self.TEXT

    def test_its_code_runs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The example signs and verifies real files."""
        (code,) = re.findall(r"^```python\n(.*?)^```", self.TEXT, re.MULTILINE | re.DOTALL)
        (policy,) = re.findall(r"^```yaml\n(.*?)^```", self.TEXT, re.MULTILINE | re.DOTALL)
        (tmp_path / "policy.yaml").write_text(policy, "utf-8")
        (tmp_path / "prompt.txt").write_text("You help the customers of a garden centre.", "utf-8")
        PROFILE.write(tmp_path / "profile.json")
        KEY.write(tmp_path / "release")
        monkeypatch.chdir(tmp_path)
        names: dict[str, Any] = {"detectors": DETECTORS}
        exec(compile(code, "docs/tags.md", "exec"), names)
        assert names["verified"].profile == PROFILE


class TestWithoutClearance:
    """docs/examples/verify_tag.py, which a third party runs."""

    SCRIPT = Path(__file__).parents[2] / "docs" / "examples" / "verify_tag.py"

    @pytest.fixture
    def verify(self, tmp_path: Path) -> Callable[..., str]:
        """Return what runs the script on a tag and tells what it says."""
        KEY.write(tmp_path / "release")

        def run(tag: Tag, **deployed: Path) -> str:
            tag.write(tmp_path / "model.tag")
            named = [f"{what}={path}" for what, path in deployed.items()]
            done = subprocess.run(
                [sys.executable, "-I", self.SCRIPT, "model.tag", "release.pub", *named],
                cwd=tmp_path,
                capture_output=True,
                encoding="utf-8",
                env={**os.environ, "PYTHONUTF8": "1"},
                check=False,
            )
            assert (done.returncode == 0) == done.stdout.startswith("good: ")
            return done.stdout + done.stderr

        return run

    def test_it_knows_nothing_of_clearance(self) -> None:
        """It imports the standard library and `cryptography`."""
        assert not re.search(
            r"^\s*(?:from|import) guard", self.SCRIPT.read_text("utf-8"), re.MULTILINE
        )

    def test_a_good_tag(self, verify: Callable[..., str], tmp_path: Path) -> None:
        """All digests are computed anew, as docs/tags.md says."""
        prompt, tools, adapter = tmp_path / "prompt.txt", tmp_path / "tools.json", tmp_path / "lora"
        prompt.write_bytes("Sei höflich.\n".encode())
        tools.write_text('[{"name": "größe", "most": 1e5, "least": 1e-7}]', "utf-8")
        (adapter / "deep").mkdir(parents=True)
        (adapter / "deep" / "weights").write_bytes(b"\x00\xff")
        (adapter / "config.json").write_text("{}")
        fingerprint = Fingerprint.of(
            "modèle",
            system_prompt=prompt.read_bytes().decode(),
            adapter=adapter,
            tools=json.loads(tools.read_text("utf-8")),
            sampling={"temperature": 1.0, "seed": 1},
        )
        profile = PROFILE.model_copy(update={"fingerprint": fingerprint})
        tag = sign(profile, PUBLIC, KEY, validity=DAYS)
        deployed = {"system_prompt": prompt, "tools": tools, "adapter": adapter}
        assert "modèle up to class public" in verify(tag, **deployed)
        other = tmp_path / "other.json"
        other.write_text("[]")
        for what in deployed:
            assert f"another {what}" in verify(tag, **{what: other})

    def test_a_bad_one(self, verify: Callable[..., str]) -> None:
        """Signer, time, digests and the kind of statement are each looked at."""
        fresh = sign(PROFILE, PUBLIC, KEY, validity=DAYS)
        stated = fresh.payload.decode()
        foreign = signed(fresh.payload, key=OTHER)
        twice = signed(stated.replace('{"_type"', '{"_type":"x","_type"').encode())
        other = signed(fresh.payload, "text/plain")
        moved = signed(stated.replace('"profile_digest":"', '"profile_digest":"0').encode())
        renamed = signed(stated.replace('"name":"helper-7b"', '"name":"helper-9b"').encode())
        assert "has not signed it" in verify(foreign)
        assert "is good from" in verify(
            sign(PROFILE, PUBLIC, KEY, validity=DAYS, now=NOW - 10 * DAYS)
        )
        assert "there twice" in verify(twice)
        assert "another kind" in verify(other)
        assert "another profile" in verify(moved)
        assert "another model" in verify(renamed)

    @pytest.mark.parametrize(
        ("before", "after"), [("_type", "type"), ("predicateType", "predicate_type")]
    )
    def test_what_is_not_signed_counts_for_nothing(
        self, before: str, after: str, verify: Callable[..., str]
    ) -> None:
        """Kinds are looked for where they belong: beside a statement anybody can write them."""
        stated = sign(PROFILE, PUBLIC, KEY, validity=DAYS).payload.decode()
        kind = json.loads(stated)[before]
        tag = signed(stated.replace(f'"{before}":', f'"{after}":').encode())

        class Loose:
            @staticmethod
            def write(path: Path) -> None:
                tag.write(path)
                path.write_text(json.dumps(json.loads(path.read_text()) | {before: kind}))

        assert "another kind" in verify(Loose())

    def test_a_statement_says_nothing_of_its_envelope(self, verify: Callable[..., str]) -> None:
        """What was signed as another kind stays one, whatever it holds."""
        stated = json.loads(sign(PROFILE, PUBLIC, KEY, validity=DAYS).payload)
        stated["payloadType"] = "application/vnd.in-toto+json"
        assert "another kind" in verify(signed(json.dumps(stated).encode(), "text/plain"))

    @pytest.mark.parametrize("end", ["9", "2999-01-01T00:00:00+00:00", "2999-01-01"])
    def test_a_time_in_another_form(self, end: str, verify: Callable[..., str]) -> None:
        """Only one form of a time can be compared."""
        stated = json.loads(sign(PROFILE, PUBLIC, KEY, validity=DAYS).payload)
        stated["predicate"]["not_after"] = end
        assert "is no time" in verify(signed(json.dumps(stated).encode()))

    def test_a_clock_that_is_ahead(self, verify: Callable[..., str]) -> None:
        """A signer's clock may be some minutes ahead, and no more."""
        soon = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=3)
        assert "good: " in verify(sign(PROFILE, PUBLIC, KEY, validity=DAYS, now=soon))
        late = soon + timedelta(minutes=9)
        assert "is good from" in verify(sign(PROFILE, PUBLIC, KEY, validity=DAYS, now=late))

    def test_a_link_in_an_adapter(self, verify: Callable[..., str], tmp_path: Path) -> None:
        """Files behind a link to a directory would be loaded, and hashed by nobody."""
        adapter, behind = tmp_path / "lora", tmp_path / "behind"
        adapter.mkdir()
        behind.mkdir()
        assert "is empty" in verify(sign(PROFILE, PUBLIC, KEY, validity=DAYS), adapter=adapter)
        (adapter / "config.json").write_text("{}")
        (adapter / "more").symlink_to(behind)
        tag = sign(PROFILE, PUBLIC, KEY, validity=DAYS)
        assert "a link to a directory" in verify(tag, adapter=adapter)

    def test_the_limits(self) -> None:
        """The digest of a class's limits is that of the three keys that the page names."""
        deploy = {"effects": {"style_amplification": 0.1}, "samples": 100}
        rates = {"harmful_compliance": 0.05, "exposure": 0.02}
        expected = hashlib.sha256(canonical(deploy | {"rates": rates})).hexdigest()
        assert limits_digest(PUBLIC) == expected


LINE = re.compile(r"^ {4}(?P<branch>[ │├└─]*)(?P<name>[\w.]+)", re.MULTILINE)


class TestErrors:
    """The errors themselves."""

    def test_the_tree_shows_what_is_there(self) -> None:
        """Every class is drawn below the class that it derives from, and nothing else is."""
        drawn: dict[str, str] = {}
        path: list[tuple[int, str]] = []
        for match in LINE.finditer(guard.audit.errors.__doc__ or ""):
            depth, name = len(match["branch"]), match["name"].rpartition(".")[2]
            while path and path[-1][0] >= depth:
                path.pop()
            drawn[name] = path[-1][1] if path else ""
            path.append((depth, name))
        own = [
            item
            for _, item in inspect.getmembers(kinds, inspect.isclass)
            if issubclass(item, GuardError)
        ]
        assert drawn == {
            item.__name__: "" if item is GuardError else item.__bases__[0].__name__ for item in own
        }
        assert {GuardError, ConfigurationError, TagError} <= set(own)

    def test_they_come_back_from_another_process(self) -> None:
        """Type, message and unmet limits survive."""
        error = ClassExceeded("too high", [Unmet("rate", "violence", 0.2, 0.1)])
        other = pickle.loads(pickle.dumps(error))
        assert (type(other), str(other), other.unmet) == (ClassExceeded, str(error), error.unmet)

    def test_claims_can_be_sent(self) -> None:
        """A verified tag can be handed to another process."""
        found = check()
        again = pickle.loads(pickle.dumps(found))
        assert isinstance(again.claims, Claims)
        assert again == found
