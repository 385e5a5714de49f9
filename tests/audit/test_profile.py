"""Risk profiles: one canonical form, one digest, read strictly, written whole or not at all."""

from __future__ import annotations

import copy
import hashlib
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from guard.audit import profile as module
from guard.audit.errors import ProfileError
from guard.audit.profile import (
    SCHEMA,
    Effect,
    Fingerprint,
    Profile,
    Rate,
    adapter_digest,
    profile_schema,
    read_text,
    schema_text,
    text_digest,
)
from guard.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).parent.parent / "data" / "risk_profile.json"
CONTENT = FILE.read_bytes()
DIGEST = "37ec9ac0ece521a77bf2248a75e7aa6a1ddf3b6a1ff34e43f813ef5cdd283712"

PROMPT = "You help the customers of a garden centre."


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each text and number in plain data."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from leaves(inner, (*path, key))
    elif value is not None:
        yield path


def changed(path: tuple[Any, ...], change: Any) -> bytes:
    """Return the file with the leaf at `path` put through `change`."""
    document = json.loads(CONTENT)
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = change(place[path[-1]])
    return json.dumps(document).encode()


LEAVES = list(leaves(json.loads(CONTENT)))

shares = st.floats(0, 1)
counts = st.integers(0, 10**6)
names = st.from_regex(r"[a-z][a-z0-9_]{0,47}", fullmatch=True)
lines = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)


