"""`guard check`: what goes in, what comes out, and the exit code."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from guard.cli import app
from guard.journal.store import Journal

if TYPE_CHECKING:
    from typer.testing import Result

FINE = "Water the basil from below and let it drain."
KEY = "sk_" + "live_" + "4eC39HqLyjWDarjtT1zdp7dc"
LEAK = f"Use this: api_key = '{KEY}' and it will work."

BLOCKING = """\
version: 1
classes:
  - name: strict
    rank: 9
    limits:
      secret_leak: {flag: 0.3, act: 0.5, remedy: block}
    messages:
      en: {blocked: "Held back.", replaced: "Replaced."}
"""


def _line(text: str) -> str:
    return json.dumps({"response": text})


def run(*arguments: str, stdin: str | bytes = "") -> Result:
    """Run `guard check` with the given arguments."""
    return CliRunner().invoke(app, ["check", *arguments], input=stdin)


def verdicts(result: Result) -> list[dict[str, Any]]:
    """Return the JSON lines on standard output."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def process(*arguments: str, stdout: Any) -> subprocess.CompletedProcess[str]:
    """Run `guard check` as a process of its own."""
    script = "import sys; from guard.cli import main; sys.argv[0] = 'guard'; main()"
    return subprocess.run(
        [sys.executable, "-c", script, "check", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=300,
        check=False,
    )


@pytest.fixture
def strict(tmp_path: Path) -> str:
    """Return the path of a class that blocks secrets and looks at nothing else."""
    path = tmp_path / "strict.yaml"
    path.write_text(BLOCKING, "utf-8")
    return str(path)


@pytest.fixture
def answers(tmp_path: Path) -> Path:
    """Return a file of five lines: fine, broken, a leak, a wrong type, choices."""
    path = tmp_path / "answers.jsonl"
    lines = [
        json.dumps({"id": "a", "prompt": "Basil?", "response": FINE}),
        '{"response": "never closed',
        json.dumps({"id": 7, "response": LEAK}),
        json.dumps({"response": 12}),
        json.dumps({"choices": [{"message": {"content": FINE}}, {"message": {"content": LEAK}}]}),
    ]
    path.write_text("\n".join(lines) + "\n\n", "utf-8")
    return path


class TestJsonLines:
    """One exchange a line."""

    def test_bad_lines_are_named_and_the_rest_is_judged(self, answers: Path, strict: str) -> None:
        """Every line has its result in order; bad ones say what is wrong; the exit code is 2."""
        result = run(str(answers), "--class", strict, "-o", "jsonl")
        found = verdicts(result)
        assert [item["line"] for item in found] == [1, 2, 3, 4, 5]
        assert [item.get("action") for item in found] == ["allow", None, "block", None, "block"]
        assert [item.get("id") for item in found] == ["a", None, 7, None, None]
        assert "not JSON" in found[1]["error"]
        assert "`response` must be text" in found[3]["error"]
        assert f"{answers}:2" in result.stderr
        assert result.exit_code == 2

    def test_blocked_is_exit_code_1(self, strict: str) -> None:
        """A blocked response among good lines gives 1."""
        lines = "\n".join(json.dumps({"response": text}) for text in (FINE, LEAK))
        result = run("--class", strict, stdin=lines)
        assert [item["action"] for item in verdicts(result)] == ["allow", "block"]
        assert verdicts(result)[1]["text"] is None
        assert result.exit_code == 1

    def test_blank_lines_before_the_first_do_not_make_it_text(self, strict: str) -> None:
        """Each line is one exchange, counted as in the file, and has its own verdict."""
        lines = "\r\n  \n" + "\n".join(json.dumps({"response": text}) for text in (FINE, LEAK))
        result = run("--class", strict, stdin=lines)
        assert [(item["line"], item["action"]) for item in verdicts(result)] == [
            (3, "allow"),
            (4, "block"),
        ]

    def test_a_broken_first_line_on_standard_input_is_named(self, strict: str) -> None:
        """An exchange behind it says that it is a line; the others have verdicts of their own."""
        lines = ['{"response": "cut', "", '{"response": }', *map(_line, (FINE, LEAK))]
        result = run("--class", strict, stdin="\n".join(lines))
        assert [(item["line"], item.get("action")) for item in verdicts(result)] == [
            (1, None),
            (3, None),
            (4, "allow"),
            (5, "block"),
        ]
        assert "-:1: not JSON" in result.stderr
        assert "say `--input text`" in result.stderr
        assert result.exit_code == 2

    @pytest.mark.parametrize("broken", ['{"response": "', '\ufeff{ "choices" : [', '{"id": 7, '])
    def test_a_broken_exchange_alone_is_judged_as_text(self, broken: str, strict: str) -> None:
        """Nothing is lost: all of it is judged, and how to read it as a line is said."""
        result = run("--class", strict, stdin=broken + LEAK)
        assert [item["action"] for item in verdicts(result)] == ["block"]
        assert "say `--input jsonl`" in result.stderr
        assert result.exit_code == 1

    @pytest.mark.parametrize("text", ["{ braces } ", "{\n", '{"a": \n{"b": 1}\n', "{x}\n{y}\n"])
    def test_a_text_that_begins_with_a_brace_is_one_text(self, text: str, strict: str) -> None:
        """Prose, code and JSON over many lines are judged whole, without a word."""
        result = run("--class", strict, stdin=text + LEAK)
        assert [(item["line"], item["action"]) for item in verdicts(result)] == [(None, "block")]
        assert "standard input" not in result.stderr

    def test_nothing_blocked_is_exit_code_0(self, strict: str) -> None:
        """Only good lines give 0."""
        result = run("--class", strict, stdin=json.dumps({"response": FINE}))
        assert result.exit_code == 0
        assert verdicts(result)[0]["text"] == FINE

    def test_compressed_files_and_several_files(self, tmp_path: Path, strict: str) -> None:
        """A `.gz` file is unpacked; results name their file."""
        packed = tmp_path / "b.jsonl.gz"
        packed.write_bytes(gzip.compress(json.dumps({"response": LEAK}).encode()))
        plain = tmp_path / "a.txt"
        plain.write_text(FINE, "utf-8")
        found = verdicts(run(str(plain), str(packed), "--class", strict))
        assert [(item["file"], item["action"]) for item in found] == [
            (str(plain), "allow"),
            (str(packed), "block"),
        ]

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b'{"response": "\xff"}', "not valid UTF-8"),
            (b"[1, 2]", "not a JSON object"),
            (b'{"prompt": "no answer"}', "`response`"),
            (b"[" * 100_000, "nested too deeply"),
            (b'{"choices": []}', "`choices`"),
            (b'{"response": "a", "n": ' + b"9" * 5000 + b"}", "too many digits"),
        ],
    )
    def test_what_is_wrong_is_said(
        self, line: bytes, problem: str, strict: str, tmp_path: Path
    ) -> None:
        """Each kind of bad line has its own words, and its neighbours are judged."""
        good = json.dumps({"response": FINE}).encode()
        path = tmp_path / "lines.jsonl"
        path.write_bytes(b"\n".join([good, line, good]))
        found = verdicts(run(str(path), "--class", strict))
        assert problem in found[1]["error"]
        assert [found[0]["action"], found[2]["action"]] == ["allow", "allow"]

    @pytest.mark.parametrize("first", ['{"n": ' + "9" * 5000 + "}", '{"n": ' + "[" * 100_000])
    def test_a_first_line_beyond_reading_is_still_a_line(self, first: str, strict: str) -> None:
        """On standard input it does not make one text of all that follows."""
        result = run("--class", strict, stdin=f"{first}\n" + json.dumps({"response": LEAK}))
        assert [item.get("action") for item in verdicts(result)] == [None, "block"]
        assert result.exit_code == 2

    @pytest.mark.parametrize("name", ["b.jsonl.gz", "b.gz"])
    def test_a_damaged_packed_file(self, name: str, tmp_path: Path, strict: str) -> None:
        """A good header with bad data behind it is bad input, and the next file is judged."""
        packed = tmp_path / name
        content = gzip.compress(json.dumps({"response": FINE}).encode())
        packed.write_bytes(content[:10] + b"\xff" * 40)
        plain = tmp_path / "a.txt"
        plain.write_text(FINE, "utf-8")
        result = run(str(packed), str(plain), "--class", strict)
        assert "cannot be read" in verdicts(result)[0]["error"]
        assert (verdicts(result)[1]["action"], result.exit_code) == ("allow", 2)

    def test_awkward_text_is_judged(self, strict: str) -> None:
        """Empty text, NUL and lone surrogates are text like any other."""
        lines = '{"response": ""}\n{"response": "a\\u0000b"}\n{"response": "\\ud800 x"}'
        result = run("--class", strict, stdin=lines)
        assert [item["action"] for item in verdicts(result)] == ["allow"] * 3


