"""Signing keys: Ed25519 (RFC 8032), as PEM files; `cryptography` does the arithmetic.

A key's id is the SHA-256 of its public half (the DER of its SubjectPublicKeyInfo), in hex.
A private key is PKCS#8, readable by its owner alone, and encrypted where a passphrase is given.

This module does not know what is signed, nor whom to trust.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn

from guard.audit.errors import KeyFileError
from guard.audit.exact import read_limited
from guard.errors import MissingExtraError

if TYPE_CHECKING:
    from types import ModuleType

    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )
    from cryptography.hazmat.primitives.serialization import Encoding

SHORT: Final = 16
"""Characters of a key's id that people are shown."""

_SIZE_LIMIT: Final = 10_000
"""Bytes: many times a PEM file of one key."""

_PRIVATE: Final = b"PRIVATE KEY-----"
_ENCRYPTED: Final = b"-----BEGIN ENCRYPTED PRIVATE KEY-----"


class PublicKey:
    """The public half of a key: tells whether its owner has signed something."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        """Compute the id."""
        self._key = key
        self.id: Final = hashlib.sha256(self._encoded(_crypto().Encoding.DER)).hexdigest()

    @classmethod
    def from_pem(cls, content: bytes, name: str = "the key") -> PublicKey:
        """Return the key in a PEM text.

        Raises:
            KeyFileError: it is no public Ed25519 key.
            MissingExtraError: `cryptography` is not installed.
        """
        if _PRIVATE in content:
            raise KeyFileError(f"{name} is a private key: give its public half, `NAME.pub`")
        crypto = _crypto()
        try:
            key = crypto.load_pem_public_key(content)
        except _refusals() as error:
            raise KeyFileError(f"{name} is no public key in PEM: {error}") from error
        if not isinstance(key, _ed25519().Ed25519PublicKey):
            raise KeyFileError(f"{name} is no Ed25519 key: make one with `guard keys new`")
        return cls(key)

    @classmethod
    def read(cls, path: str | Path) -> PublicKey:
        """Return the key in a file; see `from_pem` for errors."""
        return cls.from_pem(_read(path), f"key `{path}`")

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Return whether the key's owner has signed `message`."""
        from cryptography.exceptions import InvalidSignature  # noqa: PLC0415  # an extra

        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True

    def to_pem(self) -> bytes:
        """Return the PEM text."""
        return self._encoded(_crypto().Encoding.PEM)

    def _encoded(self, encoding: Encoding) -> bytes:
        return self._key.public_bytes(encoding, _crypto().PublicFormat.SubjectPublicKeyInfo)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PublicKey) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"PublicKey({self.id[:SHORT]})"


