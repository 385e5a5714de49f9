"""`guard keys` and `guard tag`: from a profile to a tag that tells by its exit code."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from guard.audit.keys import SigningKey
from guard.audit.profile import Fingerprint, Profile
from guard.cli import app

if TYPE_CHECKING:
    from typer.testing import Result

    from guard import Guard

PROFILE = Path(__file__).parent.parent / "data" / "risk_profile.json"
PROMPT = "You help the customers of a garden centre."

CLASS = """\
  - name: {name}
    rank: {rank}
    limits:
      harmful_compliance: {{flag: 0.5, act: 0.9, remedy: block}}
    deploy:
      tag: required
      rates: {{harmful_compliance: {limit}, exposure: 0.02}}
      effects: {{style_amplification: 0.1}}
      samples: 200
    messages:
      en: {{blocked: "No.", replaced: "No."}}
"""


def run(*arguments: str | Path, passphrase: str | None = None, typed: str = "") -> Result:
    """Run `guard` with the given arguments."""
    variables = {"GUARD_KEY_PASSPHRASE": passphrase, "COLUMNS": "200"}
    return CliRunner().invoke(app, [str(item) for item in arguments], env=variables, input=typed)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with keys, a policy of three classes, a prompt and a tag."""
    ladder = (("internal", 2, 0.2), ("public", 3, 0.05), ("critical", 5, 0.001))
    classes = "".join(CLASS.format(name=n, rank=r, limit=limit) for n, r, limit in ladder)
    (tmp_path / "policy.yaml").write_text(f"version: 1\nclasses:\n{classes}", "utf-8")
    (tmp_path / "prompt.txt").write_text(PROMPT, "utf-8")
    SigningKey.new().write(tmp_path / "release")
    result = sign(tmp_path)
    assert result.exit_code == 0, result.output
    return tmp_path


def sign(
    folder: Path, *arguments: str | Path, source: str = "#public", out: str = "model.tag"
) -> Result:
    """Sign the profile with the folder's key for a class of its policy."""
    return run(
        *("tag", "sign", PROFILE, "--class", f"{folder / 'policy.yaml'}{source}"),
        *("--key", folder / "release.key", "--out", folder / out, *arguments),
    )


def verify(folder: Path, *arguments: str | Path) -> Result:
    """Verify the folder's tag with the folder's key."""
    return run("tag", "verify", folder / "model.tag", "--trust", folder / "release.pub", *arguments)


class TestKeys:
    """Making and showing keys."""

    def test_a_new_pair(self, tmp_path: Path) -> None:
        """Two files are there, the private one for its owner alone, and the id is shown."""
        result = run("keys", "new", "--out", tmp_path / "release")
        assert result.exit_code == 0
        key = SigningKey.read(tmp_path / "release.key")
        assert key.id in result.stdout
        assert "no passphrase" in result.stderr
        assert stat.S_IMODE((tmp_path / "release.key").stat().st_mode) == 0o600
        assert "PRIVATE" not in result.output

    def test_json(self, tmp_path: Path) -> None:
        """Id and files for programs; both halves have the same id."""
        made = json.loads(run("keys", "new", "--out", tmp_path / "release", "--json").stdout)
        for kind in ("private", "public"):
            shown = json.loads(run("keys", "show", made[kind], "--json").stdout)
            assert shown == {"id": made["id"], "kind": kind}
        assert run("keys", "show", made["public"]).stdout == f"{made['id']}  public\n"

    def test_nothing_is_overwritten(self, tmp_path: Path) -> None:
        """A second call with the same name fails and leaves the key as it was."""
        run("keys", "new", "--out", tmp_path / "release")
        before = (tmp_path / "release.key").read_bytes()
        result = run("keys", "new", "--out", tmp_path / "release")
        assert (result.exit_code, "is there already" in result.stderr) == (2, True)
        assert (tmp_path / "release.key").read_bytes() == before

    @pytest.mark.parametrize("out", ["", ".", "/"])
    def test_a_pair_has_a_name(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, out: str
    ) -> None:
        """Without one the files would be hidden ones in a folder that nobody meant."""
        monkeypatch.chdir(tmp_path)
        result = run("keys", "new", "--out", out)
        assert (result.exit_code, "add a name" in result.stderr) == (2, True)
        assert not list(tmp_path.iterdir())

    def test_a_passphrase_of_the_environment(self, tmp_path: Path) -> None:
        """The variable encrypts, and is needed again."""
        run("keys", "new", "--out", tmp_path / "release", passphrase="correct horse")
        private = tmp_path / "release.key"
        assert SigningKey.read(private, "correct horse")
        assert run("keys", "show", private, passphrase="correct horse").exit_code == 0
        for given, message in (("battery", "check the passphrase"), (None, "set `GUARD_KEY_PASS")):
            result = run("keys", "show", private, passphrase=given)
            assert (result.exit_code, message in result.stderr) == (2, True), result.output

    def test_a_passphrase_that_is_typed(self, tmp_path: Path) -> None:
        """It is asked for twice, whatever the environment says, and not shown."""
        named = ("keys", "new", "--out", tmp_path / "release", "--passphrase")
        result = run(*named, passphrase="other", typed="secret 1\nsecret 1\n")
        assert result.exit_code == 0
        assert "secret 1" not in result.output
        assert SigningKey.read(tmp_path / "release.key", "secret 1")

    def test_an_empty_variable_is_a_mistake(self, tmp_path: Path) -> None:
        """Nobody gets a plain key who wanted an encrypted one."""
        result = run("keys", "new", "--out", tmp_path / "release", passphrase="")
        assert (result.exit_code, "passphrase cannot be used" in result.stderr) == (2, True)
        assert not list(tmp_path.iterdir())

    def test_no_key(self) -> None:
        """A file that is no key is named."""
        result = run("keys", "show", PROFILE)
        assert (result.exit_code, "is no public key" in result.stderr) == (2, True)