class TestText:
    """One response a file."""

    def test_blank_lines_are_part_of_a_text(self, strict: str) -> None:
        """What is judged is what came, and of blank lines alone as well."""
        (found,) = verdicts(run("--class", strict, stdin=f"\n \n{FINE}\n\n"))
        assert found["text"] == f"\n \n{FINE}\n\n"
        (found,) = verdicts(run("--class", strict, stdin="\n \n"))
        assert found["text"] == "\n \n"

    def test_standard_input(self, strict: str) -> None:
        """Text on standard input is one response, however many lines it has."""
        (found,) = verdicts(run("--class", strict, stdin=f"{FINE}\n\n{LEAK}\n"))
        assert (found["action"], found["file"], found["line"]) == ("block", "-", None)

    def test_invalid_utf8_names_the_line(self, tmp_path: Path, strict: str) -> None:
        """A file that is not UTF-8 is refused with its line."""
        path = tmp_path / "latin.txt"
        path.write_bytes("fine\nMünster".encode("latin-1"))
        result = run(str(path), "--class", strict)
        (found,) = verdicts(result)
        assert found["line"] == 2
        assert "UTF-8" in found["error"]
        assert result.exit_code == 2

    @pytest.mark.parametrize("code", ["utf-16-le", "utf-16-be"])
    def test_utf_16_behind_its_mark(self, code: str, tmp_path: Path, strict: str) -> None:
        """As PowerShell writes it: a text, JSON lines, and either on standard input."""
        rows = "\r\n".join(json.dumps({"response": text}) for text in (FINE, LEAK))
        files = {name: tmp_path / name for name in ("a.txt", "a.jsonl")}
        for path, text in zip(files.values(), (LEAK, rows), strict=True):
            path.write_bytes(f"\ufeff{text}\r\n".encode(code))
        result = run(*map(str, files.values()), "--class", strict)
        assert [item["action"] for item in verdicts(result)] == ["block", "allow", "block"]
        for path, count in zip(files.values(), (1, 2), strict=True):
            with path.open("rb") as stdin:
                done = subprocess.run(
                    [sys.executable, "-m", "guard", "check", "--class", strict, "-o", "jsonl"],
                    stdin=stdin,
                    capture_output=True,
                    timeout=300,
                    check=False,
                )
            assert (done.returncode, len(done.stdout.splitlines())) == (1, count)

    def test_a_missing_file_does_not_stop_the_others(self, tmp_path: Path, strict: str) -> None:
        """What cannot be opened is an error of its own."""
        path = tmp_path / "there.txt"
        path.write_text(FINE, "utf-8")
        result = run(str(tmp_path / "gone.txt"), str(path), "--class", strict)
        found = verdicts(result)
        assert "cannot be read" in found[0]["error"]
        assert found[1]["action"] == "allow"
        assert result.exit_code == 2

    def test_the_system_prompt_is_protected(self) -> None:
        """`--system` is what must not be repeated."""
        secret = "Never tell anybody that the blue door at the back is open on Thursday evenings."
        result = run("--system", secret, "-o", "jsonl", stdin=f"It says: {secret}")
        (found,) = verdicts(result)
        assert found["action"] == "rewrite"
        assert "blue door" not in found["text"]


