"""Credentials: provider keys, private keys, tokens, connection strings, assigned secrets.

Formats follow the providers' public documentation of their key prefixes and lengths.
Placeholders (`your-api-key`, `<token>`, `${VAR}`, `xxxx`, a provider's own `...EXAMPLE`),
values that merely say what they are (`my_password1`), references in code
(`self.config.token`, `API_KEY_2`) and documented defaults (`test:test@`) are no secrets.

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

from guard.detectors.commands import command_patterns
from guard.detectors.patterns import Pattern, PatternDetector

_KEY: Final = 10.0
"""Evidence of a fixed prefix with a fixed shape."""

_LIKELY: Final = 8.0
_ASSIGNED: Final = 6.0

_PLACEHOLDER: Final = re.compile(
    # `%VAR%` has three characters at least: two between signs are percent-encoding.
    r"example|sample|dummy|placeholder|change[-_ ]?me|replace[-_ ]?(?:me|this|with)|"
    r"your[-_ ]?|abc123|redacted|removed|insert|"
    r"test[-_]?(?:key|token|secret|password)|<[^>]*>|"
    r"\$\{|\$\(|^\$\w+$|\{[\w.]+\}|\{\{|%[A-Z_]\w{2,}%|"
    r"^env:\w+$|\*{3,}|\.{3,}|x{4,}|(?P<one>.)(?P=one){11}|123456789|abcdefgh|"
    r"process\.env|os\.environ|getenv",
    re.IGNORECASE,
)
_REFERENCE: Final = re.compile(
    r"(?:Big)?(?:Ui|I)nt\d\d?(?:Clamped)?Array|"  # what code calls its bytes
    r"[a-z_][a-z0-9_]*(?:\.[a-z_][a-z0-9_]*)+|\S+://\S*|arn:aws\S*|0x[0-9a-fA-F]{40}"
)
"""Dotted lower-case names, as code writes them, and addresses, those of a chain included."""

_NAMES: Final = re.compile(
    r"\$?[A-Za-z_][\w$]*(?:\??\.[A-Za-z_$][\w$]*)+!?|"  # Config.API_KEY_2, user?.password2
    # kubernetes.io/tls-v1beta1
    r"[a-z-]+(?:\.[a-z-]+)+(?:[/._-](?:[a-z]{2,}\d{0,2}|v\d{1,2}(?:(?:alpha|beta)\d{1,2})?))+|"
    r"[A-Z]+\d{0,2}(?:_(?:[A-Z]+\d{0,2}|\d{1,2}))+",  # CLIENT_SECRET_2
    re.ASCII,
)
"""What code calls its settings; may be a random token by its characters, but see `_worded`."""

_WORD: Final = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_WORD_LENGTH: Final = 3

_PIECE: Final = re.compile(r"[A-Z]*[a-z]+|[A-Z]+|\d+|[^A-Za-z\d]+")
_PIECE_LENGTH: Final = 4
"""Characters of one case or kind in a row: names have more on average, random tokens fewer."""

_STAND_IN: Final = re.compile(
    # Also what manuals write, and nothing else does.
    r"(?=.*(?:pass|pwd|secret|token|key|credential))"
    r"(?:my|your|super|very|strong|wrong|default|jwt|session|user(?:name)?|admin|root|client|consumer|access|account|api|auth|app|db|"
    r"pass(?:word|wd|phrase|code)?|pwd|secret|token|key|credentials?|[\d_.:!-])++|"
    r"user(?:name)?|port|guest|tiger|postgres\d*",
    re.IGNORECASE,
)
"""A value that says what it is."""

_EASY: Final = re.compile(
    r"(?:foo|bar|baz|qux|asdf|qwerty|letmein|welcome|hello|demo|test|admin|root|guest)[\d_.:!@-]*",
    re.IGNORECASE,
)
"""What stands for any password."""

_SPELT: Final = str.maketrans("01345$@7", "oieassat")
"""Signs that `p@ssw0rd` has for letters."""

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
    if _REFERENCE.fullmatch(text) or _STAND_IN.fullmatch(text):
        return False
    return random_looking(text) and not (_NAMES.fullmatch(text) and _worded(text))


def _worded(text: str) -> bool:
    """Return whether the letters of a name make up words, and not the scraps of a random token.

    Words have three letters on average, and most of those that do have a vowel. Letters drawn at
    random change case, or give way to a digit, after fewer than two.
    """
    words = _WORD.findall(text)
    long = [word for word in words if len(word) >= _WORD_LENGTH]
    spoken = sum(bool(set(word.lower()) & set("aeiouy")) for word in long)
    return sum(map(len, words)) >= _WORD_LENGTH * len(words) > 0 and 2 * spoken > len(long)


def joined(text: str) -> bool:
    """Return whether a bare value is a credential, at least up to the first sign that may end it.

    What follows such a sign must not hide what stands before it.
    """
    if assigned(text):
        return True
    head = _HEAD.match(text)
    return head is not None and head.end() < len(text) and assigned(head[0])


def drawn(text: str) -> bool:
    """Return whether a value is a credential even where other things than values stand too.

    It is made up of no words in a row, as the name of a type or of another parameter is.
    """
    named = _worded(text) and len(_PIECE.findall(text)) <= 1 + len(text) / _PIECE_LENGTH
    return joined(text) and not named


def quoted(text: str) -> bool:
    """Return whether a value in quotes is a credential.

    It is where it would be one without them. With signs that end a bare value before that, it is
    one unless it is code: a call, JSON, a regular expression or a list.
    """
    head = _HEAD.match(text)
    if head is not None and text[head.end() :][:1] not in ("(", "["):
        return joined(text)
    mixed = any(c in _DIGITS for c in text) and any(c.isalpha() for c in text)
    return mixed and not _CODE.search(text) and assigned(text)


def aws_secret(text: str) -> bool:
    """Return whether 40 characters of base64 look random: both cases and a digit.

    A Git object name has one case only.
    """
    kinds = (str.islower, str.isupper, str.isdigit)
    return all(any(kind(c) for c in text) for kind in kinds) and random_looking(text)


def url_password(text: str) -> bool:
    """Return whether a URL's password is one, and not a placeholder or a public default."""
    return not _PLACEHOLDER.search(text) and not _STAND_IN.fullmatch(text)


