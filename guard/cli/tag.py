"""`guard tag`: sign a risk profile, verify a tag, show one.

This module does not know how a tag is signed or verified.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path  # noqa: TC003  # typer reads it
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.table import Table
from rich.text import Text

from guard.audit.deploy import highest_class, unmet
from guard.audit.errors import DeploymentRefused, TagError, UnreadableTag
from guard.audit.exact import moment_text
from guard.audit.keys import SHORT
from guard.audit.profile import Effect, Fingerprint, Profile, read_text
from guard.audit.tag import LONGEST, Claims, Tag, sign, verify
from guard.cli.keys import JsonOption, read_private
from guard.cli.screen import console, errors, fail, plain, plain_text, reported_errors
from guard.errors import InputError
from guard.percent import percent
from guard.policy import builtin_classes, load_class, load_classes

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from guard.audit.profile import Rate
    from guard.audit.tag import VerifiedTag
    from guard.security_class import SecurityClass

REFUSED: Final = 1
"""Exit code where a tag is not good, or a profile not good enough."""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Sign what a model has shown, and check it where the model is deployed.\n\n"
    "A tag says: this model, with this system prompt and adapter, may be deployed up to this "
    "security class, until this date. See docs/tags.md.",
)

_ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class", "-c", help="A built-in class, or a policy file (`file.yaml#name`).", metavar="C"
    ),
]


@app.command("sign")
@reported_errors()
def sign_profile(
    profile: Annotated[
        Path, typer.Argument(help="The risk profile that `guard audit` wrote, or its folder.")
    ],
    key: Annotated[
        list[Path],
        typer.Option(
            "--key", metavar="FILE", help="The signer's private key (repeatable: both sign)."
        ),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the tag is written.")],
    security_class: _ClassOption = None,
    days: Annotated[
        int, typer.Option("--days", min=1, max=LONGEST.days, help="How long it is valid.")
    ] = 90,
    force: Annotated[bool, typer.Option("--force", help="Overwrite FILE.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Sign a profile for the class that it is good enough for.

    Without `--class` that is the highest built-in class whose `deploy` limits, and those of
    every class below it, the profile's upper bounds meet; of a policy file with several
    classes the highest likewise.

    Exit code: 0 signed, 1 the profile is not good enough (every unmet limit is named), 2 a
    file or a name is wrong.

        guard tag sign profile.json --class public --key release.key --out model.tag
    """
    if out.exists() and not force:
        fail(f"{out} is there already. Give `--force` to overwrite it, or another name")
    audited = Profile.read(profile / "profile.json" if profile.is_dir() else profile)
    keys = [read_private(path) for path in key]
    with _refusals(as_json=as_json):
        target = _target(audited, security_class)
        tag = sign(audited, target, keys[0], validity=timedelta(days=days))
    for other in keys[1:]:
        tag = tag.signed_by(other)
    tag.write(out)
    claims = tag.unverified_claims()
    if as_json:
        signers = [one.id for one in keys]
        typer.echo(json.dumps({"tag": str(out), "signed_by": signers} | _plain(claims)))
        return
    console.print(plain_text(f"{out}: {_summary(claims)}"), soft_wrap=True)