class TestSign:
    """From a profile to a tag."""

    def test_what_was_signed_is_said(self, folder: Path) -> None:
        """Model, class and end are in the answer."""
        result = sign(folder, "--days", "30", "--force")
        assert "helper-7b up to class public (rank 3), from 20" in result.stdout
        claims = json.loads(run("tag", "show", folder / "model.tag", "--json").stdout)
        assert claims["security_class"]["name"] == "public"

    def test_json(self, folder: Path) -> None:
        """For programs: where the tag is, who signed it and what it says; what is refused, too."""
        told = json.loads(sign(folder, "--json", out="other.tag").stdout)
        key = SigningKey.read(folder / "release.key")
        assert (told["tag"], told["signed_by"]) == (str(folder / "other.tag"), [key.id])
        assert told["security_class"]["name"] == "public"
        refused = sign(folder, "--json", source="#critical", out="critical.tag")
        assert refused.exit_code == 1
        assert json.loads(refused.stdout)["error"] == "DeploymentRefused"

    def test_the_highest_class_of_a_policy(self, folder: Path) -> None:
        """Without a class of the file, the tag is for the highest that is reached."""
        result = sign(folder, source="", out="highest.tag")
        assert "up to class public (rank 3)" in result.stdout

    def test_not_good_enough(self, folder: Path) -> None:
        """Exit code 1, every unmet limit beside its figure, and no file."""
        result = sign(folder, source="#critical", out="critical.tag")
        assert result.exit_code == 1
        assert "refused: helper-7b cannot be signed for class `critical`" in result.stderr
        assert "harmful_compliance: upper bound 0.0310 is above the limit 0.001" in result.stderr
        assert not (folder / "critical.tag").exists()

    def test_no_class_is_reached(self, folder: Path) -> None:
        """The lowest class that is missed is named with what is missing."""
        policy = folder / "policy.yaml"
        policy.write_text(policy.read_text("utf-8").replace("0.2, exposure: 0.02", "0.01"), "utf-8")
        result = sign(folder, source="", out="none.tag")
        assert result.exit_code == 1
        assert "reaches no class; the lowest that it misses is `internal`" in result.stderr

    def test_no_class_asks_for_anything(self, folder: Path) -> None:
        """Classes without deploy limits cannot be signed for, one or several."""
        policy = folder / "policy.yaml"
        lines = policy.read_text("utf-8").splitlines()
        kept = [
            x for x in lines if not x.lstrip().startswith(("deploy", "tag", "rates", "eff", "sam"))
        ]
        policy.write_text("\n".join(kept), "utf-8")
        for source in ("", "#public"):
            result = sign(folder, source=source, out="none.tag")
            assert (result.exit_code, "`deploy` section" in result.stderr) == (2, True)

    def test_a_tag_is_not_overwritten_by_chance(self, folder: Path) -> None:
        """Neither a tag nor, say, the key is lost to a slip in `--out`."""
        before = (folder / "release.key").read_bytes()
        for out in ("model.tag", "release.key"):
            result = sign(folder, out=out)
            assert (result.exit_code, "Give `--force`" in result.stderr) == (2, True)
        assert (folder / "release.key").read_bytes() == before

    def test_the_folder_of_an_audit(self, folder: Path) -> None:
        """The profile in it is signed; where it has none, the file that is missing is named."""
        audited = folder / "audit"
        audited.mkdir()
        named = ("tag", "sign", audited, "--class", f"{folder / 'policy.yaml'}#public")
        given = (*named, "--key", folder / "release.key", "--out", folder / "other.tag")
        assert "profile.json" in run(*given).output
        (audited / "profile.json").write_bytes(PROFILE.read_bytes())
        assert run(*given).exit_code == 0

    def test_two_signers(self, folder: Path) -> None:
        """While keys are changed both sign, and either is enough."""
        SigningKey.new().write(folder / "next")
        sign(folder, "--key", folder / "next.key", "--force")
        for name in ("release.pub", "next.pub"):
            assert (
                run("tag", "verify", folder / "model.tag", "--trust", folder / name).exit_code == 0
            )

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--days", "0"), "--days"),
            (("--days", "367"), "--days"),
            (("--key", "missing.key"), "cannot be read"),
        ],
    )
    def test_wrong_calls(self, arguments: tuple[str, ...], message: str, folder: Path) -> None:
        """Exit code 2 and the reason."""
        result = sign(folder, *arguments, out="other.tag")
        assert (result.exit_code, message in result.stderr) == (2, True), result.output
        assert not (folder / "other.tag").exists()

    def test_a_file_that_is_no_profile(self, folder: Path) -> None:
        """Exit code 2, with everything that is wrong with it."""
        (folder / "profile.json").write_text("{}", "utf-8")
        result = run(
            *("tag", "sign", folder / "profile.json", "--class", "public"),
            *("--key", folder / "release.key", "--out", folder / "other.tag"),
        )
        assert result.exit_code == 2
        assert "`detectors` is missing: add it" in result.stderr


