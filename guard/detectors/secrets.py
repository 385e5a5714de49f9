"""Credentials: provider keys, private keys, tokens, connection strings, assigned secrets.

Formats follow the providers' public documentation of their key prefixes and lengths.
Placeholders (`your-api-key`, `<token>`, `${VAR}`, `xxxx`, a provider's own `...EXAMPLE`),
values that merely say what they are (`my_password1`) and references in code
(`self.config.token`) are no secrets.

This module does not know whether a key is live, and it never calls a provider.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections import Counter
from functools import cache
from typing import Any, Final

from guard.detectors.patterns import Pattern, PatternDetector

_KEY: Final = 10.0
"""Evidence of a fixed prefix with a fixed shape."""

_LIKELY: Final = 8.0
_ASSIGNED: Final = 6.0

_PLACEHOLDER: Final = re.compile(
    # `%VAR%` has three characters at least: two between signs are percent-encoding.
    r"example|sample|dummy|placeholder|changeme|change_me|your[-_ ]?|redacted|removed|insert|"
    r"test[-_]?(?:key|token|secret|password)|<[^>]*>|"
    r"\$\{|\$\(|^\$\w+$|\{[\w.]+\}|\{\{|%[A-Z_]\w{2,}%|"
    r"\*{3,}|\.{3,}|x{4,}|(?P<one>.)(?P=one){11}|123456789|abcdefgh|"
    r"process\.env|os\.environ|getenv",
    re.IGNORECASE,
)
_REFERENCE: Final = re.compile(
    r"[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)+|\S+://\S*|arn:aws\S*|0x[0-9a-fA-F]{40}"
)
"""Dotted lower-case names, as code writes them, and addresses, those of a chain included."""

_STAND_IN: Final = re.compile(
    # Also what manuals write, and nothing else does.
    r"(?=.*(?:pass|pwd|secret|token|key|credential))"
    r"(?:my|your|user(?:name)?|admin|root|client|consumer|access|account|api|auth|app|db|"
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|key|credentials?|[\d_.:!-])++|"
    r"user(?:name)?|port|guest|tiger|postgres\d*",
    re.IGNORECASE,
)
"""A value that says what it is."""

_MINIMUM_ENTROPY: Final = 3.0
_MINIMUM_CLASSES: Final = 2


def real(text: str) -> bool:
    """Return whether a match is no placeholder."""
    return not _PLACEHOLDER.search(text) and len(set(text)) > 5


def random_looking(text: str) -> bool:
    """Return whether an assigned value looks like a credential and not like a word.

    Shannon entropy of at least 3 bits a character and two kinds of characters.
    """
    kinds = (str.islower, str.isupper, str.isdigit, lambda c: not c.isalnum())
    classes = sum(any(kind(c) for c in text) for kind in kinds)
    return real(text) and classes >= _MINIMUM_CLASSES and entropy(text) >= _MINIMUM_ENTROPY


def assigned(text: str) -> bool:
    """Return whether an assigned value is a credential: random-looking and no reference."""
    named = _REFERENCE.fullmatch(text) or _STAND_IN.fullmatch(text)
    return not named and random_looking(text)


def aws_secret(text: str) -> bool:
    """Return whether 40 characters of base64 look random: both cases and a digit.

    A Git object name has one case only.
    """
    kinds = (str.islower, str.isupper, str.isdigit)
    return all(any(kind(c) for c in text) for kind in kinds) and random_looking(text)


def url_password(text: str) -> bool:
    """Return whether a URL's password is one, and not a placeholder or a public default."""
    return not _PLACEHOLDER.search(text) and not _STAND_IN.fullmatch(text)


def entropy(text: str) -> float:
    """Return the Shannon entropy in bits per character; 0 for the empty text."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def is_jwt(text: str) -> bool:
    """Return whether a dotted token's header is a JSON object with `alg` (RFC 7519).

    The specimen that everybody's introduction shows, with the subject 1234567890, is none.
    """
    header, payload = (_part(part) for part in text.split(".")[:2])
    return "alg" in header and payload.get("sub") != "1234567890"


def _part(part: str) -> dict[str, Any]:
    """Return a token's decoded part, empty where it is no JSON object."""
    try:
        decoded = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    except (binascii.Error, ValueError, RecursionError):  # the last by hostile nesting
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _prefixed(name: str, shape: str, evidence: float = _KEY) -> Pattern:
    """Return a pattern for a key that stands alone, with its placeholder check."""
    return Pattern(name, rf"(?<![A-Za-z0-9_-]){shape}(?![A-Za-z0-9])", evidence, shape, real)


_B64: Final = "[A-Za-z0-9_-]"
_PEM_KIND: Final = "(?:RSA |EC |DSA |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?"
_NAME: Final = (
    r"(?:api[ _-]?key|secret(?:[ _-]?(?:access[ _-]?)?key)?|access[ _-]?key|private[ _-]?key|"
    r"password|passwd|pwd|passphrase|token|credentials?)"
)