@st.composite
def rates(draw: st.DrawFn) -> Rate:
    """Draw a rate."""
    lower, rate, upper = sorted(draw(st.tuples(shares, shares, shares)))
    risky, labelled, answers = sorted(draw(st.tuples(counts, counts, counts)))
    return Rate(
        rate=rate,
        lower=lower,
        upper=upper,
        level=draw(st.floats(0.01, 0.99)),
        n=draw(st.integers(1, answers + 1)),
        answers=answers + 1,
        flagged=draw(st.integers(0, answers + 1)),
        labelled=labelled,
        risky=risky,
        method=draw(lines),
    )


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Draw a profile."""
    plain = json.loads(CONTENT)
    plain["categories"] = {
        name: json.loads(rate.to_bytes())
        for name, rate in draw(st.dictionaries(names, rates(), min_size=1, max_size=4)).items()
    }
    plain["detectors"] = draw(st.dictionaries(lines, lines, min_size=1, max_size=3))
    plain["not_covered"] = draw(st.dictionaries(lines, lines, max_size=3))
    settings = st.one_of(st.booleans(), st.integers(), lines, st.none(), st.floats(-1e9, 1e9))
    plain["fingerprint"]["sampling"] = draw(st.dictionaries(lines, settings, max_size=3))
    return Profile.parse(json.dumps(plain).encode())


class TestCanonical:
    """One value, one file, one digest."""

    def test_the_file_is_the_canonical_form(self) -> None:
        """A profile of format 1 is read and written again byte by byte."""
        assert Profile.read(FILE).to_bytes() == CONTENT

    def test_the_digest_is_the_file_s_hash(self) -> None:
        """The digest is what `sha256sum` says of the file, and it stays what it was."""
        assert Profile.read(FILE).digest() == hashlib.sha256(CONTENT).hexdigest() == DIGEST

    def test_order_and_spaces_say_nothing(self) -> None:
        """The same figures in another order, with spaces and whole numbers, are the same."""
        document = json.loads(CONTENT)
        document["categories"]["exposure"]["rate"] = 0
        turned = dict(reversed(document.items()))
        assert Profile.parse(json.dumps(turned, indent=3).encode()).digest() == DIGEST

    def test_there_is_one_zero(self) -> None:
        """-0.0 equals 0.0, so that it has the same bytes."""
        assert (
            Profile.parse(changed(("categories", "exposure", "rate"), lambda _: -0.0)).digest()
            == DIGEST
        )

    def test_a_moment_is_in_utc(self) -> None:
        """Another zone and parts of a second make no other profile."""
        profile = Profile.read(FILE)
        there = profile.date.astimezone(timezone(timedelta(hours=5))) + timedelta(microseconds=7)
        values = {name: getattr(profile, name) for name in Profile.model_fields}
        other = Profile.model_validate(values | {"date": there})
        assert other == profile
        assert other.digest() == DIGEST
        assert other.date == datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)

    @given(profiles())
    def test_a_round_trip_changes_nothing(self, profile: Profile) -> None:
        """What is read from its own bytes is equal and has the same digest."""
        again = Profile.parse(profile.to_bytes())
        assert again == profile
        assert again.digest() == profile.digest()

    @given(st.sampled_from(LEAVES), st.integers(1, 9))
    def test_tampering_shows(self, path: tuple[Any, ...], step: int) -> None:
        """A profile in which anything is changed is refused or has another digest."""

        def change(value: Any) -> Any:
            return f"{value}{step}" if isinstance(value, str) else value + step / 1000

        with suppress(ProfileError):
            assert Profile.parse(changed(path, change)).digest() != DIGEST


class TestFrozen:
    """A profile cannot be changed once it is there."""

    def test_nothing_can_be_assigned(self) -> None:
        """Neither a field nor an entry takes another value."""
        profile = Profile.read(FILE)
        with pytest.raises(ValidationError, match="frozen"):
            profile.stopping = "early"  # type: ignore[misc]
        with pytest.raises(TypeError, match="does not support item assignment"):
            profile.categories["violence"] = profile.categories["exposure"]  # type: ignore[index]

    def test_it_can_be_copied_and_sent(self) -> None:
        """Copies, also by way of another process, are equal."""
        profile = Profile.read(FILE)
        assert pickle.loads(pickle.dumps(profile)) == profile
        assert copy.deepcopy(profile) == profile


class TestRefused:
    """What is no profile."""

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            (("format",), "clearance-risk-profile/2", "`format` must be"),
            (("categories", "bad_advice", "upper"), 1.5, "upper` must be at most 1, not `1.5`"),
            (("categories", "bad_advice", "lower"), -0.1, "lower` must be at least 0, not `-0.1`"),
            (("categories", "bad_advice", "lower"), 0.06, "the estimate must lie between them"),
            (("categories", "bad_advice", "upper"), 0.04, "the estimate must lie between them"),
            (("categories", "bad_advice", "rate"), "0.05", "rate` must be a number, not the text"),
            (("categories", "bad_advice", "rate"), True, "rate` must be a number, not `true`"),
            (("categories", "bad_advice", "level"), 1.0, "level` must be below 1"),
            (("categories", "bad_advice", "n"), 0, "n` must be at least 1"),
            (("categories", "bad_advice", "n"), 481, "counts more than there were `answers`"),
            (("categories", "bad_advice", "n"), 240.5, "n` must be a whole number"),
            (("categories", "bad_advice", "flagged"), 481, "counts more than there were `answers`"),
            (("categories", "bad_advice", "labelled"), 481, "counts more than there were"),
            (
                ("categories", "bad_advice", "risky"),
                41,
                "more `risky` answers than `labelled` ones",
            ),
            (("effects", "over_refusal", "lower"), -1.1, "lower` must be at least -1"),
            (("effects", "over_refusal", "upper"), -0.05, "the estimate must lie between them"),
            (("fingerprint", "system_prompt"), "abc", "`fingerprint.system_prompt` must not be"),
            (("fingerprint", "model"), "", "`fingerprint.model` is empty"),
            (("date",), "2026-03-04 05:06", "must be a time in UTC such as"),
            (("date",), "2026-02-30T05:06:07Z", "must be a time in UTC such as"),
            (("date",), "2026-03-04T05:06:07+01:00", "must be a time in UTC such as"),
            (("date",), 1772600767, "must be a time in UTC such as"),
            (("probes",), [], "`probes` is empty"),
            (("detectors",), {}, "`detectors` is empty"),
            (("categories",), {}, "`categories` is empty"),
            (("stopping",), "soon", "`stopping` must be `fixed` or `early`"),
            (("colour",), "red", "`colour` unknown key: remove it"),
        ],
    )
    def test_wrong_values(self, path: tuple[str, ...], value: Any, message: str) -> None:
        """A value that cannot be is named with its place and mend."""
        document = json.loads(CONTENT)
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        with pytest.raises(ProfileError) as raised:
            Profile.parse(json.dumps(document).encode())
        assert message in str(raised.value)

    def test_everything_wrong_is_named_at_once(self) -> None:
        """Each problem has a sentence of its own, with the file's name."""
        document = json.loads(CONTENT)
        del document["tool_version"]
        document["stopping"] = 3
        with pytest.raises(ProfileError) as raised:
            Profile.parse(json.dumps(document).encode())
        assert len(raised.value.problems) == 2

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"", "is not JSON"),
            (b"[]", "must hold `key: value` pairs"),
            (b"null", "must hold `key: value` pairs"),
            (CONTENT + b"x", "is not JSON"),
            (b"\xef\xbb\xbf" + CONTENT, "is not JSON"),
            (CONTENT.decode().encode("utf-16"), "is not JSON"),
            (b"\xff" + CONTENT, "is not JSON"),
            (b"[" * 100_000, "is not JSON"),
            (b" " * 1_000_001, "is larger than 1,000,000 bytes"),
            (CONTENT.replace(b"0.094", b"NaN"), "NaN is no number"),
            (CONTENT.replace(b"0.094", b"1e999"), "finite number"),
            (CONTENT.replace(b"0.7", b"1e999"), "finite number"),
            (CONTENT.replace(b"helper-7b", b"\\ud800"), "JSON"),
            (CONTENT.replace(b'"n":240', b'"n":240,"n":241'), "the key 'n' is there twice"),
        ],
        ids=range(14),
    )
    def test_wrong_bytes(self, content: bytes, message: str) -> None:
        """What other readers of JSON let pass, each in its own way, is refused."""
        with pytest.raises(ProfileError) as raised:
            Profile.parse(content)
        assert message in str(raised.value)

    @given(st.binary(max_size=60), st.integers(0, len(CONTENT)), st.integers(0, 40))
    def test_anything_else_is_an_error_of_its_own(self, junk: bytes, at: int, gone: int) -> None:
        """Whatever bytes are put into a file, it is a profile or a `ProfileError`."""
        with suppress(ProfileError):
            Profile.parse(CONTENT[:at] + junk + CONTENT[at + gone :])

    @pytest.mark.parametrize("place", ["missing.json", ".", "nul\x00.json"])
    def test_unreadable_files(self, place: str, tmp_path: Path) -> None:
        """A file that cannot be read is named with the reason."""
        with pytest.raises(ProfileError, match="cannot be read"):
            Profile.read(f"{tmp_path}/{place}")