class SigningKey:
    """A private key. Neither its `repr` nor any error shows it."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        """Derive the public half."""
        self._key = key
        self.public: Final = PublicKey(key.public_key())

    @classmethod
    def new(cls) -> SigningKey:
        """Return a new key from the system's random source.

        Raises:
            MissingExtraError: `cryptography` is not installed.
        """
        return cls(_ed25519().Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(
        cls, content: bytes, passphrase: str | None = None, name: str = "the key"
    ) -> SigningKey:
        """Return the key in a PEM text.

        Raises:
            KeyFileError: it is no private Ed25519 key, or the passphrase is wrong.
            MissingExtraError: `cryptography` is not installed.
        """
        crypto = _crypto()
        encrypted = _ENCRYPTED in content
        if encrypted and not passphrase:
            raise KeyFileError(f"{name} is encrypted: give its passphrase")
        try:
            secret = passphrase.encode() if encrypted and passphrase else None
            key = crypto.load_pem_private_key(content, secret)
        except _refusals() as error:
            wrong = "cannot be opened: check the passphrase" if encrypted else "is no private key"
            raise KeyFileError(f"{name} {wrong} ({error})") from error
        if not isinstance(key, _ed25519().Ed25519PrivateKey):
            raise KeyFileError(f"{name} is no Ed25519 key: make one with `guard keys new`")
        return cls(key)

    @classmethod
    def read(cls, path: str | Path, passphrase: str | None = None) -> SigningKey:
        """Return the key in a file; see `from_pem` for errors."""
        return cls.from_pem(_read(path), passphrase, f"key `{path}`")

    @property
    def id(self) -> str:
        """SHA-256 of the public half."""
        return self.public.id

    def sign(self, message: bytes) -> bytes:
        """Return the signature, 64 bytes."""
        return self._key.sign(message)

    def to_pem(self, passphrase: str | None = None) -> bytes:
        """Return the PEM text, encrypted where a passphrase is given.

        Raises:
            KeyFileError: the passphrase is empty or too long.
        """
        crypto = _crypto()
        try:
            cipher = (
                crypto.NoEncryption()
                if passphrase is None
                else crypto.BestAvailableEncryption(passphrase.encode())
            )
            form = crypto.PrivateFormat.PKCS8
            return self._key.private_bytes(crypto.Encoding.PEM, form, cipher)
        except ValueError as error:
            raise KeyFileError(f"the passphrase cannot be used: {error}") from error

    def write(self, path: str | Path, passphrase: str | None = None) -> tuple[Path, Path]:
        """Write `PATH.key`, which only its owner can read, and `PATH.pub`; return the two.

        Raises:
            KeyFileError: one of them is there already (a key is never overwritten) or cannot
                be written, the path has no name, or the passphrase is empty or too long.
        """
        if not Path(path).name:
            raise KeyFileError(f"`{path}` is a folder: add a name to it, such as `release`")
        private, public = Path(f"{path}.key"), Path(f"{path}.pub")
        _create(private, self.to_pem(passphrase), 0o600)
        try:
            _create(public, self.public.to_pem(), 0o644)
        except KeyFileError:
            private.unlink()
            raise
        return private, public

    def __repr__(self) -> str:
        return f"SigningKey({self.id[:SHORT]})"


def is_private(path: str | Path) -> bool:
    """Return whether a file holds a private key.

    Raises:
        KeyFileError: it cannot be read.
    """
    return _PRIVATE in _read(path)


def needs_passphrase(path: str | Path) -> bool:
    """Return whether a file holds a private key that is encrypted; see `is_private`."""
    return _ENCRYPTED in _read(path)


def _create(path: Path, content: bytes, mode: int) -> None:
    """Write a new file that has its mode from the first moment."""
    try:
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    except FileExistsError as error:
        raise KeyFileError(f"`{path}` is there already: choose another name") from error
    except OSError as error:
        _cannot_write(path, error)
    try:
        with open(number, "wb") as file:  # noqa: PTH123  # a number
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        _cannot_write(path, error)


def _cannot_write(path: Path, error: OSError) -> NoReturn:
    raise KeyFileError(f"`{path}` cannot be written: {error.strerror or error}") from error


def _read(path: str | Path) -> bytes:
    try:
        content = read_limited(Path(path), _SIZE_LIMIT)
    except ValueError as error:
        raise KeyFileError(f"key `{path}` {error}") from error
    if len(content) > _SIZE_LIMIT:
        raise KeyFileError(f"key `{path}` is larger than {_SIZE_LIMIT:,} bytes: not a key")
    return content


def _crypto() -> ModuleType:
    try:
        from cryptography.hazmat.primitives import serialization  # noqa: PLC0415  # an extra
    except ImportError as error:
        raise MissingExtraError("cryptography", "audit") from error
    return serialization


def _ed25519() -> ModuleType:
    _crypto()
    from cryptography.hazmat.primitives.asymmetric import ed25519  # noqa: PLC0415  # an extra

    return ed25519


def _refusals() -> tuple[type[Exception], ...]:
    """Return what `cryptography` raises where a PEM text is not what was asked for."""
    from cryptography.exceptions import UnsupportedAlgorithm  # noqa: PLC0415  # an extra

    return (ValueError, TypeError, UnsupportedAlgorithm)