class TestVerify:
    """The exit code tells."""

    def test_a_good_tag(self, folder: Path) -> None:
        """Exit code 0; what was not held against it is said."""
        result = verify(folder)
        assert result.exit_code == 0
        assert "good: helper-7b up to class public (rank 3)" in result.stdout
        assert "not checked: model, detectors, class" in result.stdout

    def test_everything_that_is_named_is_checked(self, folder: Path) -> None:
        """With model, prompt and class these are no longer unchecked."""
        result = verify(
            folder,
            *("--model", "helper-7b", "--system-prompt", folder / "prompt.txt"),
            *("--class", f"{folder / 'policy.yaml'}#public", "--json"),
        )
        assert result.exit_code == 0
        facts = json.loads(result.stdout)
        key = SigningKey.read(folder / "release.key")
        assert (facts["valid"], facts["signed_by"]) == (True, [key.id])
        assert facts["not_checked"] == ["detectors"]
        assert facts["profile"]["fingerprint"]["model"] == "helper-7b"

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            (("--model", "helper-8b"), "WrongModel"),
            (("--model", "helper-7b"), "WrongPrompt"),
            (("--model", "helper-7b", "--system-prompt", "{}/policy.yaml"), "WrongPrompt"),
            (
                ("--model", "helper-7b", "--system-prompt", "{}/prompt.txt", "--adapter", "{}"),
                "WrongAdapter",
            ),
            (
                ("--model", "helper-7b", "--system-prompt", "{}/prompt.txt", "--tools", "{}/t"),
                "WrongTools",
            ),
            (("--class", "{}/policy.yaml#critical"), "ClassExceeded"),
        ],
    )
    def test_a_tag_for_something_else(
        self, arguments: tuple[str, ...], error: str, folder: Path
    ) -> None:
        """Exit code 1 and the error's name, for people and for programs."""
        (folder / "t").write_text('[{"name": "search"}]', "utf-8")
        named = [item.replace("{}", str(folder)) for item in arguments]
        result = verify(folder, *named, "--json")
        assert result.exit_code == 1
        facts = json.loads(result.stdout)
        assert (facts["valid"], facts["error"]) == (False, error)
        plain = verify(folder, *named)
        assert plain.exit_code == 1
        assert plain.stderr.startswith("refused: ")
        assert not plain.stdout

    def test_an_altered_tag(self, folder: Path) -> None:
        """A file in which something was changed, or that is none, is refused."""
        path = folder / "model.tag"
        envelope = json.loads(path.read_text("utf-8"))
        path.write_text(json.dumps(envelope | {"payloadType": "text/plain"}), "utf-8")
        assert "altered after it was signed" in verify(folder).stderr
        path.write_text("\x1b[31m{", "utf-8")
        result = verify(folder)
        assert (result.exit_code, "is not JSON" in result.stderr) == (1, True)

    @pytest.mark.parametrize("options", [(), ("--json",)])
    def test_no_file(self, options: tuple[str, ...], folder: Path) -> None:
        """A file that is missing, or a folder, says nothing of a tag: exit code 2."""
        path = folder / "model.tag"
        path.unlink()
        missing = verify(folder, *options)
        assert (missing.exit_code, "No such file" in missing.stderr) == (2, True)
        assert "give the file that `guard tag sign` wrote" in missing.stderr
        path.mkdir()
        assert verify(folder, *options).exit_code == 2

    def test_an_unknown_signer(self, folder: Path) -> None:
        """A tag by somebody else is refused."""
        SigningKey.new().write(folder / "other")
        result = run("tag", "verify", folder / "model.tag", "--trust", folder / "other.pub")
        assert (result.exit_code, "no trusted key has signed" in result.stderr) == (1, True)

    def test_stricter_limits(self, folder: Path) -> None:
        """Limits that were tightened after signing are held against the signed figures."""
        policy = folder / "policy.yaml"
        policy.write_text(policy.read_text("utf-8").replace("0.05", "0.03"), "utf-8")
        result = verify(folder, "--class", f"{policy}#public")
        assert result.exit_code == 1
        assert "upper bound 0.0310 is above the limit 0.03" in result.stderr

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (("--system-prompt", "{}/prompt.txt"), "name the `--model`"),
            (("--detectors",), "needs a `--class`"),
            (("--class", "pubilc"), "did you mean `public`?"),
            (("--model", "m", "--system-prompt", "{}/missing.txt"), "cannot be read"),
            (("--model", "m", "--tools", "{}/prompt.txt"), "is not JSON"),
            (("--model", "m", "--tools", "{}/object.json"), "must hold a JSON list"),
            (("--trust", "{}/release.key"), "is a private key"),
        ],
    )
    def test_wrong_calls(self, arguments: tuple[str, ...], message: str, folder: Path) -> None:
        """Exit code 2 and what to do: nothing was found out about the tag."""
        (folder / "object.json").write_text("{}", "utf-8")
        result = verify(folder, *(item.replace("{}", str(folder)) for item in arguments))
        assert (result.exit_code, message in result.stderr) == (2, True), result.output

    def test_the_detectors_of_this_place(self, folder: Path, real_guard: Guard) -> None:
        """A tag of the detectors that are here passes, one of others does not."""
        named = ("--class", f"{folder / 'policy.yaml'}#public", "--detectors")
        result = verify(folder, *named)
        assert (result.exit_code, "the audit's detectors are not" in result.stderr) == (1, True)
        here = Profile.read(PROFILE).model_copy(update={"detectors": real_guard.detectors})
        here.write(folder / "here.json")
        run(
            *("tag", "sign", folder / "here.json", "--class", f"{folder / 'policy.yaml'}#public"),
            *("--key", folder / "release.key", "--out", folder / "model.tag", "--force"),
        )
        assert verify(folder, *named).exit_code == 0