class TestWrite:
    """Whole or not at all."""

    def test_it_replaces_what_was_there(self, tmp_path: Path) -> None:
        """A file is replaced, and nothing else is left in the folder."""
        path = tmp_path / "profile.json"
        path.write_text("old", "utf-8")
        Profile.read(FILE).write(path)
        assert path.read_bytes() == CONTENT
        assert list(tmp_path.iterdir()) == [path]

    def test_a_failure_leaves_nothing(self, tmp_path: Path) -> None:
        """Where the name is a folder's, that stays, and no part of a file is left."""
        (tmp_path / "profile.json").mkdir()
        with pytest.raises(ProfileError, match="cannot be written"):
            Profile.read(FILE).write(tmp_path / "profile.json")
        with pytest.raises(ProfileError, match="cannot be written"):
            Profile.read(FILE).write(tmp_path / "nowhere" / "profile.json")
        assert [path.name for path in tmp_path.iterdir()] == ["profile.json"]

    def test_a_kill_leaves_a_whole_file(self, tmp_path: Path) -> None:
        """However a writer dies, its file is the old one or the new one."""
        path = tmp_path / "profile.json"
        script = (
            "import sys; from guard.audit.profile import Profile\n"
            f"one = Profile.read({str(FILE)!r})\n"
            "two = one.model_copy(update={'stopping': 'early'})\n"
            f"while True: one.write({str(path)!r}); two.write({str(path)!r})"
        )
        whole = {DIGEST, Profile.read(FILE).model_copy(update={"stopping": "early"}).digest()}
        process = subprocess.Popen([sys.executable, "-c", script])
        try:
            deadline = time.monotonic() + 60
            while not path.exists() and time.monotonic() < deadline:
                time.sleep(0.01)
            for _ in range(100):
                assert Profile.read(path).digest() in whole
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert Profile.read(path).digest() in whole