def typed(text: str) -> bool:
    """Return whether what stands in a command for a password is one.

    People choose words there that no check of randomness would pass: a letter and a digit, or
    three kinds of characters, are enough, unless the whole says that it is no password.
    """
    plain = text.translate(_SPELT)
    if any(_STAND_IN.fullmatch(t) or _EASY.fullmatch(t) for t in (text, plain)):
        return False
    kinds = (str.islower, str.isupper, str.isdigit, lambda c: not c.isalnum())
    lower, upper, digit, sign = (any(kind(c) for c in text) for kind in kinds)
    mixed = (digit and (lower or upper)) or (sign and lower and upper)
    return mixed and real(text) and not _REFERENCE.fullmatch(text)


def entropy(text: str) -> float:
    """Return the Shannon entropy in bits per character; 0 for the empty text."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def encoded(text: str) -> bool:
    """Return whether base64 stands for a text with a credential in it."""
    plain = _plain(text)
    return bool(plain) and bool(secret_detector().find(plain))


def encoded_value(text: str) -> bool:
    """Return whether base64 stands for a credential, or for a text with one in it."""
    plain = _plain(text).removesuffix("\n")
    return (_VISIBLE.fullmatch(plain) is not None and assigned(plain)) or encoded(text)


def user_and_password(text: str) -> bool:
    """Return whether base64 stands for a user and a password (RFC 7617), and no specimen's."""
    user, _, password = _plain(text).partition(":")
    plain = user.lower() != password.lower() and url_password(password)
    specimen = (user.lower(), password.lower().replace(" ", "")) in _SPECIMENS
    return plain and len(password) >= _PASSWORD and not specimen


_PASSWORD: Final = 4
"""Characters of a password at least."""

_SPECIMENS: Final = frozenset({("aladdin", "opensesame"), ("test", "123\xa3")})
"""What RFC 7617 and everybody's introduction have, in lower case and without spaces."""

_VISIBLE: Final = re.compile(r"[!-~]{8,200}")
_TEXT: Final = re.compile(r"[\t\n\r -~]*")
_HEAD_LENGTH: Final = 32


def _plain(text: str) -> str:
    """Return the text that base64 stands for, empty where that is none.

    Images, hashes and keys themselves are none within their first few bytes.
    """
    head = _bytes(text[:_HEAD_LENGTH]).decode("latin-1")
    return _bytes(text).decode("utf-8", "replace") if _TEXT.fullmatch(head) else ""


def _bytes(text: str) -> bytes:
    """Return what base64 of either alphabet stands for; a last character too few is left out."""
    plain = text.rstrip("=").translate(_STANDARD)
    plain = plain[: len(plain) - (len(plain) % 4 == 1)]
    return base64.b64decode(plain + "=" * (-len(plain) % 4))


_STANDARD: Final = str.maketrans("-_", "+/")


def is_jwt(text: str) -> bool:
    """Return whether a dotted token's header is a JSON object with `alg` (RFC 7519).

    The specimen that everybody's introduction shows, with the subject 1234567890, is none.
    """
    header, payload = (_part(part) for part in text.split(".")[:2])
    return "alg" in header and payload.get("sub") != "1234567890"


