"""A signed envelope: DSSE version 1, as JSON (https://github.com/secure-systems-lab/dsse).

    {"payload": Base64, "payloadType": text, "signatures": [{"keyid": text, "sig": Base64}]}

This module does not know what is signed.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Final, Self

from pydantic import Field

from guard.audit.exact import Line, Record, canonical, parse

if TYPE_CHECKING:
    from collections.abc import Sequence

    from guard.audit.keys import PublicKey, SigningKey

SIGNATURES: Final = 16
"""The most signatures that an envelope may have."""

_STANDARD: Final = str.maketrans("-_", "+/")


class _SignatureForm(Record):
    keyid: Annotated[str, Field(max_length=200)] = ""
    sig: Annotated[str, Field(max_length=200)]


class _Form(Record):
    payload: str
    payload_type: Annotated[Line, Field(alias="payloadType")]
    signatures: Annotated[tuple[_SignatureForm, ...], Field(min_length=1, max_length=SIGNATURES)]


@dataclass(frozen=True, slots=True)
class Signature:
    """One signature.

    Attributes:
        keyid: whose it is said to be; nobody vouches for this.
        value: the signature.
    """

    keyid: str
    value: bytes


@dataclass(frozen=True, slots=True)
class Envelope:
    """Bytes with signatures that nobody has verified yet.

    Attributes:
        payload: what was signed.
        payload_type: what the payload is said to be; signed as well.
        signatures: by one key or several.
    """

    payload: bytes
    payload_type: str
    signatures: tuple[Signature, ...]

    @classmethod
    def parse(cls, content: bytes) -> Self:
        """Return the envelope in `content`.

        Unlike the specification this refuses unknown fields: nobody vouches for them.

        Raises:
            ValueError: it is no envelope, or not a whole one; a line per problem.
        """
        form = parse(content, _Form)
        signatures = tuple(Signature(item.keyid, decoded(item.sig)) for item in form.signatures)
        return cls(decoded(form.payload), form.payload_type, signatures)

    def to_bytes(self) -> bytes:
        """Return the JSON."""
        form = {
            "payload": base64.b64encode(self.payload).decode(),
            "payloadType": self.payload_type,
            "signatures": [
                {"keyid": item.keyid, "sig": base64.b64encode(item.value).decode()}
                for item in self.signatures
            ],
        }
        return canonical(form) + b"\n"

    def signed_by(self, key: SigningKey) -> Self:
        """Return the envelope with one more signature."""
        value = key.sign(pae(self.payload_type, self.payload))
        return replace(self, signatures=(*self.signatures, Signature(key.id, value)))

    def signers(self, keys: Sequence[PublicKey]) -> tuple[str, ...]:
        """Return the ids of those keys that have signed this, each once.

        Key ids in an envelope are hints that anybody can write, so that each key is tried on
        each signature.
        """
        message = pae(self.payload_type, self.payload)
        found = (k.id for s in self.signatures for k in keys if k.verify(s.value, message))
        return tuple(dict.fromkeys(found))


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return what is signed: the pre-authentication encoding of type and payload."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def decoded(text: str) -> bytes:
    """Return the bytes of Base64, standard or URL-safe, as an encoder would have written it.

    Raises:
        ValueError: it is something else: no padding, both alphabets, stray bits at the end.
    """
    standard = text.translate(_STANDARD)
    try:
        value = base64.b64decode(standard, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"has wrong Base64: {error}") from error
    written = (base64.b64encode(value).decode(), base64.urlsafe_b64encode(value).decode())
    if text not in written:
        raise ValueError("has Base64 that no encoder writes")
    return value