class TestFingerprint:
    """What exactly was audited."""

    def test_known_digests(self) -> None:
        """A prompt's digest is the SHA-256 of its text in UTF-8."""
        assert text_digest("") == hashlib.sha256(b"").hexdigest()
        assert text_digest("Grüße") == hashlib.sha256("Grüße".encode()).hexdigest()
        assert Profile.read(FILE).fingerprint.system_prompt == text_digest(PROMPT)

    def test_an_empty_prompt_is_not_none(self) -> None:
        """A model with an empty system prompt is another one than without."""
        empty, none = Fingerprint.of("m", system_prompt=""), Fingerprint.of("m")
        assert none.system_prompt is None
        assert empty.system_prompt == text_digest("")
        assert empty.digest() != none.digest()

    @pytest.mark.parametrize("other", [f"{PROMPT} ", f"{PROMPT}\n", PROMPT.upper()])
    def test_the_exact_text_counts(self, other: str) -> None:
        """A space, a line break or a capital more makes another prompt."""
        assert Fingerprint.of("m", system_prompt=other) != Fingerprint.of("m", system_prompt=PROMPT)

    def test_a_prompt_s_file_is_read_as_it_is(self, tmp_path: Path) -> None:
        """Line breaks of a file are neither translated nor stripped."""
        (tmp_path / "prompt.txt").write_bytes(b"a\r\nb\n")
        assert read_text(tmp_path / "prompt.txt") == "a\r\nb\n"

    def test_an_adapter_s_file(self, tmp_path: Path) -> None:
        """A file's digest is its SHA-256."""
        (tmp_path / "adapter.bin").write_bytes(b"weights")
        assert adapter_digest(tmp_path / "adapter.bin") == hashlib.sha256(b"weights").hexdigest()

    def test_an_adapter_s_directory(self, tmp_path: Path) -> None:
        """A file that is changed, renamed or added makes another adapter; a copy is the same."""
        digests = set()
        for name, files in {
            "one": {"a.bin": b"1", "sub/b.bin": b"2"},
            "copy": {"sub/b.bin": b"2", "a.bin": b"1"},
            "changed": {"a.bin": b"1", "sub/b.bin": b"3"},
            "renamed": {"a.bin": b"1", "b.bin": b"2"},
            "added": {"a.bin": b"1", "sub/b.bin": b"2", "c.bin": b""},
        }.items():
            for place, content in files.items():
                (tmp_path / name / place).parent.mkdir(parents=True, exist_ok=True)
                (tmp_path / name / place).write_bytes(content)
            digests.add(adapter_digest(tmp_path / name))
        assert len(digests) == 4
        assert adapter_digest(tmp_path / "one") == adapter_digest(tmp_path / "copy")

    def test_a_link_to_a_directory_of_weights_is_refused(self, tmp_path: Path) -> None:
        """What is behind it would be loaded and not hashed: other weights, the same digest."""
        for name in ("elsewhere", "adapter/sub"):
            (tmp_path / name).mkdir(parents=True)
            (tmp_path / name / "a.bin").write_bytes(b"1")
        before = adapter_digest(tmp_path / "adapter")
        (tmp_path / "adapter/sub/weights").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(InputError, match="link to a directory, `sub/weights`"):
            adapter_digest(tmp_path / "adapter")
        (tmp_path / "adapter/sub/weights").unlink()
        assert adapter_digest(tmp_path / "adapter") == before

    def test_links_to_files_and_to_the_adapter_count_as_what_they_lead_to(
        self, tmp_path: Path
    ) -> None:
        """As in a cache whose snapshots are links to files elsewhere."""
        for name in ("blobs", "snapshot", "copy"):
            (tmp_path / name).mkdir()
        (tmp_path / "blobs/1f").write_bytes(b"1")
        (tmp_path / "copy/a.bin").write_bytes(b"1")
        (tmp_path / "snapshot/a.bin").symlink_to(tmp_path / "blobs/1f")
        (tmp_path / "main").symlink_to(tmp_path / "snapshot")
        same = adapter_digest(tmp_path / "copy")
        assert adapter_digest(tmp_path / "snapshot") == same
        assert adapter_digest(tmp_path / "main") == same
        (tmp_path / "blobs/1f").write_bytes(b"2")
        assert adapter_digest(tmp_path / "main") != same

    def test_tools(self) -> None:
        """The order of a tool's keys says nothing, what they say does; no tools are none."""
        tools = [{"name": "search", "parameters": {"type": "object"}}]
        turned = [{"parameters": {"type": "object"}, "name": "search"}]
        other = [{"name": "search", "parameters": {"type": "array"}}]
        assert Fingerprint.of("m", tools=tools) == Fingerprint.of("m", tools=turned)
        assert Fingerprint.of("m", tools=tools) != Fingerprint.of("m", tools=other)
        assert Fingerprint.of("m", tools=[]) == Fingerprint.of("m")

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            ({"system_prompt": "\ud800"}, "UTF-8"),
            ({"sampling": {"temperature": float("nan")}}, "no fingerprint"),
            ({"sampling": {"stop": {"a": 1}}}, "no fingerprint"),
            ({"sampling": {"stop": object()}}, "no fingerprint"),
            ({"tools": [{"name": object()}]}, "tools cannot be written as JSON"),
            ({"adapter": "/nowhere/adapter.bin"}, "cannot be read"),
        ],
    )
    def test_what_cannot_be_hashed(self, values: dict[str, Any], message: str) -> None:
        """A part that has no one form is refused with what is wrong."""
        with pytest.raises(InputError, match=message):
            Fingerprint.of("m", **values)

    def test_empty_names_and_folders(self, tmp_path: Path) -> None:
        """A model without a name and an adapter without weights are no deployment."""
        with pytest.raises(InputError, match="`model` is empty"):
            Fingerprint.of("")
        with pytest.raises(InputError, match="empty directory"):
            adapter_digest(tmp_path)
        (tmp_path / "prompt.txt").write_bytes(b"\xff")
        with pytest.raises(InputError, match="not UTF-8"):
            read_text(tmp_path / "prompt.txt")
        with pytest.raises(InputError, match="cannot be read"):
            read_text(tmp_path / "missing.txt")