@app.command("verify")
@reported_errors()
def verify_tag(
    tag: Annotated[Path, typer.Argument(help="The tag.")],
    trust: Annotated[
        list[Path],
        typer.Option("--trust", metavar="FILE", help="A public key to trust (repeatable)."),
    ],
    security_class: _ClassOption = None,
    model: Annotated[
        str | None, typer.Option("--model", help="The deployed model's id.", metavar="ID")
    ] = None,
    system_prompt: Annotated[
        Path | None,
        typer.Option("--system-prompt", metavar="FILE", help="Its exact text; none by default."),
    ] = None,
    adapter: Annotated[
        Path | None,
        typer.Option("--adapter", metavar="PATH", help="Its adapter weights; none by default."),
    ] = None,
    tools: Annotated[
        Path | None,
        typer.Option("--tools", metavar="FILE", help="Its tools, a JSON list; none by default."),
    ] = None,
    detectors: Annotated[
        bool,
        typer.Option("--detectors", help="Hold it against the detectors that `--class` has here."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Check a tag: signature and time, and whatever else you name.

    With `--model` all of the deployment is held against it: a system prompt, adapter or tools
    that you do not name count as "has none". With `--class` the figures are held against the
    class's limits as they are here. What was not checked is said.

    Exit code: 0 the tag is good, 1 it is not, 2 a file or a name is wrong.

        guard tag verify model.tag --trust release.pub --class public --model my-model
    """
    own = None if security_class is None else load_class(security_class)
    if detectors and own is None:
        fail("`--detectors` needs a `--class` that says which detectors there are")
    fingerprint = _fingerprint(model, system_prompt, adapter, tools)
    with _refusals(as_json=as_json):
        verified = verify(
            tag,
            trust,
            fingerprint=fingerprint,
            detectors=_detectors(own) if detectors and own else None,
            security_class=own,
        )
    checked = {"model": fingerprint is not None, "detectors": detectors, "class": own is not None}
    _report(verified, [name for name, done in checked.items() if not done], as_json=as_json)


@app.command()
@reported_errors()
def show(
    tag: Annotated[Path, typer.Argument(help="The tag.")],
    as_json: JsonOption = False,
) -> None:
    """Show what a tag says. Nothing is verified here: anybody can write such a file.

    guard tag show model.tag
    """
    opened = Tag.read(tag)
    claims = opened.unverified_claims()
    signatures = [item.keyid for item in opened.signatures]
    if as_json:
        typer.echo(json.dumps({"verified": False, "signed_by": signatures, **_plain(claims)}))
        return
    console.print(_head(claims, signatures))
    console.print(_figures(claims.profile))
    for what, why in claims.profile.not_covered.items():
        console.print(plain_text(f"not covered: {what}: {why}", "yellow"), soft_wrap=True)
    errors.print("Not verified: `guard tag verify` tells whether it is genuine.", markup=False)


@contextmanager
def _refusals(*, as_json: bool = False) -> Iterator[None]:
    """End the command with exit code 1 where a tag, or a profile, is not good enough."""
    try:
        yield
    except UnreadableTag as error:
        fail(str(error))
    except TagError as error:
        if as_json:
            name = type(error).__name__
            typer.echo(json.dumps({"valid": False, "error": name, "message": str(error)}))
        else:
            label = Text.assemble(("refused: ", "bold red"), plain(str(error)))
            errors.print(label, soft_wrap=True)
        raise typer.Exit(REFUSED) from error


def _target(profile: Profile, source: str | None) -> SecurityClass:
    """Return the class to sign for: the one that is named, or the highest that is reached."""
    classes = builtin_classes() if source is None else load_classes(source)
    if len(classes) == 1:
        return classes[0]
    if (found := highest_class(profile, classes)) is not None:
        return found
    asking = sorted((c for c in classes if c.deploy is not None), key=lambda item: item.rank)
    if not asking:
        raise InputError("none of the classes has a `deploy` section: add one to the policy")
    lowest = next(item for item in asking if unmet(profile, item))
    raise DeploymentRefused(
        f"the profile reaches no class; the lowest that it misses is `{lowest.name}`",
        unmet(profile, lowest),
    )


def _fingerprint(
    model: str | None, system_prompt: Path | None, adapter: Path | None, tools: Path | None
) -> Fingerprint | None:
    if model is None:
        if system_prompt or adapter or tools:
            fail("name the `--model` that has this system prompt, adapter or tools")
        return None
    return Fingerprint.of(
        model,
        system_prompt=None if system_prompt is None else read_text(system_prompt),
        adapter=adapter,
        tools=None if tools is None else _tools(tools),
    )


def _tools(path: Path) -> list[Any]:
    try:
        found = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise InputError(f"`{path}` is not JSON: {error}") from error
    if not isinstance(found, list):
        raise InputError(f"`{path}` must hold a JSON list: the tools as the backend gets them")
    return found


def _detectors(security_class: SecurityClass) -> Mapping[str, str]:
    from guard.loading import load_parts  # noqa: PLC0415  # help must not wait for it

    # A guard would refuse to load without the tag that is looked at here.
    parts = load_parts(security_class, None, None, (), ())
    return {detector.name: detector.version for detector in parts.detectors}


def _report(verified: VerifiedTag, unchecked: Sequence[str], *, as_json: bool) -> None:
    claims = verified.claims
    if as_json:
        facts = {"valid": True, "signed_by": verified.signers, "not_checked": unchecked}
        typer.echo(json.dumps(facts | _plain(claims)))
        return
    signers = ", ".join(key[:SHORT] for key in verified.signers)
    line = Text.assemble(
        ("good: ", "bold green"), plain(_summary(claims)), f"; signed by {signers}"
    )
    console.print(line, soft_wrap=True)
    if unchecked:
        console.print(f"not checked: {', '.join(unchecked)}")


def _summary(claims: Claims) -> str:
    limit = claims.security_class
    return (
        f"{claims.profile.fingerprint.model} up to class {limit.name} (rank {limit.rank}), "
        f"from {moment_text(claims.not_before)} until {moment_text(claims.not_after)}"
    )


def _plain(claims: Claims) -> dict[str, Any]:
    return claims.model_dump(mode="json")


def _head(claims: Claims, signatures: Iterable[str]) -> Table:
    profile, limit = claims.profile, claims.security_class
    fingerprint = profile.fingerprint
    sampling = fingerprint.sampling
    rows = {
        "model": fingerprint.model,
        "system prompt": _hash(fingerprint.system_prompt),
        "adapter": _hash(fingerprint.adapter),
        "tools": _hash(fingerprint.tools),
        "sampling": "set by each request" if sampling is None else json.dumps(dict(sampling)),
        "up to class": f"{limit.name} (rank {limit.rank})",
        "valid": f"{moment_text(claims.not_before)} until {moment_text(claims.not_after)}",
        "audited": f"{moment_text(profile.date)}, stopping {profile.stopping}",
        "probes": ", ".join(f"{item.name} {item.version}" for item in profile.probes),
        "detectors": ", ".join(f"{name} {version}" for name, version in profile.detectors.items()),
        "profile": claims.profile_digest,
        "signed by": ", ".join(key[:SHORT] or "somebody" for key in signatures),
    }
    table = Table(box=None, show_header=False, pad_edge=False)
    for name, value in rows.items():
        table.add_row(name, plain_text(value))
    return table


def _figures(profile: Profile) -> Table:
    table = Table("", "figure")
    for name in ("estimate", "lower", "upper", "n"):
        table.add_column(name, justify="right")
    groups: dict[str, Mapping[str, Rate] | Mapping[str, Effect]] = {
        "category": profile.categories,
        "mechanism": profile.mechanisms,
        "effect": profile.effects,
    }
    for kind, figures in groups.items():
        for name, item in figures.items():
            estimate = item.estimate if isinstance(item, Effect) else item.rate
            shares = map(percent, (estimate, item.lower, item.upper))
            table.add_row(kind, name, *shares, str(item.n))
    return table


def _hash(digest: str | None) -> str:
    return "none" if digest is None else f"sha256 {digest}"