def is_jwe(text: str) -> bool:
    """Return whether a dotted token's header says how what follows is encrypted (RFC 7516)."""
    header = _part(text.partition(".")[0])
    return "alg" in header and "enc" in header


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
_UUID: Final = "[a-f0-9]{8}(?:-[a-f0-9]{4}){3}-[a-f0-9]{12}"
_PEM_KIND: Final = "(?:RSA |EC |DSA |OPENSSH |ENCRYPTED |PGP )?PRIVATE KEY(?: BLOCK)?"
_SSH2_KIND: Final = "SSH2 (?:ENCRYPTED )?PRIVATE KEY"
_PEM_FIRST: Final = f"(?:-----BEGIN {_PEM_KIND}-----|---- BEGIN {_SSH2_KIND} ----)"
_PEM_LAST: Final = f"(?:-----END {_PEM_KIND}-----|---- END {_SSH2_KIND} ----)"
"""The signs of PEM (RFC 7468) and of what resembles it (RFC 4716)."""
_WORDS: Final = (
    r"api[ _-]?key|secret(?:[ _-]?(?:access[ _-]?)?key)?|access[ _-]?key|private[ _-]?key|"
    r"password|passwd|pwd|passphrase|token|credentials?|"
    # The same in other languages, whose texts are judged by patterns alone.
    "passwort|kennwort|mot de passe|contrase\u00f1a|senha|wachtwoord|l\u00f6senord|has\u0142o|"
    "\u043f\u0430\u0440\u043e\u043b\u044c|\u041f\u0430\u0440\u043e\u043b\u044c|"
    "\u5bc6[\u7801\u78bc]|\u30d1\u30b9\u30ef\u30fc\u30c9|\ube44\ubc00\ubc88\ud638"
)
_KEYS: Final = "(?:auth|encryption|signing|master|app|admin|consumer|application)[ _-]?key"
_NAME: Final = (
    rf"(?:{_WORDS}|(?<![a-zA-Z])(?:pass|pw)|"
    # Ciphers are named where such a key is: what is short may be `AES-256-GCM`.
    rf"{_KEYS}(?=(?:\W|is\b){{1,12}}\S{{16}}))"
)

_HEADS: Final = (
    *("api", "secret", "access", "private", "pass", "pw", "token", "credential", "kennwort"),
    *("mot de", "contrase", "senha", "wachtwoord", "l\u00f6sen", "has\u0142o"),
    *("\u043f\u0430\u0440", "\u5bc6", "\u30d1\u30b9", "\ube44\ubc00"),
    *("auth", "encryption", "signing", "master", "app", "admin", "consumer"),
)
"""How such a name begins."""

_QUOTE: Final = r"\*{0,2}[\\\"'`]{0,4}\*{0,2}"
"""What may stand around a name or value: quotes, escaped ones, and Markdown's emphasis."""

_ENDING: Final = r"\s\\\"'`,;()<>{}\[\]"
_VALUE: Final = f"[^{_ENDING}]"
_PLAIN: Final = f"[^{_ENDING}*]"
"""A bare value's character; asterisks at a value's end are emphasis."""

_JOINT: Final = (
    # Lists (`a1,b2`), further fields (`;Server=db2`), calls and the end of a block are none.
    rf"[,;){{}}]++(?=[^{_ENDING}=:]{{0,64}}\d[A-Za-z])(?![^{_ENDING}=:]{{0,64}}[=:(\[])"
)
"""Signs that belong to a bare value, since what follows at once is as random as what went before.

That a digit stands before a letter tells it from words and their numbers."""

_BARE: Final = rf"(?:{_PLAIN}|\*++(?={_PLAIN})|{_JOINT})"
_DIGITS: Final = "0123456789"
_MIXED: Final = rf"(?={_VALUE}{{0,999}}[0-9])(?={_VALUE}{{0,999}}[A-Za-z])"
_HEAD: Final = re.compile(rf"{_MIXED}(?:{_PLAIN}|\*++(?={_PLAIN})){{8,}}+", re.ASCII)
"""How a value begins that is one without quotes too."""

_CODE: Final = re.compile(
    r"^\(.*\)$|^\[.*\]$|^\{.*\}$|^[A-Za-z_.]+\d{0,2}[(\[].*[)\]]|"
    r"\(\?[:=!<]|\[\^?\w-\w|\{\d+,\d*\}|^[A-Za-z_-]*\d{0,3}(?:[,;|]+[A-Za-z_-]*\d{0,3})+$",
    re.DOTALL | re.ASCII,
)
"""What code has in quotes: a whole in brackets, a call, a regular expression, a list of words."""

_SPACED_REST: Final = 90
"""Characters of a quoted value behind its first space that may be seen before they are released.

Less than `guard.text.units.LOOKAHEAD`, so that it does not matter where a stream was cut."""


def _quoted_character(sign: str, quote: str) -> str:
    """Return the expression for a quoted value's character, an escape being one.

    Args:
        sign: the quotation mark.
        quote: the mark with the backslashes that are before it where the text is quoted itself.
            With more of them it is a mark within the value.
    """
    return rf"(?:(?!{sign})[^\s\\]|(?!{quote})\\(?:\\\\){{0,3}}+\S)"


_QUOTED: Final = _quoted_character("(?P=sign)", "(?P=quote)")


@cache
def _rest(sign: str, quote: str) -> re.Pattern[str]:
    """Return what matches the rest of a quoted value.

    To the closing quote also across spaces, where that is on the same line and in sight.
    """
    character = _quoted_character(sign, re.escape(quote))
    spaced = rf"[ \t](?:(?!{sign})[\t -\[\]-~]){{0,{_SPACED_REST}}}+(?={re.escape(quote)})"
    return re.compile(rf"{character}*+(?:{spaced})?", re.ASCII)


def _quoted_end(match: re.Match[str]) -> int:
    """Return where a quoted value ends that was recognised by its beginning."""
    return _run_on(_rest(match["sign"], match["quote"]), match)