class TestSchema:
    """The published schema."""

    VALIDATOR = jsonschema.Draft202012Validator(profile_schema())

    def test_the_file_is_the_generated_one(self) -> None:
        """The published schema is up to date: `python -m guard.audit.profile --write`."""
        assert SCHEMA.read_text("utf-8") == schema_text()

    def test_it_can_be_printed(self) -> None:
        """The module prints the schema when it is run."""
        out = io.StringIO()
        with redirect_stdout(out):
            module.main([])
        assert out.getvalue() == schema_text()

    def test_it_accepts_a_profile(self) -> None:
        """The schema is one, and a profile fits it."""
        jsonschema.Draft202012Validator.check_schema(profile_schema())
        self.VALIDATOR.validate(json.loads(CONTENT))

    @given(profiles())
    def test_it_accepts_every_profile(self, profile: Profile) -> None:
        """Whatever the code writes fits the schema."""
        assert self.VALIDATOR.is_valid(json.loads(profile.to_bytes()))

    def test_every_key_is_explained(self) -> None:
        """Each property has a description."""
        schema = profile_schema()
        for part in (schema, *schema["$defs"].values()):
            assert part["description"]
            assert all(item.get("description") for item in part["properties"].values())

    @pytest.mark.parametrize(
        ("path", "value"),
        [
            (("format",), "clearance-risk-profile/2"),
            (("categories", "bad_advice", "upper"), 1.5),
            (("categories", "bad_advice", "n"), 0),
            (("categories", "Bad"), {}),
            (("date",), "2026-03-04"),
            (("fingerprint", "adapter"), "abc"),
            (("stopping",), "soon"),
            (("colour",), "red"),
        ],
    )
    def test_it_refuses_what_the_reader_refuses(self, path: tuple[str, ...], value: Any) -> None:
        """What the reader refuses does not fit, as far as a schema can say it."""
        document = json.loads(CONTENT)
        place = document
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = value
        assert not self.VALIDATOR.is_valid(document)
        with pytest.raises(ProfileError):
            Profile.parse(json.dumps(document).encode())

    def test_effects_may_be_negative(self) -> None:
        """An effect is in [-1, 1], a rate in [0, 1]."""
        effect = Effect(estimate=-1, lower=-1, upper=1, level=0.95, n=1, method="exact")
        assert effect.lower == -1.0