class TestTable:
    """For people."""

    def test_one_text_is_shown_at_length(self, strict: str) -> None:
        """A single verdict shows reason and what may leave."""
        result = run("--class", strict, "-o", "table", stdin=LEAK)
        assert "secret_leak" in result.stdout
        assert "Held back." in result.stdout
        assert KEY not in result.stdout

    def test_many_are_counted(self, answers: Path, strict: str) -> None:
        """Allowed ones are left out of the table unless asked for, and counted below."""
        short = run(str(answers), "--class", strict, "-o", "table")
        assert "5 judged under class strict: 1 allow, 2 block, 2 bad" in short.stdout
        long = run(str(answers), "--class", strict, "-o", "table", "--all")
        assert len(long.stdout.splitlines()) > len(short.stdout.splitlines())

    @pytest.mark.parametrize("output", ["table", "jsonl"])
    def test_nothing_to_judge_is_an_error(self, output: str, tmp_path: Path, strict: str) -> None:
        """An empty file of lines is not a success."""
        path = tmp_path / "none.jsonl"
        path.write_text("\n", "utf-8")
        result = run(str(path), "--class", strict, "-o", output)
        assert (result.exit_code, "nothing to judge" in result.stderr) == (2, True)

    @pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
    @pytest.mark.parametrize("form", ["auto", "text"])
    @pytest.mark.parametrize("name", ["none.txt", "none.txt.gz", "-"])
    def test_an_empty_text_is_nothing(
        self, content: bytes, form: str, name: str, tmp_path: Path, strict: str
    ) -> None:
        """Neither is an empty text, in a file or from a command that wrote nothing."""
        place = name if name == "-" else str(tmp_path / name)
        if name != "-":
            packed = gzip.compress(content) if name.endswith(".gz") else content
            Path(place).write_bytes(packed)
        result = run(place, "--class", strict, "--input", form, "-o", "jsonl", stdin=content)
        assert (result.exit_code, "nothing to judge" in result.stderr) == (2, True)
        assert result.stdout == ""

    def test_an_empty_text_among_others(self, tmp_path: Path, strict: str) -> None:
        """The others are judged."""
        paths = [tmp_path / "none.txt", tmp_path / "some.txt"]
        for path, text in zip(paths, ["", FINE], strict=True):
            path.write_text(text, "utf-8")
        result = run(*map(str, paths), "--class", strict, "-o", "jsonl")
        assert [(item["file"], item["action"]) for item in verdicts(result)] == [
            (str(paths[1]), "allow")
        ]
        assert result.exit_code == 0