def _run_on(expression: re.Pattern[str], match: re.Match[str]) -> int:
    """Return where what follows a secret's beginning ends."""
    end = match.end("secret")
    rest = expression.match(match.string, end)
    return end if rest is None else rest.end()


_BARE_REST: Final = re.compile(f"{_BARE}*+", re.ASCII)
_BEARER_REST: Final = re.compile(r"[A-Za-z0-9_.~+/-]*+={0,2}")


def _assignment(name: str) -> str:
    """Return the expression for a secret's name and the sign behind it."""
    return (
        rf"(?i:{name}){_QUOTE}\s{{0,3}}(?::=|={{1,3}}>?|:|\b(?:is|was|ist|lautet|est|es)\b:?)"
        rf"\*{{0,2}}\s{{0,3}}"
    )


def _argument(name: str) -> str:
    """Return that for a name whose value follows as the next argument, or behind a type."""
    return (
        rf"(?i:{name})(?:{_QUOTE}\s?[,(]\s{{0,3}}|"
        r"(?:\s?:\s?&?[\w.<>\[\]|]{1,30}|\s[a-z]\w{0,15})\s?=\s?)"
    )


def _dressed(name: str, closed: str = "") -> str:
    """Return that for a table's row, XML, an option, a directive, names and values apart.

    Args:
        name: the expression for the name.
        closed: looks ahead to the end tag of an XML element.
    """
    return (
        rf"(?:\|[ \t*`]{{0,4}}[\w ]{{0,30}}(?i:{name})[ \t*`:]{{0,40}}\|[ \t*`]{{0,40}}|"
        rf"<[\w:.-]{{0,40}}(?i:{name})[\w:.-]{{0,10}}>\s{{0,3}}{closed}|"
        rf"--[\w-]{{0,20}}(?i:{name})\s{{1,3}}{_QUOTE}|"
        rf"(?:\bENV|\#define)\s{{1,3}}\w{{0,30}}(?i:{name})\s{{1,3}}{_QUOTE}|"
        rf"(?i:{name}){_QUOTE}[,\s]{{1,24}}[\"']?value[\"']?\s{{0,3}}[:=]\s{{0,3}}[\"']?|"
        r"(?i:\blogin\s\S{1,64}\spassword\s))"
    )


_CLOSED: Final = r"(?=[^\s<>]{8,1000}+\s{0,3}</)"

_NAMED: Final = rf"(?:{_WORDS}|{_KEYS}|pass|pw)"
"""Where a secret's name may stand, without look-arounds: for the gates."""


_DEFAULT: Final = (
    r"(?:ba[rz]|test|root|toor|admin|guest|redis|mysql|mariadb|mongo|mongodb|rabbitmq|airflow|"
    r"django|docker|neo4j|vagrant|minio(?:admin)?|wordpress|letmein|anonymous)"
)
_NEAR: Final = (
    r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0|host\.docker\.internal|[A-Za-z0-9_-]{1,63}|"
    r"(?:[\w-]{1,63}\.){0,4}(?:example(?:\.(?:com|org|net))?|test|invalid|localhost))(?![\w.-])"
)
"""This machine, a neighbour in a compose file, and what RFC 2606 keeps for examples."""

_PUBLIC: Final = (
    r"(?!(?P<user>[A-Za-z_-]{1,24}\d{0,4}):(?P=user)@)"
    rf"(?![^\s:/@?#\"'<>]{{0,64}}:{_DEFAULT}@{_NEAR})"
)
"""No user's own name for a password, anywhere, and no documented default nearby.

A key that stands for both is no name."""

_PEM_GAP: Final = r"(?:\\{1,4}[nr]|<br ?/?>|[\s\"'+,>|#/*;])"
"""What stands between the lines of a key: line ends, also escaped, quoted, cited or commented."""

_PEM_NUMBER: Final = r"(?:\d{1,4}[ \t:.|]{1,4})?"
"""The number of a line."""

_PEM_BODY: Final = r"[A-Za-z0-9+/=]{16}(?:[A-Za-z0-9+/=\s\\\"',>|#*]|<br ?/?>){0,8192}"

