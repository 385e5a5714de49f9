"""Keys: known answers of RFC 8032, files that only their owner reads, errors that show nothing."""

from __future__ import annotations

import base64
import hashlib
import os
import stat
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from hypothesis import given
from hypothesis import strategies as st

from guard.audit.errors import KeyFileError
from guard.audit.keys import PublicKey, SigningKey, is_private, needs_passphrase

if TYPE_CHECKING:
    from pathlib import Path

PKCS8 = bytes.fromhex("302e020100300506032b657004220420")
"""What stands before the 32 bytes of a private Ed25519 key (RFC 8410)."""

SPKI = bytes.fromhex("302a300506032b6570032100")
"""What stands before the 32 bytes of a public one."""

VECTORS = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        (
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"
            "5fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        ),
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        (
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        ),
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        (
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac"
            "18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a"
        ),
    ),
]
"""Tests 1 to 3 of RFC 8032, section 7.1: secret key, public key, message, signature."""

KEY = SigningKey.new()


def pem(label: str, der: bytes) -> bytes:
    """Return a PEM text."""
    body = base64.encodebytes(der).decode()
    return f"-----BEGIN {label}-----\n{body}-----END {label}-----\n".encode()


def foreign(kind: str, *, public: bool) -> bytes:
    """Return a key that is not Ed25519."""
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey
    if kind == "rsa":
        key = rsa.generate_private_key(65537, 2048)
    else:
        key = (
            ec.generate_private_key(ec.SECP256R1())
            if kind == "ec"
            else ed448.Ed448PrivateKey.generate()
        )
    if public:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return key.public_key().public_bytes(serialization.Encoding.PEM, form)
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


class TestKnownAnswers:
    """The arithmetic and the encoding are those of the standards."""

    @pytest.mark.parametrize(("secret", "public", "message", "signature"), VECTORS)
    def test_rfc_8032(self, secret: str, public: str, message: str, signature: str) -> None:
        """A key of the RFC, read from PEM, has its public half and makes its signature."""
        key = SigningKey.from_pem(pem("PRIVATE KEY", PKCS8 + bytes.fromhex(secret)))
        other = PublicKey.from_pem(pem("PUBLIC KEY", SPKI + bytes.fromhex(public)))
        assert key.public == other
        assert key.sign(bytes.fromhex(message)).hex() == signature
        assert other.verify(bytes.fromhex(signature), bytes.fromhex(message))

    @pytest.mark.parametrize(("secret", "public"), [vector[:2] for vector in VECTORS])
    def test_the_id(self, secret: str, public: str) -> None:
        """A key's id is the SHA-256 of its public half in DER."""
        key = SigningKey.from_pem(pem("PRIVATE KEY", PKCS8 + bytes.fromhex(secret)))
        assert key.id == hashlib.sha256(SPKI + bytes.fromhex(public)).hexdigest()

    def test_a_signature_has_one_form(self) -> None:
        """The order of the group added to a signature makes no second one (RFC 8032, 5.1.7)."""
        order = 2**252 + 27742317777372353535851937790883648493
        signature = KEY.sign(b"text")
        scalar = int.from_bytes(signature[32:], "little") + order
        assert not KEY.public.verify(signature[:32] + scalar.to_bytes(32, "little"), b"text")

    @given(st.binary(max_size=80), st.binary(max_size=80))
    def test_a_signature_is_of_one_message(self, one: bytes, other: bytes) -> None:
        """What was signed verifies, and nothing else does."""
        signature = KEY.sign(one)
        assert KEY.public.verify(signature, one)
        assert KEY.public.verify(signature, other) is (one == other)
        assert not SigningKey.new().public.verify(signature, one)

    @given(st.binary(max_size=80))
    def test_any_bytes_may_be_a_signature(self, signature: bytes) -> None:
        """Bytes that are no signature do not verify, whatever their length."""
        assert not KEY.public.verify(signature, b"text")