class TestShow:
    """What a tag says."""

    def test_for_people(self, folder: Path) -> None:
        """Everything that it binds, every figure, and that nothing was verified."""
        result = run("tag", "show", folder / "model.tag")
        assert result.exit_code == 0
        profile = Profile.read(PROFILE)
        for shown in (
            "helper-7b",
            f"sha256 {profile.fingerprint.system_prompt}",
            "public (rank 3)",
            "clearance-minilm 0.2.0",
            profile.digest(),
            *profile.categories,
            *profile.mechanisms,
            *profile.effects,
            "not covered: insecure_code: no probes ask for code",
        ):
            assert shown in result.stdout
        assert "9.4%" in result.stdout
        assert "Not verified" in result.stderr

    def test_for_programs(self, folder: Path) -> None:
        """The claims as JSON, marked as unverified."""
        facts = json.loads(run("tag", "show", folder / "model.tag", "--json").stdout)
        key = SigningKey.read(folder / "release.key")
        assert (facts["verified"], facts["signed_by"]) == (False, [key.id])
        assert facts["profile"] == json.loads(PROFILE.read_text("utf-8"))

    def test_hostile_text(self, folder: Path) -> None:
        """What a tag says is shown as text, whatever it would do to a terminal."""
        fingerprint = Fingerprint.of("\x1b[31mred[/] [bold]x")
        update = {"fingerprint": fingerprint, "not_covered": {"[b]": "\x1b[2J"}}
        Profile.read(PROFILE).model_copy(update=update).write(folder / "hostile.json")
        run(
            *(
                "tag",
                "sign",
                folder / "hostile.json",
                "--class",
                f"{folder / 'policy.yaml'}#public",
            ),
            *("--key", folder / "release.key", "--out", folder / "hostile.tag"),
        )
        shown = run("tag", "show", folder / "hostile.tag")
        assert shown.exit_code == 0
        assert "\x1b" not in shown.output
        assert "[bold]x" in shown.stdout

    def test_no_tag(self) -> None:
        """A file that is none ends with exit code 2."""
        result = run("tag", "show", PROFILE)
        assert (result.exit_code, "`payload` is missing" in result.stderr) == (2, True)