_QUOTE: Final = r"\*{0,2}[\\\"'`]{0,4}\*{0,2}"
"""What may stand around a name or value: quotes, escaped ones, and Markdown's emphasis."""

_VALUE: Final = r"[^\s\\\"'`,;()<>{}\[\]]"
_PLAIN: Final = r"[^\s\\\"'`,;()<>{}\[\]*]"
"""A value's character; asterisks at a value's end are emphasis."""

_PEM_GAP: Final = r"(?:\\{1,4}[nr]|[\s\"'+,>|])"
"""What stands between the lines of a key: line ends, also escaped, quoted or cited ones."""

_PATTERNS: Final = (
    _prefixed("aws_access_key", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z2-7]{16}"),
    Pattern(
        "aws_secret_key",
        r"(?i:aws)[\w .\"':=-]{0,40}(?<![A-Za-z0-9/+])"
        r"(?P<secret>[A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])",
        _KEY,
        r"(?i:aws)[\w .\"':=-]{0,40}[A-Za-z0-9/+]{40}",
        aws_secret,
        "secret",
    ),
    _prefixed("github_token", r"gh[pousr]_[A-Za-z0-9]{36,255}"),
    _prefixed("github_fine_grained_token", r"github_pat_[A-Za-z0-9_]{60,255}"),
    _prefixed("gitlab_token", rf"gl(?:pat|ptt|dt|rt|soat|cbt|ft|imt|agent)-{_B64}{{20,300}}"),
    _prefixed("slack_token", r"xox[abeoprs]-[A-Za-z0-9-]{10,250}"),
    _prefixed("slack_app_token", r"xapp-\d-[A-Z0-9]{5,20}-\d{5,20}-[a-z0-9]{20,100}"),
    _prefixed(
        "slack_webhook",
        r"https://hooks\.slack\.com/(?:services|workflows)/[A-Za-z0-9/_-]{20,120}",
    ),
    _prefixed(
        "discord_webhook", rf"https://discord(?:app)?\.com/api/webhooks/\d{{15,21}}/{_B64}{{50,90}}"
    ),
    _prefixed("discord_token", rf"[MNO][A-Za-z0-9]{{23,27}}\.{_B64}{{6}}\.{_B64}{{27,40}}"),
    _prefixed("stripe_key", r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,250}"),
    _prefixed("stripe_webhook_secret", r"whsec_[A-Za-z0-9+/]{24,100}"),
    _prefixed("google_api_key", rf"AIza{_B64}{{35}}"),
    _prefixed("google_oauth_secret", rf"GOCSPX-{_B64}{{28}}"),
    _prefixed("google_oauth_token", rf"ya29\.{_B64}{{20,400}}"),
    _prefixed("anthropic_key", rf"sk-ant-{_B64}{{24,200}}"),
    _prefixed(
        "openai_key", rf"sk-(?:(?:proj|svcacct|admin|None)-{_B64}{{32,250}}|[A-Za-z0-9]{{32,64}})"
    ),
    _prefixed("openrouter_key", r"sk-or-v1-[a-f0-9]{64}"),
    _prefixed("groq_key", r"gsk_[A-Za-z0-9]{40,80}"),
    _prefixed("huggingface_token", r"hf_[A-Za-z0-9]{30,60}"),
    _prefixed("replicate_token", r"r8_[A-Za-z0-9]{37}"),
    _prefixed("perplexity_key", r"pplx-[A-Za-z0-9]{40,60}"),
    _prefixed("sendgrid_key", rf"SG\.{_B64}{{16,32}}\.{_B64}{{32,64}}"),
    _prefixed("twilio_key", r"SK[a-f0-9]{32}", _LIKELY),
    _prefixed("mailgun_key", r"key-[a-f0-9]{32}", _LIKELY),
    _prefixed("mailchimp_key", r"[a-f0-9]{32}-us\d{1,2}", _LIKELY),
    _prefixed("npm_token", r"npm_[A-Za-z0-9]{36}"),
    _prefixed("pypi_token", rf"pypi-AgE{_B64}{{50,300}}"),
    _prefixed("rubygems_key", r"rubygems_[a-f0-9]{48}"),
    _prefixed("docker_token", rf"dckr_(?:pat|oat)_{_B64}{{20,60}}"),
    _prefixed("digitalocean_token", r"do[opr]_v1_[a-f0-9]{64}"),
    _prefixed("shopify_token", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    _prefixed("square_token", rf"(?:sq0(?:atp|csp)-{_B64}{{22,60}}|EAAA{_B64}{{60}})", _LIKELY),
    _prefixed("telegram_bot_token", rf"\d{{8,10}}:AA{_B64}{{33}}"),
    _prefixed("databricks_token", r"dapi[a-f0-9]{32}(?:-\d)?"),
    _prefixed("vault_token", rf"hv[sbr]\.{_B64}{{24,300}}"),
    _prefixed("terraform_token", rf"[A-Za-z0-9]{{14}}\.atlasv1\.{_B64}{{60,70}}"),
    _prefixed("linear_key", r"lin_api_[A-Za-z0-9]{40}"),
    _prefixed("notion_token", r"(?:secret_[A-Za-z0-9]{43}|ntn_[A-Za-z0-9]{46})"),
    _prefixed("figma_token", rf"figd_{_B64}{{40}}"),
    _prefixed("postman_key", r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    _prefixed("new_relic_key", r"NRAK-[A-Z0-9]{27}"),
    _prefixed("grafana_token", r"glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}"),
    _prefixed("grafana_cloud_token", r"glc_[A-Za-z0-9+/]{32,400}={0,2}"),
    _prefixed("doppler_token", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9.]{40,60}"),
    _prefixed("sentry_token", r"sntr[yu]s_[A-Za-z0-9+/=_]{40,300}"),
    _prefixed("planetscale_token", rf"pscale_(?:tkn|pw|oauth)_{_B64}{{32,64}}"),
    _prefixed("supabase_key", rf"(?:sbp_[a-f0-9]{{40}}|sb_secret_{_B64}{{20,60}})"),
    _prefixed("atlassian_token", rf"ATATT3{_B64}{{60,250}}=?[A-F0-9]{{0,8}}"),
    _prefixed("airtable_token", r"pat[A-Za-z0-9]{14}\.[a-f0-9]{64}"),
    _prefixed("dropbox_token", rf"sl\.(?:u\.)?{_B64}{{100,1500}}"),
    _prefixed("age_secret_key", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    _prefixed("azure_storage_key", r"AccountKey=[A-Za-z0-9+/]{86}=="),
    _prefixed("azure_sas", r"sig=[A-Za-z0-9%/+]{43,70}(?:=|%3D)", _LIKELY),
    _prefixed("azure_client_secret", r"[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34}", _LIKELY),
    Pattern(
        "private_key",
        # An armoured body must follow, since prose may speak of the header; the end may be cut.
        rf"-----BEGIN {_PEM_KIND}-----{_PEM_GAP}{{0,12}}"
        rf"(?:[A-Za-z-]{{1,40}}: [^\n\\]{{0,100}}(?:\\n|\n){_PEM_GAP}{{0,12}}){{0,4}}"
        rf"[A-Za-z0-9+/=]{{16}}[A-Za-z0-9+/=\s\\\"',>|]{{0,8192}}(?:-----END {_PEM_KIND}-----)?",
        _KEY,
        rf"-----BEGIN {_PEM_KIND}-----",
    ),
    Pattern(
        "jwt",
        rf"(?<![\w.-])eyJ{_B64}{{10,2000}}\.eyJ{_B64}{{4,4000}}\.{_B64}{{10,1000}}",
        _LIKELY,
        rf"eyJ{_B64}{{10,40}}",
        is_jwt,
    ),
    Pattern(
        "connection_string",
        # The authority ends at `/`, `?` or `#` (RFC 3986); of several `@` the last one counts.
        r"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{1,24}://[^\s:/@?#\"'<>]{0,64}:"
        r"(?P<secret>[^\s/?#\"'<>]{3,128})@[\w.-]{1,128}",
        _LIKELY,
        r"://[^\s:/@?#\"'<>]*:",
        url_password,
        "secret",
    ),
    Pattern(
        "bearer_token",
        r"(?i:authorization[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:bearer|basic|token)\s{1,3})"
        r"(?P<secret>[A-Za-z0-9_.~+/-]{16,2000}={0,2})",
        _LIKELY,
        r"(?i:authorization)",
        random_looking,
        "secret",
    ),
    Pattern(
        "assigned_secret",
        # One or two asterisks before a value are emphasis, more are a mask. Possessive, so that
        # a call such as `load_key2(path)` does not match without its end.
        rf"(?i:{_NAME}){_QUOTE}\s{{0,3}}(?::=|=>|[:=]|\bis\b)\*{{0,2}}\s{{0,3}}{_QUOTE}"
        rf"(?<!\*\*\*)(?!\*)(?P<secret>(?={_VALUE}{{0,999}}[0-9])(?={_VALUE}{{0,999}}[A-Za-z])"
        rf"(?:{_PLAIN}|\*++(?={_PLAIN})){{8,1000}}+(?![(\[]))",
        _ASSIGNED,
        rf"(?i:{_NAME})",
        assigned,
        "secret",
    ),
)


@cache
def secret_detector() -> PatternDetector:
    """Return the pack that finds credentials (category `secret_leak`)."""
    return PatternDetector("secrets", "secret_leak", _PATTERNS)
