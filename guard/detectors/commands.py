"""Passwords that stand in commands, as options of programs that take them there.

Programs and their options are those of the programs' manuals: `curl -u name:password`,
`mysql -pPASSWORD`, `sshpass -p PASSWORD`, `echo PASSWORD | sudo -S`. Options that are called
passwords (`--password x`, `PGPASSWORD=x`) are found as what is assigned (`secrets`).

This module does not know which words are no passwords.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from guard.detectors.patterns import Pattern

if TYPE_CHECKING:
    from collections.abc import Callable

NAME: Final = "command_password"
"""The label of what is found."""

_EVIDENCE: Final = 6.0

_WITHIN: Final = 200
"""Characters of a command before its password at most."""

_LINE: Final = rf"\b(?:\\\s{{0,2}}\n|[^\n]){{0,{_WITHIN}}}\Z"
"""The rest of a command up to its password; a backslash goes on in the next line."""

_ENDING: Final = r"\s\"'`|;&<>"
_VALUE: Final = (
    # In quotes only they end it, without them whatever ends a word of a shell.
    r"[\"']?(?P<secret>(?<=')(?:[^'\s]{6,1000}|[^'\n]{6,64})(?=')|"
    r"(?<=\")(?:[^\"\s]{6,1000}|[^\"\n]{6,64})(?=\")|"
    rf"(?<![\"'])[^{_ENDING}]{{6,1000}})"
)
_PAIR: Final = r"(?!//)(?P<secret>[^\s\"'`|;<>]{6,1000})"

_ALONE: Final = (
    r"sshpass|(?:docker|podman|nerdctl|buildah|skopeo|registry|az|oc)\s{1,3}login|mongo\w{0,10}|"
    r"redis-cli|sqlcmd|bcp|ldap\w{1,10}|winrs|plink|pscp|mosquitto_\w{3}"
)
"""Programs whose option has its password behind it, apart."""

_JOINED: Final = r"mysql\w{0,10}|mariadb[\w-]{0,10}|sshpass|7z[ar]?|(?:un)?rar"
"""Programs whose option has its password at once."""


def command_patterns(check: Callable[[str], bool]) -> tuple[Pattern, ...]:
    """Return the patterns.

    Args:
        check: returns whether what stands where a password does is one.
    """
    return (
        _option(
            rf"(?:-u\s{{0,2}}|-a\s{{1,2}}|--(?:proxy-user|user|auth)[\s=])[\"']?[^\s:\"'$]{{1,64}}:{_PAIR}",
            r"curl|https?",
            check,
        ),
        _option(
            rf"(?:-U\s{{0,2}}|--user[\s=])[\"']?[^\s%\"'$]{{1,64}}%{_PAIR}",
            "smb(?:client|get)|rpcclient|winexe",
            check,
        ),
        _option(rf"-(?:[paPw]\s{{1,2}}|p:|pw\s){_VALUE}", _ALONE, check),
        # Their small `-p` has no password: what is behind it is an archive.
        _option(rf"-P\s{{1,2}}{_VALUE}", "(?:un)?zip", check),
        _option(rf"-p{_VALUE}", _JOINED, check),
        Pattern(
            NAME,
            rf"(?<!\S){_VALUE}[\"']?\s{{1,2}}/(?:user:|add\b)",
            _EVIDENCE,
            r"(?i:\bnet1?(?:\.exe)?\s{1,3}use)",
            check,
            "secret",
            context=rf"\bnet1?(?:\.exe)?\s{{1,3}}user?{_LINE}",
            within=_WITHIN,
        ),
        Pattern(
            NAME,
            r"\becho\s{1,2}(?:-n\s)?[\"']?(?:[\w.-]{1,32}:)?(?P<secret>[^\s\"'`|]{6,48})"
            r"[\"']?\s{0,2}\|\s{0,2}(?:sudo\s{1,2})?"
            r"(?:-S\b|-\w\s-S\b|chpasswd\b|passwd\s--stdin|(?:docker|podman)\slogin)",
            _EVIDENCE,
            r"\becho\s",
            check,
            "secret",
        ),
    )


def _option(expression: str, programs: str, check: Callable[[str], bool]) -> Pattern:
    """Return the pattern for an option with a password behind one of the programs."""
    return Pattern(
        NAME,
        rf"(?<![\w-]){expression}",
        _EVIDENCE,
        rf"(?i:\b(?:{programs}))",
        check,
        "secret",
        context=rf"\b(?:{programs}){_LINE}",
        within=_WITHIN,
    )