class TestProcess:
    """Exit codes that only a process of its own has."""

    def test_a_detector_that_overran_does_not_abort(self, tmp_path: Path) -> None:
        """The classifier is still in a pass when all is done: the code is that of a block."""
        policy, text = tmp_path / "policy.yaml", tmp_path / "dense.txt"
        policy.write_text(
            BLOCKING.replace("secret_leak:", "violence:").replace(
                "    limits", "    timeout_seconds: 0.1\n    limits"
            ),
            "utf-8",
        )
        text.write_text("x+y=" * 1100, "utf-8")
        done = process(str(text), "--class", str(policy), stdout=subprocess.PIPE)
        assert done.returncode == 1, done.stderr
        assert json.loads(done.stdout)["coverage"]["detectors"]["clearance-minilm"] == "timed_out"

    @pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full device here")
    @pytest.mark.parametrize("output", ["table", "jsonl"])
    def test_results_that_cannot_be_written(self, output: str, answers: Path, strict: str) -> None:
        """A full disk is not "something was blocked"."""
        with Path("/dev/full").open("wb") as full:
            done = process(str(answers), "--class", strict, "-o", output, stdout=full)
        assert (done.returncode, "cannot be written" in done.stderr) == (2, True)

    @pytest.mark.parametrize("output", ["table", "jsonl"])
    def test_a_reader_that_went_away(self, output: str, answers: Path, strict: str) -> None:
        """Neither is a closed pipe; nobody is told that it is closed."""
        reading, writing = os.pipe()
        os.close(reading)
        done = process(str(answers), "--class", strict, "-o", output, stdout=writing)
        os.close(writing)
        assert done.returncode == 2
        assert "Error" not in done.stderr


class TestModule:
    """`python -m guard`."""

    def test_it_is_the_command(self) -> None:
        """The package runs as its script does."""
        done = subprocess.run(
            [sys.executable, "-m", "guard", "check"],
            input=FINE,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "allow" in done.stdout


class TestSetUp:
    """Class, model and journal."""

    def test_the_journal_is_asked_for(self, tmp_path: Path, strict: str) -> None:
        """Rows are kept where the option says, and nowhere without it."""
        place = tmp_path / "kept.sqlite3"
        run("--class", strict, stdin=LEAK)
        assert not place.exists()
        (found,) = verdicts(run("--class", strict, "--journal", str(place), stdin=LEAK))
        assert Journal(place).get(found["record"]).action == "block"

    def test_an_unknown_class_is_explained(self) -> None:
        """The error names the classes that there are."""
        result = CliRunner().invoke(app, ["check", "--class", "publik"], input=FINE)
        assert result.exit_code != 0
        assert "did you mean `public`" in str(result.exception)

    def test_help_teaches(self) -> None:
        """`--help` shows the exit codes and an example."""
        text = run("--help").stdout
        assert "Exit code" in text
        assert "guard check answers.jsonl" in text
