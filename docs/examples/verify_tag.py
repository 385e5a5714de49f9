"""Verify a tag without Clearance, by docs/tags.md alone; it needs `cryptography`.

python verify_tag.py model.tag release.pub
python verify_tag.py model.tag release.pub system_prompt=prompt.txt adapter=weights tools=tools.json
"""

import base64
import hashlib
import json
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

ENVELOPE = {"payloadType": "application/vnd.in-toto+json"}
STATEMENT = {
    "_type": "https://in-toto.io/Statement/v1",
    "predicateType": "urn:clearance:risk-tag:v1",
}
AHEAD = timedelta(minutes=5)  # the signer's clock may be so much


def fail(why: str) -> NoReturn:
    """End with exit code 1: the tag is not good."""
    sys.exit(f"not good: {why}")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object whose keys are each there once: readers differ on which would count."""
    if len(dict(pairs)) < len(pairs):
        fail("a key is there twice")
    return dict(pairs)


def digest(value: object) -> str:
    """Return the SHA-256 of a value's canonical JSON."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def deployed_digest(what: str, path: Path) -> str | None:
    """Return the digest that a tag has of a system prompt, an adapter or tools, none of none."""
    if what == "tools":
        tools = json.loads(path.read_text("utf-8"))
        return digest(tools) if tools else None
    if what == "adapter" and path.is_dir():
        below = list(path.rglob("*"))
        if any(item.is_symlink() and item.is_dir() for item in below):
            fail("the adapter holds a link to a directory, whose files nobody hashes")
        files = {
            item.relative_to(path).as_posix(): file_digest(item) for item in below if item.is_file()
        }
        return digest(files) if files else fail("the adapter's directory is empty")
    return file_digest(path)


def moment(text: str) -> datetime:
    """Return a time in the one form that a tag has."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", text, re.ASCII):
        fail(f"{text!r} is no time")
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)


def signed(envelope: dict[str, Any], key: Ed25519PublicKey) -> bytes:
    """Return the payload, which the key's owner has signed."""
    kind = envelope["payloadType"].encode()
    payload = base64.b64decode(envelope["payload"], validate=True)
    message = b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)
    for signature in envelope["signatures"]:
        try:
            key.verify(base64.b64decode(signature["sig"]), message)
        except InvalidSignature:
            continue
        return payload
    fail("this key has not signed it")


def claims(statement: dict[str, Any]) -> dict[str, Any]:
    """Return what a statement says, which must be at one with itself and in time."""
    said = dict(statement["predicate"])
    fingerprint = said["profile"]["fingerprint"]
    subject = {"name": fingerprint["model"], "digest": {"sha256": digest(fingerprint)}}
    if statement["subject"] != [subject]:
        fail("it is about another model than its profile")
    if said["profile_digest"] != digest(said["profile"]):
        fail("it holds another profile than its digest says")
    begin, end = moment(said["not_before"]), moment(said["not_after"])
    if not begin - AHEAD <= datetime.now(UTC) < end or begin >= end:
        fail(f"it is good from {said['not_before']} until {said['not_after']}")
    return said


def main(tag: str, public: str, *deployed: str) -> None:
    """Print what a good tag says."""
    key = load_pem_public_key(Path(public).read_bytes())
    if not isinstance(key, Ed25519PublicKey):
        fail("the key is no Ed25519 key")
    envelope = json.loads(Path(tag).read_bytes(), object_pairs_hook=once)
    statement = json.loads(signed(envelope, key), object_pairs_hook=once)
    for part, kinds in ((envelope, ENVELOPE), (statement, STATEMENT)):
        if any(part.get(name) != value for name, value in kinds.items()):
            fail("it is another kind of statement")
    said = claims(statement)
    for what, _, path in (item.partition("=") for item in deployed):
        if said["profile"]["fingerprint"][what] != deployed_digest(what, Path(path)):
            fail(f"it is for another {what} than {path}")
    reached = said["security_class"]
    print(f"good: {statement['subject'][0]['name']} up to class {reached['name']}")
    print(f"rank {reached['rank']}, until {said['not_after']}, profile {said['profile_digest']}")


if __name__ == "__main__":
    main(*sys.argv[1:])