class TestFiles:
    """Where keys lie."""

    def test_a_pair_comes_back(self, tmp_path: Path) -> None:
        """What was written is read as the same key."""
        private, public = KEY.write(tmp_path / "release")
        assert (private.name, public.name) == ("release.key", "release.pub")
        assert SigningKey.read(private).public == PublicKey.read(public) == KEY.public
        assert (is_private(private), is_private(public)) == (True, False)
        assert not needs_passphrase(private)

    def test_only_the_owner_reads_the_private_one(self, tmp_path: Path) -> None:
        """The mode is 0600 from the first moment, whatever the process's mask is."""
        before = os.umask(0)
        try:
            private, public = KEY.write(tmp_path / "release")
        finally:
            os.umask(before)
        assert stat.S_IMODE(private.stat().st_mode) == 0o600
        assert stat.S_IMODE(public.stat().st_mode) == 0o644

    @pytest.mark.parametrize("there", ["release.key", "release.pub"])
    def test_nothing_is_overwritten(self, there: str, tmp_path: Path) -> None:
        """Where one of the two files is there, it stays, and the other is not made."""
        (tmp_path / there).write_text("mine", "utf-8")
        with pytest.raises(KeyFileError, match="is there already: choose another name"):
            KEY.write(tmp_path / "release")
        assert [path.name for path in tmp_path.iterdir()] == [there]
        assert (tmp_path / there).read_text("utf-8") == "mine"

    def test_no_link_is_followed(self, tmp_path: Path) -> None:
        """A link that somebody laid in place of the key leads nowhere."""
        (tmp_path / "release.key").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(KeyFileError, match="is there already"):
            KEY.write(tmp_path / "release")
        assert not (tmp_path / "elsewhere").exists()

    def test_a_folder_that_is_not_there(self, tmp_path: Path) -> None:
        """The reason is named."""
        with pytest.raises(KeyFileError, match="cannot be written: No such file"):
            KEY.write(tmp_path / "nowhere" / "release")

    def test_a_passphrase(self, tmp_path: Path) -> None:
        """An encrypted key opens with its passphrase alone."""
        private, _ = KEY.write(tmp_path / "release", "größer als drei")
        assert needs_passphrase(private)
        assert is_private(private)
        assert SigningKey.read(private, "größer als drei").public == KEY.public
        for wrong, message in (
            ("groesser", "check the passphrase"),
            ("", "is encrypted"),
            (None, "is encrypted"),
        ):
            with pytest.raises(KeyFileError, match=message):
                SigningKey.read(private, wrong)

    def test_a_passphrase_that_is_not_needed(self, tmp_path: Path) -> None:
        """A plain key opens, whatever passphrase is about."""
        private, _ = KEY.write(tmp_path / "release")
        assert SigningKey.read(private, "unused").public == KEY.public

    @pytest.mark.parametrize("passphrase", ["", "x" * 2000, "\ud800"])
    def test_a_passphrase_that_cannot_be(self, passphrase: str, tmp_path: Path) -> None:
        """An empty, endless or unwritable passphrase is refused and no file is made."""
        with pytest.raises(KeyFileError, match="passphrase cannot be used"):
            KEY.write(tmp_path / "release", passphrase)
        assert not list(tmp_path.iterdir())


class TestRefused:
    """What is no key."""

    @pytest.mark.parametrize(
        "content", [b"", b"x", b"\xff\x00", pem("PUBLIC KEY", b"x"), pem("PRIVATE KEY", b"x")]
    )
    def test_no_key_at_all(self, content: bytes, tmp_path: Path) -> None:
        """Other content is named as such, with the file's name."""
        (tmp_path / "file").write_bytes(content)
        for kind in (SigningKey, PublicKey):
            with pytest.raises(KeyFileError, match=r"key `.*file` is (no|a) p"):
                kind.read(tmp_path / "file")

    @pytest.mark.parametrize("kind", ["rsa", "ec", "ed448"])
    def test_another_kind_of_key(self, kind: str) -> None:
        """Keys of other algorithms are refused, with the way to make one."""
        with pytest.raises(KeyFileError, match="no Ed25519 key: make one with `guard keys new`"):
            SigningKey.from_pem(foreign(kind, public=False))
        with pytest.raises(KeyFileError, match="no Ed25519 key: make one with `guard keys new`"):
            PublicKey.from_pem(foreign(kind, public=True))

    def test_the_wrong_half(self, tmp_path: Path) -> None:
        """A private key where a public one belongs is named before it is spread further."""
        private, public = KEY.write(tmp_path / "release")
        with pytest.raises(KeyFileError, match="is a private key: give its public half"):
            PublicKey.read(private)
        with pytest.raises(KeyFileError, match="is no private key"):
            SigningKey.read(public)

    def test_unreadable_files(self, tmp_path: Path) -> None:
        """A missing file, a folder and a huge file are named."""
        (tmp_path / "huge").write_bytes(b"x" * 10_001)
        for name, message in (("none", "No such file"), (".", "directory"), ("huge", "not a key")):
            with pytest.raises(KeyFileError, match=message):
                PublicKey.read(tmp_path / name)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, content: bytes) -> None:
        """Whatever a file holds, it is a key or a `KeyFileError`."""
        with pytest.raises(KeyFileError):
            PublicKey.from_pem(content)
        with pytest.raises(KeyFileError):
            SigningKey.from_pem(content)

    def test_nothing_shows_a_private_key(self, tmp_path: Path) -> None:
        """Neither `repr` nor an error has the secret or the passphrase in it."""
        private, _ = KEY.write(tmp_path / "release", "correct horse")
        with pytest.raises(KeyFileError) as raised:
            SigningKey.read(private, "battery staple")
        assert "battery" not in str(raised.value)
        assert repr(KEY) == f"SigningKey({KEY.id[:16]})"
        assert repr(KEY.public) == f"PublicKey({KEY.id[:16]})"


class TestExtra:
    """`cryptography` is an extra."""

    def test_a_missing_one_names_the_command(self) -> None:
        """Without it the error says what to install."""
        script = (
            "import sys; sys.modules['cryptography'] = None\n"
            "from guard.audit.keys import SigningKey\n"
            "from guard.errors import MissingExtraError\n"
            "try: SigningKey.new()\n"
            "except MissingExtraError as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert "pip install 'clearance-guard[audit]'" in done.stdout

    def test_it_is_loaded_on_first_use(self) -> None:
        """Neither the command line nor the modules load it by themselves."""
        script = (
            "import sys, guard.cli, guard.audit.tag, guard.audit.keys\n"
            "print([name for name in sys.modules if name.startswith('cryptography')])"
        )
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True
        )
        assert done.stdout == "[]\n"