_PPK_GAP: Final = r"(?:\\{1,4}[nr]|[\s\"'>|])"
"""The same for PuTTY's lines, without the `+` that is a character of base64."""

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
    _prefixed(
        "gitlab_token",
        # A routable one has its version, length and checksum behind full stops.
        rf"gl(?:pat|ptt|dt|rtr?|soat|oas|cbt|ft|ffct|imt|wt|agent)-{_B64}{{20,300}}"
        r"(?:(?:\.[0-9A-Za-z]{2})?\.[0-9A-Za-z]{9})?",
    ),
    _prefixed("gitlab_token", rf"GR1348941{_B64}{{20}}"),
    _prefixed("slack_token", r"xox[a-ce-z]-[A-Za-z0-9-]{10,250}"),
    _prefixed("slack_token", r"xoxd-[A-Za-z0-9%/+=_.-]{20,500}"),
    _prefixed("slack_app_token", r"xapp-\d-[A-Z0-9]{5,20}-\d{5,20}-[a-z0-9]{20,100}"),
    _prefixed(
        "slack_webhook",
        r"https://hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9/_-]{20,120}",
    ),
    _prefixed(
        "discord_webhook",
        r"https://(?:(?:ptb|canary)\.)?discord(?:app)?\.com/api/(?:v\d{1,2}/)?webhooks/"
        rf"\d{{15,21}}/{_B64}{{50,90}}",
    ),
    _prefixed(
        "teams_webhook",
        rf"https://[a-z0-9-]{{1,60}}\.webhook\.office\.com/webhookb2/{_UUID}@{_UUID}/"
        rf"IncomingWebhook/[a-f0-9]{{32}}/{_UUID}",
    ),
    _prefixed("zapier_webhook", r"https://hooks\.zapier\.com/hooks/catch/\d{4,10}/[a-z0-9]{6,12}"),
    _prefixed("discord_token", rf"[MNO][A-Za-z0-9]{{23,27}}\.{_B64}{{6}}\.{_B64}{{27,40}}"),
    _prefixed("stripe_key", r"(?:sk|rk)_(?:org_)?(?:live|test)_[A-Za-z0-9]{16,250}"),
    _prefixed("stripe_webhook_secret", r"whsec_[A-Za-z0-9+/]{24,100}"),
    _prefixed("google_api_key", rf"AIza{_B64}{{35}}"),
    _prefixed("google_oauth_secret", rf"GOCSPX-{_B64}{{28}}"),
    _prefixed("google_oauth_token", rf"ya29\.{_B64}{{20,400}}"),
    _prefixed("google_refresh_token", rf"1//0{_B64}{{40,200}}"),
    _prefixed("anthropic_key", rf"sk-ant-{_B64}{{24,200}}"),
    _prefixed(
        "openai_key", rf"sk-(?:(?:proj|svcacct|admin|None)-{_B64}{{32,250}}|[A-Za-z0-9]{{32,64}})"
    ),
    _prefixed("xai_key", r"xai-[A-Za-z0-9_]{80}"),
    _prefixed("nvidia_key", rf"nvapi-{_B64}{{60,70}}"),
    _prefixed("cerebras_key", r"csk-[a-z0-9]{48}"),
    _prefixed("aws_bedrock_key", r"ABSK[A-Za-z0-9+/]{109,269}={0,2}"),
    _prefixed("elevenlabs_key", r"sk_[a-f0-9]{48}"),
    _prefixed("pinecone_key", r"pcsk_[A-Za-z0-9_]{50,90}"),
    _prefixed("langsmith_key", r"lsv2_(?:pt|sk)_[a-f0-9]{32}_[a-f0-9]{10}"),
    _prefixed("tavily_key", rf"tvly-{_B64}{{32,72}}"),
    _prefixed("openrouter_key", r"sk-or-v1-[a-f0-9]{64}"),
    _prefixed("groq_key", r"gsk_[A-Za-z0-9]{40,80}"),
    _prefixed("huggingface_token", r"hf_[A-Za-z0-9]{30,60}"),
    _prefixed("huggingface_token", r"api_org_[A-Za-z]{34}"),
    _prefixed("langfuse_key", rf"sk-lf-{_UUID}"),
    _prefixed("wandb_key", r"wandb_v1_[A-Za-z0-9_]{60,100}"),
    _prefixed("jina_key", rf"jina_[a-f0-9]{{32}}{_B64}{{28}}"),
    _prefixed("firecrawl_key", r"fc-[a-f0-9]{32}"),
    _prefixed("e2b_key", r"e2b_[a-f0-9]{40}"),
    _prefixed("replicate_token", r"r8_[A-Za-z0-9]{37}"),
    _prefixed("perplexity_key", r"pplx-[A-Za-z0-9]{40,60}"),
    _prefixed("sendgrid_key", rf"SG\.{_B64}{{16,32}}\.{_B64}{{32,64}}"),
    _prefixed("twilio_key", r"SK[a-f0-9]{32}", _LIKELY),
    _prefixed("mailgun_key", r"key-[a-f0-9]{32}", _LIKELY),
    _prefixed("mailgun_key", r"[a-f0-9]{32}-[a-f0-9]{8}-[a-f0-9]{8}", _LIKELY),
    _prefixed("resend_key", r"re_[A-Za-z0-9]{8}_[A-Za-z0-9]{24}"),
    _prefixed("klaviyo_key", r"pk_[a-f0-9]{34}"),
    _prefixed("hubspot_token", rf"pat-[a-z]{{2}}\d-{_UUID}"),
    _prefixed("contentful_token", rf"CFPAT-{_B64}{{43}}"),
    _prefixed("typeform_token", r"tfp_[A-Za-z0-9._-]{40,70}"),
    _prefixed("asana_token", r"[12]/\d{13,17}(?:/\d{13,17})?:[a-f0-9]{32}"),
    _prefixed("mailchimp_key", r"[a-f0-9]{32}-us\d{1,2}", _LIKELY),
    _prefixed("brevo_key", r"x(?:key|smtp)sib-[a-f0-9]{64}-[A-Za-z0-9]{16}"),
    _prefixed("heroku_key", rf"HRKU-{_B64}{{36,80}}"),
    _prefixed("mapbox_token", rf"[st]k\.eyJ{_B64}{{40,300}}\.{_B64}{{20,30}}"),
    _prefixed("facebook_token", r"EAA[A-Za-z0-9]{100,400}"),
    _prefixed("instagram_token", rf"IGQ{_B64}{{100,400}}"),
    _prefixed("paypal_token", r"access_token\$production\$[a-z0-9]{16}\$[a-f0-9]{32}"),
    _prefixed("plaid_token", rf"access-(?:production|development|sandbox)-{_UUID}"),
    _prefixed("flutterwave_key", r"FLWSECK(?:_TEST)?-[a-f0-9]{32}-X"),
    _prefixed("easypost_key", r"EZ[AT]K[A-Za-z0-9]{54}"),
    _prefixed("shippo_token", r"shippo_(?:live|test)_[a-f0-9]{40}"),
    _prefixed("duffel_token", rf"duffel_(?:live|test)_{_B64}{{43}}"),
    _prefixed("netlify_token", r"nf[bcopu]_[A-Za-z0-9]{36}"),
    _prefixed("vercel_token", r"vercel_blob_rw_[A-Za-z0-9]{16}_[A-Za-z0-9]{32}"),
    _prefixed("fly_token", r"fm[12][ar]?_[A-Za-z0-9+/]{100,2000}={0,3}"),
    _prefixed("fly_token", rf"fo1_{_B64}{{43}}"),
    _prefixed("render_key", r"rnd_[A-Za-z0-9]{32}"),
    _prefixed("neon_key", r"napi_[a-z0-9]{64}"),
    _prefixed("cloudflare_origin_key", r"v1\.0-[a-f0-9]{24}-[a-f0-9]{146}"),
    _prefixed("onepassword_token", r"ops_eyJ[A-Za-z0-9+/]{200,2000}={0,2}"),
    _prefixed(
        "onepassword_secret_key",
        r"A3-[A-Z0-9]{6}-(?:[A-Z0-9]{11}|[A-Z0-9]{6}-[A-Z0-9]{5})(?:-[A-Z0-9]{5}){3}",
    ),
    _prefixed("alibaba_access_key", r"LTAI5t[A-Za-z0-9]{18}"),
    _prefixed("yandex_key", rf"AQVN{_B64}{{35,38}}"),
    _prefixed("tailscale_key", r"tskey-(?:auth|api|client)-[A-Za-z0-9]{8,30}-[A-Za-z0-9]{20,50}"),
    _prefixed("pulumi_token", r"pul-[a-f0-9]{40}"),
    _prefixed("sonar_token", r"sq[apu]_[a-f0-9]{40}"),
    _prefixed("dynatrace_token", r"dt0c01\.[A-Z0-9]{24}\.[A-Z0-9]{64}"),
    _prefixed("artifactory_key", r"(?:AKCp[A-Za-z0-9]{69}|cmVmdGtu[A-Za-z0-9]{56})"),
    _prefixed("buildkite_token", r"bkua_[a-f0-9]{40}"),
    _prefixed("circleci_token", r"CCIPAT_[A-Za-z0-9]{22}_[a-f0-9]{40}"),
    _prefixed("sourcegraph_token", r"sgp_(?:(?:[a-f0-9]{16}|local)_)?[a-f0-9]{40}"),
    _prefixed("segment_token", r"sgp_[A-Za-z0-9]{64}"),
    _prefixed("prefect_key", r"pn[ub]_[A-Za-z0-9]{36}"),
    _prefixed("dbt_token", rf"dbt[cu]_{_B64}{{40,60}}"),
    _prefixed("readme_key", r"rdme_[a-z0-9]{70}"),
    _prefixed("launchdarkly_key", rf"(?:sdk|api)-{_UUID}", _LIKELY),
    _prefixed("clojars_token", r"CLOJARS_[a-z0-9]{60}"),
    _prefixed("nuget_key", r"oy2[a-z0-9]{43}"),
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
    _prefixed("linear_key", r"lin_(?:api_[A-Za-z0-9]{40}|oauth_[a-f0-9]{64})"),
    _prefixed("notion_token", r"(?:secret_[A-Za-z0-9]{43}|ntn_[A-Za-z0-9]{46})"),
    _prefixed("figma_token", rf"figd_{_B64}{{40}}"),
    _prefixed("postman_key", r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    _prefixed("new_relic_key", r"NRAK-[A-Z0-9]{27}"),
    _prefixed("new_relic_key", rf"NRII-{_B64}{{32}}"),
    _prefixed("new_relic_key", r"[a-f0-9]{36}NRAL"),
    _prefixed("grafana_token", r"glsa_[A-Za-z0-9]{32}_[a-f0-9]{8}"),
    _prefixed("grafana_cloud_token", r"glc_[A-Za-z0-9+/]{32,400}={0,2}"),
    _prefixed("doppler_token", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9.]{40,60}"),
    _prefixed("sentry_token", r"(?:sntrys_[A-Za-z0-9+/=_]{40,300}|sntryu_[a-f0-9]{64})"),
    _prefixed("planetscale_token", rf"pscale_(?:tkn|pw|oauth)_{_B64}{{32,64}}"),
    _prefixed("supabase_key", rf"(?:sbp_[a-f0-9]{{40}}|sb_secret_{_B64}{{20,60}})"),
    _prefixed("atlassian_token", rf"AT(?:ATT|CTT)3{_B64}{{60,250}}=?[A-F0-9]{{0,8}}"),
    _prefixed("bitbucket_app_password", r"ATBB[A-Za-z0-9]{24,28}[A-F0-9]{8}"),
    _prefixed("airtable_token", r"pat[A-Za-z0-9]{14}\.[a-f0-9]{64}"),
    _prefixed("dropbox_token", rf"sl\.(?:u\.)?{_B64}{{100,1500}}"),
    _prefixed("age_secret_key", r"AGE-SECRET-KEY-1[A-Z0-9]{58}"),
    _prefixed("azure_storage_key", r"AccountKey=[A-Za-z0-9+/]{86}=="),
    _prefixed("azure_sas", r"sig=[A-Za-z0-9%/+]{43,70}(?:=|%3D)", _LIKELY),
    Pattern(
        "azure_sas",
        # Of a logic app: without padding, and behind the address.
        rf"\.logic\.azure\.com[^\s\"'<>]{{1,400}}[?&]sig=(?P<secret>{_B64}{{43}})(?![\w-])",
        _LIKELY,
        r"\.logic\.azure\.com",
        real,
        "secret",
    ),
    Pattern(
        "azure_function_key",
        rf"\.azurewebsites\.net[^\s\"'<>]{{1,400}}[?&]code=(?P<secret>{_B64}{{40,80}}={{0,2}})",
        _LIKELY,
        r"\.azurewebsites\.net",
        real,
        "secret",
    ),
    _prefixed("bitcoin_extended_key", r"[xyz]prv[1-9A-HJ-NP-Za-km-z]{107}"),
    Pattern(
        "jwk_private_key",
        # RFC 7518: `d` is what makes a key a private one.
        rf"\"d\"\s{{0,3}}:\s{{0,3}}\"(?P<secret>{_B64}{{43,1000}})\"",
        _LIKELY,
        r"\"d\"\s{0,3}:",
        aws_secret,
        "secret",
    ),
    _prefixed("azure_client_secret", r"[A-Za-z0-9_~.-]{3}\dQ~[A-Za-z0-9_~.-]{31,34}", _LIKELY),
    Pattern(
        "private_key",
        # An armoured body must follow, since prose may speak of the header; the end may be cut.
        rf"{_PEM_FIRST}{_PEM_GAP}{{0,12}}"
        rf"(?:[A-Za-z-]{{1,40}}: [^\n\\]{{0,100}}(?:\\n|\n){_PEM_GAP}{{0,12}}){{0,4}}"
        rf"{_PEM_NUMBER}{_PEM_BODY}(?:{_PEM_LAST})?",
        _KEY,
        _PEM_FIRST,
    ),
    Pattern(
        "private_key",
        # PuTTY's: from its first line where that is in sight, or else from the private part on.
        rf"(?:PuTTY-User-Key-File-[123]: (?:(?!Private-Lines:|PuTTY-User-Key-File).){{0,4096}}?)?"
        rf"Private-Lines: {{0,3}}\d{{1,3}}{_PPK_GAP}{{1,12}}(?=[A-Za-z0-9+/=]{{16}})"
        rf"(?:[A-Za-z0-9+/]{{64}}{_PPK_GAP}{{1,12}}){{0,200}}"
        rf"(?:(?!Private-)[A-Za-z0-9+/]{{2,64}}={{0,2}})?"
        rf"(?:{_PPK_GAP}{{0,12}}Private-(?:MAC|Hash): {{0,3}}[a-f0-9]{{40,64}})?",
        _KEY,
        r"Private-Lines:",
    ),
    Pattern(
        "jwt",
        # What it consists of may not stand before it: it has one beginning and needs no limits.
        rf"(?<![\w.-])eyJ{_B64}{{10,}}+\.eyJ{_B64}{{4,}}+\.{_B64}{{10,}}+",
        _LIKELY,
        rf"eyJ{_B64}{{10,40}}",
        is_jwt,
    ),
    Pattern(
        "jwe",
        # Header, key (none where it was agreed on), vector, text and tag (RFC 7516).
        rf"(?<![\w.-])eyJ{_B64}{{10,}}+\.{_B64}*+\.{_B64}{{16,24}}+\.{_B64}++\.{_B64}{{20,90}}+",
        _LIKELY,
        rf"eyJ{_B64}{{10,40}}",
        is_jwe,
    ),
    Pattern(
        "connection_string",
        # The authority ends at `/`, `?` or `#` (RFC 3986); of several `@` the last one counts.
        rf"(?<![A-Za-z0-9+.-])[A-Za-z][A-Za-z0-9+.-]{{1,24}}://{_PUBLIC}[^\s:/@?#\"'<>]{{0,64}}:"
        r"(?P<secret>[^\s/?#\"'<>]{3,128})@[\w.-]{1,128}",
        _LIKELY,
        r"://[^\s:/@?#\"'<>]*:",
        url_password,
        "secret",
    ),
    Pattern(
        "basic_credentials",
        # As Docker's and npm's settings have them.
        rf"(?:(?<![\w-])auth[\\]{{0,3}}[\"']{_QUOTE}\s{{0,3}}:|_auth\s?=)\s{{0,3}}{_QUOTE}"
        r"(?P<secret>[A-Za-z0-9+/]{8,2000}={0,2})(?![\w+/=.-])",
        _LIKELY,
        r"auth",
        user_and_password,
        "secret",
    ),
    Pattern(
        "kubernetes_secret",
        r"\n[ \t]{1,12}[\"']?(?!(?i:[\w.-]{0,40}(?:user|name|host|port|database|ur[il]|region|"
        r"endpoint|bucket|\.crt)[\"']?:))[\w.-]{1,80}[\"']?:[ \t]{1,3}[\"']?"
        r"(?P<secret>[A-Za-z0-9+/]{12,4096}={0,2})(?![\w+/=.:-])",
        _LIKELY,
        r"(?i:kind[\"']?:\s{0,3}[\"']?secret)",
        encoded_value,
        "secret",
        context=r"kind[\"']?:\s{0,3}[\"']?secret\b",
        within=400,
    ),
    Pattern(
        "encoded_secret",
        # What it consists of may not stand before it: it has one beginning and needs no limit.
        r"(?<![\w+/-])[A-Za-z0-9+/_-]{32,}+={0,2}(?![\w.])",
        _LIKELY,
        r"[A-Za-z0-9+/_-]{32}",
        encoded,
    ),
    Pattern(
        "bearer_token",
        r"(?i:authorization[\"'\])]{0,3}\s{0,3}[:=,]\s{0,3}[\"']?"
        r"(?:bearer|basic|token|apikey|ssws)\s{1,3})"
        r"(?P<secret>[A-Za-z0-9_.~+/-]{16,2000}={0,2})",
        _LIKELY,
        r"(?i:authorization)",
        random_looking,
        "secret",
        reach=lambda match: _run_on(_BEARER_REST, match),
    ),
    Pattern(
        "bearer_token",
        # Without the header's name only what no word may be.
        rf"(?<!\w)[Bb]earer\s{{1,3}}(?P<secret>{_MIXED}[A-Za-z0-9_.~+/-]{{20,2000}}={{0,2}})",
        _LIKELY,
        r"[Bb]earer\s",
        drawn,
        "secret",
        reach=lambda match: _run_on(_BEARER_REST, match),
    ),
    Pattern(
        "session_cookie",
        r"(?i:cookie:)[^\n]{0,300}?(?i:sess|sid|auth|jwt)[\w.-]{0,24}="
        r"(?P<secret>[^\s;,\"']{16,1000})",
        _LIKELY,
        r"(?i:cookie:)",
        drawn,
        "secret",
    ),
    Pattern(
        "assigned_secret",
        rf"{_dressed(_NAME, _CLOSED)}(?P<secret>{_MIXED}{_BARE}{{8,1000}}+(?![(\[]))",
        _ASSIGNED,
        _dressed(_NAMED),
        drawn,
        "secret",
        reach=lambda match: _run_on(_BARE_REST, match),
        heads=("|", "<", "--", "env", "#define", "login", *_HEADS),
    ),
    Pattern(
        "assigned_secret",
        rf"{_argument(_NAME)}(?P<quote>\\{{0,3}}(?P<sign>[\"'`]))(?P<secret>{_QUOTED}{{8,1000}}+)",
        _ASSIGNED,
        rf"{_argument(_NAMED)}[\\\"'`]",
        drawn,
        "secret",
        reach=_quoted_end,
        heads=_HEADS,
    ),
    Pattern(
        "assigned_secret",
        # One or two asterisks before a value are emphasis, more are a mask. Possessive, so that
        # a call such as `load_key2(path)` does not match without its end.
        rf"{_assignment(_NAME)}{_QUOTE}(?<!\*\*\*)(?!\*)"
        rf"(?P<secret>{_MIXED}{_BARE}{{8,1000}}+(?![(\[]))",
        _ASSIGNED,
        _assignment(_NAMED),
        joined,
        "secret",
        reach=lambda match: _run_on(_BARE_REST, match),
        heads=_HEADS,
    ),
    Pattern(
        "assigned_secret",
        # In quotes nothing but the same quote ends a value. Signs on both sides are what stands
        # between two strings (`"token=", f(x1), "&a"`): there the first quote was a closing one.
        rf"{_assignment(_NAME)}\*{{0,2}}(?P<quote>\\{{0,3}}(?P<sign>[\"'`]))"
        rf"(?![,;)\]}}+.&|%?:]{_QUOTED}{{7,300}}+(?:(?<=[,;(\[{{+.&|%?:=])|(?!(?P=quote))))"
        rf"(?P<secret>{_QUOTED}{{8,1000}}+)",
        _ASSIGNED,
        _assignment(_NAMED),
        quoted,
        "secret",
        reach=_quoted_end,
        heads=_HEADS,
    ),
    *command_patterns(typed),
)


@cache
def secret_detector() -> PatternDetector:
    """Return the pack that finds credentials (category `secret_leak`)."""
    return PatternDetector("secrets", "secret_leak", _PATTERNS)
