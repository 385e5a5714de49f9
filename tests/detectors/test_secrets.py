"""Credentials: every format is found in any dress, and what only looks like one is not.

All keys are made up here, while the tests run, so that no scanner takes this file for a leak.
"""

from __future__ import annotations

import base64
import json
import math
import string
from random import Random
from typing import Final

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from guard.categories import CATEGORIES
from guard.detectors.patterns import set_apart
from guard.detectors.secrets import assigned, entropy, is_jwt, real, secret_detector

DETECTOR = secret_detector()

Shape = tuple[str | tuple[str, int], ...]
"""Literal parts, and `(alphabet, count)` for parts that are drawn."""

DIGIT: Final = string.digits
HEX: Final = "0123456789abcdef"
CAPITAL: Final = string.ascii_uppercase + DIGIT
HEX_CAPITAL: Final = HEX.upper()
LOWER: Final = string.ascii_lowercase + DIGIT
ALNUM: Final = string.ascii_letters + DIGIT
BASE58: Final = ALNUM.translate(dict.fromkeys(map(ord, "0OIl")))
B64: Final = ALNUM + "+/"
B64URL: Final = ALNUM + "_-"

UUID: Final[Shape] = (
    (HEX, 8),
    "-",
    (HEX, 4),
    "-",
    (HEX, 4),
    "-",
    (HEX, 4),
    "-",
    (HEX, 12),
)

SHAPES: Final[dict[str, Shape]] = {
    "aws_access_key": ("AKIA", (string.ascii_uppercase + "234567", 16)),
    "github_token": ("ghp_", (ALNUM, 36)),
    "github_fine_grained_token": ("github_pat_", (ALNUM, 60)),
    "gitlab_token": ("glpat-", (B64URL, 19), (ALNUM, 1)),
    "slack_token": ("xoxb-", (DIGIT, 4), "-", (ALNUM, 5)),
    "slack_app_token": ("xapp-1-", (CAPITAL, 5), "-", (DIGIT, 5), "-", (HEX, 20)),
    "slack_webhook": ("https://hooks.slack.com/services/", (CAPITAL, 9), "/", (ALNUM, 10)),
    "discord_webhook": ("https://discord.com/api/webhooks/", (DIGIT, 18), "/", (B64URL, 50)),
    "discord_token": ("M", (ALNUM, 23), ".", (B64URL, 6), ".", (B64URL, 26), (ALNUM, 1)),
    "stripe_key": ("sk_live_", (ALNUM, 16)),
    "stripe_webhook_secret": ("whsec_", (B64, 24)),
    "google_api_key": ("AIza", (B64URL, 34), (ALNUM, 1)),
    "google_oauth_secret": ("GOCSPX-", (B64URL, 27), (ALNUM, 1)),
    "google_oauth_token": ("ya29.", (B64URL, 19), (ALNUM, 1)),
    "anthropic_key": ("sk-ant-", (B64URL, 23), (ALNUM, 1)),
    "openai_key": ("sk-proj-", (B64URL, 31), (ALNUM, 1)),
    "xai_key": ("xai-", (ALNUM, 80)),
    "nvidia_key": ("nvapi-", (B64URL, 59), (ALNUM, 1)),
    "cerebras_key": ("csk-", (string.ascii_lowercase + DIGIT, 48)),
    "aws_bedrock_key": ("ABSK", (B64, 108), (ALNUM, 1)),
    "elevenlabs_key": ("sk_", (HEX, 48)),
    "pinecone_key": ("pcsk_", (ALNUM, 50)),
    "langsmith_key": ("lsv2_pt_", (HEX, 32), "_", (HEX, 10)),
    "tavily_key": ("tvly-", (ALNUM, 32)),
    "brevo_key": ("xkeysib-", (HEX, 64), "-", (ALNUM, 16)),
    "heroku_key": ("HRKU-", (B64URL, 35), (ALNUM, 1)),
    "mapbox_token": ("sk.eyJ", (ALNUM, 40), ".", (B64URL, 19), (ALNUM, 1)),
    "facebook_token": ("EAA", (ALNUM, 100)),
    "tailscale_key": ("tskey-auth-", (ALNUM, 11), "-", (ALNUM, 20)),
    "pulumi_token": ("pul-", (HEX, 40)),
    "sonar_token": ("sqp_", (HEX, 40)),
    "dynatrace_token": ("dt0c01.", (CAPITAL, 24), ".", (CAPITAL, 64)),
    "artifactory_key": ("AKCp", (ALNUM, 69)),
    "buildkite_token": ("bkua_", (HEX, 40)),
    "openrouter_key": ("sk-or-v1-", (HEX, 64)),
    "groq_key": ("gsk_", (ALNUM, 40)),
    "huggingface_token": ("hf_", (ALNUM, 30)),
    "replicate_token": ("r8_", (ALNUM, 37)),
    "perplexity_key": ("pplx-", (ALNUM, 40)),
    "sendgrid_key": ("SG.", (B64URL, 16), ".", (B64URL, 31), (ALNUM, 1)),
    "twilio_key": ("SK", (HEX, 32)),
    "mailgun_key": ("key-", (HEX, 32)),
    "mailchimp_key": ((HEX, 32), "-us", (DIGIT, 1)),
    "npm_token": ("npm_", (ALNUM, 36)),
    "pypi_token": ("pypi-AgE", (B64URL, 49), (ALNUM, 1)),
    "rubygems_key": ("rubygems_", (HEX, 48)),
    "docker_token": ("dckr_pat_", (B64URL, 19), (ALNUM, 1)),
    "digitalocean_token": ("dop_v1_", (HEX, 64)),
    "shopify_token": ("shpat_", (HEX, 32)),
    "square_token": ("sq0atp-", (B64URL, 21), (ALNUM, 1)),
    "telegram_bot_token": ((DIGIT, 9), ":AA", (B64URL, 32), (ALNUM, 1)),
    "databricks_token": ("dapi", (HEX, 32)),
    "vault_token": ("hvs.", (B64URL, 23), (ALNUM, 1)),
    "terraform_token": ((ALNUM, 14), ".atlasv1.", (B64URL, 59), (ALNUM, 1)),
    "linear_key": ("lin_api_", (ALNUM, 40)),
    "notion_token": ("ntn_", (ALNUM, 46)),
    "figma_token": ("figd_", (B64URL, 39), (ALNUM, 1)),
    "postman_key": ("PMAK-", (HEX, 24), "-", (HEX, 34)),
    "new_relic_key": ("NRAK-", (CAPITAL, 27)),
    "grafana_token": ("glsa_", (ALNUM, 32), "_", (HEX, 8)),
    "grafana_cloud_token": ("glc_", (B64, 32)),
    "doppler_token": ("dp.pt.", (ALNUM, 40)),
    "sentry_token": ("sntrys_", (B64, 40)),
    "planetscale_token": ("pscale_tkn_", (B64URL, 31), (ALNUM, 1)),
    "supabase_key": ("sbp_", (HEX, 40)),
    "atlassian_token": ("ATATT3", (B64URL, 59), (ALNUM, 1)),
    "airtable_token": ("pat", (ALNUM, 14), ".", (HEX, 64)),
    "dropbox_token": ("sl.", (B64URL, 99), (ALNUM, 1)),
    "age_secret_key": ("AGE-SECRET-KEY-1", (CAPITAL, 58)),
    "azure_storage_key": ("AccountKey=", (B64, 86), "=="),
    "azure_sas": ("sig=", (B64, 43), "="),
    "azure_client_secret": ((ALNUM, 3), "8Q~", (ALNUM, 31)),
    "teams_webhook": (
        "https://mill.webhook.office.com/webhookb2/",
        *UUID,
        "@",
        *UUID,
        "/IncomingWebhook/",
        (HEX, 32),
        "/",
        *UUID,
    ),
    "zapier_webhook": ("https://hooks.zapier.com/hooks/catch/", (DIGIT, 7), "/", (LOWER, 6)),
    "google_refresh_token": ("1//0", (B64URL, 39), (ALNUM, 1)),
    "langfuse_key": ("sk-lf-", *UUID),
    "wandb_key": ("wandb_v1_", (ALNUM, 60)),
    "jina_key": ("jina_", (HEX, 32), (B64URL, 27), (ALNUM, 1)),
    "firecrawl_key": ("fc-", (HEX, 32)),
    "e2b_key": ("e2b_", (HEX, 40)),
    "resend_key": ("re_", (ALNUM, 8), "_", (ALNUM, 24)),
    "klaviyo_key": ("pk_", (HEX, 34)),
    "hubspot_token": ("pat-na1-", *UUID),
    "contentful_token": ("CFPAT-", (B64URL, 42), (ALNUM, 1)),
    "typeform_token": ("tfp_", (B64URL, 39), (ALNUM, 1)),
    "asana_token": ("1/", (DIGIT, 16), ":", (HEX, 32)),
    "instagram_token": ("IGQ", (B64URL, 99), (ALNUM, 1)),
    "paypal_token": ("access_token$production$", (LOWER, 16), "$", (HEX, 32)),
    "plaid_token": ("access-production-", *UUID),
    "flutterwave_key": ("FLWSECK-", (HEX, 32), "-X"),
    "easypost_key": ("EZAK", (ALNUM, 54)),
    "shippo_token": ("shippo_live_", (HEX, 40)),
    "duffel_token": ("duffel_live_", (B64URL, 42), (ALNUM, 1)),
    "netlify_token": ("nfp_", (ALNUM, 36)),
    "vercel_token": ("vercel_blob_rw_", (ALNUM, 16), "_", (ALNUM, 32)),
    "fly_token": ("fm2_", (B64, 99), (ALNUM, 1)),
    "render_key": ("rnd_", (ALNUM, 32)),
    "neon_key": ("napi_", (LOWER, 64)),
    "cloudflare_origin_key": ("v1.0-", (HEX, 24), "-", (HEX, 146)),
    "onepassword_token": ("ops_eyJ", (ALNUM, 200)),
    "onepassword_secret_key": (
        "A3-",
        (CAPITAL, 6),
        "-",
        (CAPITAL, 6),
        *(("-", (CAPITAL, 5)) * 4),
    ),
    "alibaba_access_key": ("LTAI5t", (ALNUM, 18)),
    "yandex_key": ("AQVN", (B64URL, 34), (ALNUM, 1)),
    "circleci_token": ("CCIPAT_", (ALNUM, 22), "_", (HEX, 40)),
    "sourcegraph_token": ("sgp_", (HEX, 40)),
    "segment_token": ("sgp_", (ALNUM, 64)),
    "prefect_key": ("pnu_", (ALNUM, 36)),
    "dbt_token": ("dbtc_", (B64URL, 39), (ALNUM, 1)),
    "readme_key": ("rdme_", (LOWER, 70)),
    "launchdarkly_key": ("sdk-", *UUID),
    "clojars_token": ("CLOJARS_", (LOWER, 60)),
    "nuget_key": ("oy2", (LOWER, 43)),
    "bitbucket_app_password": ("ATBB", (ALNUM, 24), (HEX_CAPITAL, 8)),
    "bitcoin_extended_key": ("xprv", (BASE58, 107)),
}
"""The shortest key of each format that stands by itself."""

OTHER_SHAPES: Final[dict[str, tuple[Shape, ...]]] = {
    "aws_access_key": (("ASIA", (string.ascii_uppercase + "234567", 16)),),
    "github_token": (("gho_", (ALNUM, 36)), ("ghs_", (ALNUM, 251))),
    "gitlab_token": (
        ("glpat-", (B64URL, 26), (ALNUM, 1), ".01.", (string.ascii_lowercase + DIGIT, 9)),
        ("glpat-", (B64URL, 26), (ALNUM, 1), ".", (string.ascii_lowercase + DIGIT, 9)),
        ("gloas-", (HEX, 64)),
        ("GR1348941", (B64URL, 19), (ALNUM, 1)),
    ),
    "slack_token": (
        ("xoxc-", (DIGIT, 11), "-", (DIGIT, 12), "-", (DIGIT, 12), "-", (HEX, 64)),
        ("xoxd-", (ALNUM, 60), "%2F", (ALNUM, 20), "%2B", (ALNUM, 40)),
    ),
    "langsmith_key": (("lsv2_sk_", (HEX, 32), "_", (HEX, 10)),),
    "tavily_key": (("tvly-dev-", (ALNUM, 32)),),
    "brevo_key": (("xsmtpsib-", (HEX, 64), "-", (ALNUM, 16)),),
    "aws_bedrock_key": (("ABSK", (ALNUM, 127), "="),),
    "sonar_token": (("squ_", (HEX, 40)), ("sqa_", (HEX, 40))),
    "openai_key": (("sk-", (ALNUM, 48)), ("sk-svcacct-", (B64URL, 120), (ALNUM, 1))),
    "anthropic_key": (("sk-ant-api03-", (B64URL, 93), "AA"),),
    "discord_webhook": (
        ("https://discordapp.com/api/webhooks/", (DIGIT, 19), "/", (B64URL, 67), (ALNUM, 1)),
        ("https://ptb.discord.com/api/v10/webhooks/", (DIGIT, 19), "/", (B64URL, 67), (ALNUM, 1)),
    ),
    "slack_webhook": (
        ("https://hooks.slack.com/triggers/", (CAPITAL, 9), "/", (DIGIT, 13), "/", (HEX, 32)),
    ),
    "huggingface_token": (("api_org_", (string.ascii_letters, 34)),),
    "mailgun_key": (((HEX, 32), "-", (HEX, 8), "-", (HEX, 8)),),
    "asana_token": (("2/", (DIGIT, 16), "/", (DIGIT, 16), ":", (HEX, 32)),),
    "fly_token": (("fo1_", (B64URL, 42), (ALNUM, 1)),),
    "artifactory_key": (("cmVmdGtu", (ALNUM, 56)),),
    "sourcegraph_token": (("sgp_", (HEX, 16), "_", (HEX, 40)),),
    "linear_key": (("lin_oauth_", (HEX, 64)),),
    "new_relic_key": (("NRII-", (B64URL, 31), (ALNUM, 1)), ((HEX, 36), "NRAL")),
    "sentry_token": (("sntryu_", (HEX, 64)),),
    "atlassian_token": (("ATCTT3", (B64URL, 160), (ALNUM, 1)),),
    "stripe_key": (("rk_test_", (ALNUM, 99)), ("sk_org_live_", (ALNUM, 120))),
    "square_token": (("EAAA", (B64URL, 60)),),
    "mailchimp_key": (((HEX, 32), "-us21"),),
    "notion_token": (("secret_", (ALNUM, 43)),),
    "databricks_token": (("dapi", (HEX, 32), "-2"),),
    "supabase_key": (("sb_secret_", (B64URL, 22), "_", (ALNUM, 8)),),
    "azure_sas": (("sig=", (ALNUM, 43), "%3D"),),
    "dropbox_token": (("sl.u.", (B64URL, 1100), (ALNUM, 1)),),
}
"""Other forms of some formats."""


def encode(text: str) -> str:
    """Return a text in base64."""
    return base64.b64encode(text.encode()).decode()


def make(shape: Shape, seed: object) -> str:
    """Return a key of a shape; the same one for the same seed."""
    random = Random(repr(seed))
    return "".join(
        p if isinstance(p, str) else "".join(random.choices(p[0], k=p[1])) for p in shape
    )


def filled(shape: Shape) -> str:
    """Return a key of a shape that is filled with one character, as placeholders are."""
    return "".join(
        part if isinstance(part, str) else ("x" if "x" in part[0] else part[0][0]) * part[1]
        for part in shape
    )


def password(seed: object, length: int = 14) -> str:
    """Return a made-up password of letters and digits."""
    return "k7" + make(((ALNUM, length - 2),), seed)


def found(text: str) -> list[tuple[str, str]]:
    """Return labels and spans' texts of what is found in `text`."""
    return [(f.label, text[f.start : f.end]) for f in DETECTOR.find(text)]


def labels(text: str) -> set[str]:
    """Return the labels of what is found in `text`."""
    return {f.label for f in DETECTOR.find(text)}


AWS_SECRET: Final = make(((B64, 40),), "aws")
PASSWORD: Final = password("the password")


def part(value: object) -> str:
    """Return a token's part: JSON in base64 without padding."""
    return base64.urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")


def token(header: object, payload: object) -> str:
    """Return a signed token; the signature is made up."""
    return f"{part(header)}.{part(payload)}.{make(((B64URL, 43),), 'signature')}"


JWT: Final = token({"alg": "HS256", "typ": "JWT"}, {"sub": "mill-7", "iat": 1700000000})

JWE: Final = ".".join(
    [
        part({"alg": "RSA-OAEP", "enc": "A256GCM"}),
        *(make(((B64URL, n),), n) for n in (342, 16, 200, 22)),
    ]
)

BODY: Final = "\n".join(make(((B64, 64),), n) for n in range(4))


def pem(kind: str = "", body: str = BODY) -> str:
    """Return a private key in its armour."""
    return f"-----BEGIN {kind}PRIVATE KEY-----\n{body}\n-----END {kind}PRIVATE KEY-----"


IN_CONTEXT: Final[dict[str, tuple[str, str, str]]] = {
    "aws_secret_key": ("aws_secret_access_key = ", AWS_SECRET, "\n"),
    "private_key": ("Here it is: ", pem("RSA "), "\nKeep it safe."),
    "jwt": ("The token is ", JWT, " for now."),
    "jwe": ("The cookie is ", JWE, " for now."),
    "connection_string": ("postgres://app:", PASSWORD, "@db.mill:5432/main"),
    "azure_function_key": (
        "https://mill.azurewebsites.net/api/run?code=",
        make(((B64URL, 54),), "function") + "==",
        " now",
    ),
    "jwk_private_key": ('{"kty": "EC", "d": "', make(((B64URL, 43),), "jwk"), '"}'),
    "basic_credentials": ('{"auth": "', encode("clerk:" + PASSWORD), '"}'),
    "kubernetes_secret": (
        "kind: Secret\nmetadata:\n  name: db\ndata:\n  PGADMIN: ",
        encode(PASSWORD),
        "\n",
    ),
    "encoded_secret": ("", encode(f"DB_PASSWORD={PASSWORD}\nPORT=5432\n"), "\n"),
    "session_cookie": ("Set-Cookie: session=", make(((LOWER, 32),), "cookie"), "; HttpOnly"),
    "bearer_token": ("Authorization: Bearer ", make(((ALNUM, 24),), "bearer"), '"'),
    "assigned_secret": ("password = '", PASSWORD, "'"),
    "command_password": ("curl -u clerk:", PASSWORD, " https://mill.dev/grain"),
}
"""What needs other text around it: before, the secret, after."""

SAMPLES: Final = [
    *((name, make(shape, name)) for name, shape in SHAPES.items()),
    *((name, make(s, (name, s))) for name, shapes in OTHER_SHAPES.items() for s in shapes),
]


def test_the_tables_cover_the_pack() -> None:
    """Every pattern of the pack has a sample here, and every sample a pattern."""
    assert {p.name for p in DETECTOR._patterns} == SHAPES.keys() | IN_CONTEXT.keys()
    assert OTHER_SHAPES.keys() <= SHAPES.keys()


def test_the_category_is_one_of_the_taxonomy() -> None:
    """The pack declares the one category that it finds, and all evidence speaks for it."""
    assert DETECTOR.categories == ("secret_leak",)
    assert set(DETECTOR.categories) <= set(CATEGORIES)
    assert all(p.evidence > 0 for p in DETECTOR._patterns)


class TestFormats:
    """Keys with a fixed shape."""

    @pytest.mark.parametrize(("name", "key"), SAMPLES)
    def test_is_found_alone(self, name: str, key: str) -> None:
        """The key alone is one finding with its name and the whole key as its span."""
        assert found(key) == [(name, key)]

    @pytest.mark.parametrize(
        "dress",
        [
            '"{}"',
            "`{}`",
            "**{}**",
            '{{\\"k\\": \\"{}\\"}}',
            "k={}\n",
            "({})",
            "<{}>",
            "|{}|",
            "a\n{},b",
            "see {}; then",
        ],
    )
    def test_is_found_in_any_dress(self, dress: str) -> None:
        """Quotes, escaped ones, Markdown, brackets and lines around a key change nothing."""
        assert [(n, k) for n, k in SAMPLES if (n, k) not in found(dress.format(k))] == []

    def test_is_found_at_the_end_of_a_sentence(self) -> None:
        """A full stop behind a key hides nothing, though it may count as the key's."""
        for name, key in SAMPLES:
            spans = [span for label, span in found(f"It is {key}. Keep it.") if label == name]
            assert spans in ([key], [f"{key}."])

    @pytest.mark.parametrize("hidden", ["\u200b", "\u00ad", "\u2060", "\U000e0041", "\ufe0f"])
    def test_is_found_with_invisible_characters_inside(self, hidden: str) -> None:
        """A key that is split by characters that do not show is found, those included."""
        for name, key in SAMPLES:
            third = len(key) // 3
            split = hidden.join([key[:third], key[third : 2 * third], key[2 * third :]])
            assert found(f"It is {split} now") == [(name, split)]

    def test_is_found_in_full_width_characters(self) -> None:
        """A key in full-width characters is found at its place."""
        for name, key in SAMPLES:
            wide = "".join(chr(ord(c) + 0xFEE0) for c in key)
            assert found(f"=> {wide} <=") == [(name, wide)]

    @pytest.mark.parametrize(("name", "shape"), SHAPES.items())
    def test_what_is_no_key(self, name: str, shape: Shape) -> None:
        """Too short a key, one inside a longer word, and a placeholder in its shape are none."""
        key = make(shape, name)
        assert name not in labels(key[:-1])
        assert name not in labels(f"Z{key}")
        assert name not in labels(f"Use {filled(shape)} here")

    @pytest.mark.parametrize("word", ["EXAMPLE", "yourkey", "xxxxxxx"])
    def test_key_that_says_it_is_none(self, word: str) -> None:
        """A provider's own example, or any other that says so, is none."""
        texts = [(name, f"Use {key[: -len(word)]}{word} here") for name, key in SAMPLES]
        assert [(name, text) for name, text in texts if name in labels(text)] == []

    @given(st.sampled_from(sorted(SHAPES)), st.integers(), st.text(max_size=20))
    def test_any_key_of_the_shape_is_found(self, name: str, seed: int, before: str) -> None:
        """Whatever characters a key has and whatever stands before it, it is found."""
        key = make(SHAPES[name], seed)
        assume(real(key))
        assert (name, key) in found(f"{before}\n{key}\n")


class TestInContext:
    """Secrets that need other text around them."""

    @pytest.mark.parametrize(("name", "parts"), IN_CONTEXT.items())
    def test_is_found(self, name: str, parts: tuple[str, str, str]) -> None:
        """The secret is one finding; its span leaves out what stands around it."""
        assert found("".join(parts)) == [(name, parts[1])]

    @pytest.mark.parametrize(("name", "parts"), IN_CONTEXT.items())
    @pytest.mark.parametrize("hidden", ["\u200b", "\u00ad"])
    def test_is_found_with_invisible_characters_inside(
        self, name: str, parts: tuple[str, str, str], hidden: str
    ) -> None:
        """A secret that is split by characters that do not show is found, those included."""
        before, secret, after = parts
        split = f"{secret[:9]}{hidden}{secret[9:]}"
        assert found(f"{before}{split}{after}") == [(name, split)]

    @pytest.mark.parametrize(
        "around",
        [
            '{{"a": "x\\n{0}"}}',
            '{{"a": "{{\\"b\\": \\"\\\\t{0}\\"}}"}}',
            "It is _{0}_.",
            "It is __{0}__!",
            "- a\n-{0}",
            "**{0}**",
            "('_{0}_')",
        ],
    )
    def test_escapes_and_emphasis_hide_no_key(self, around: str) -> None:
        """A line end in raw JSON is a letter, and signs of emphasis are characters of keys."""
        key = make(SHAPES["aws_access_key"], 3)
        assert found(around.format(key)) == [("aws_access_key", key)]

    @given(st.text(st.sampled_from("ab1_-*~. \\n\t\"'()")))
    def test_what_is_set_apart_keeps_its_length(self, text: str) -> None:
        """So that what is found there is where it was."""
        assert len(set_apart(text)) == len(text)

    @pytest.mark.parametrize("cut", ["\x00", "\x08", "\x7f", "\x9b", "\ufff9"])
    def test_controls_hide_no_key(self, cut: str) -> None:
        """What does not show is no part of a key, and is taken out with it."""
        key = make(SHAPES["aws_access_key"], 3)
        hidden = key[:8] + cut + key[8:]
        assert found(f"It is {hidden}.") == [("aws_access_key", hidden)]


class TestNoSecret:
    """What looks like a credential and is none."""

    @pytest.mark.parametrize(
        "text",
        [
            "commit 8f3c1d9a0b7e6f5241c3d2e1f0a9b8c7d6e5f4a3",
            "aws/sdk at 8f3c1d9a0b7e6f5241c3d2e1f0a9b8c7d6e5f4a3",
            "sha256:5b1f0c7de92a4b3866f1d0c9a8e7b6453423120f0e1d2c3b4a59687766554433",
            "id 3f2b8c1e-7a4d-4e0f-9b6a-1c2d3e4f5a6b",
            "integrity=sha384-q0w9e8r7t6y5u4i3o2p1a0s9d8f7g6h5j4k3l2z1x0c9v8b7n6m5Q4W3E2R1T0Y",
            "https://files.mill/a/8f3c1d9a0b7e6f5241c3d2e1f0a9b8c7d6e5f4a3.tar.gz",
            "sk-learn, sk-i-need-a-short-break-from-all-of-this-work",
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ8k2Lq0mZ",
            "ghp_tooshort1 and AKIA alone",
            "xai-grok-2-vision-1212, nvapi-client, tvly-search, csk-48, pul-request-8f3c1d9a",
            "HRKU-dyno-1, sqp_test, bkua_agent, pcsk_index_2, lsv2_pt_name, tskey-auth-name-1",
            "sk_8f3c1d9a0b7e6f5241c3d2e1f0a9b8c7d6e5f4a3",
            "EAAAAAMAAAAAAAAAAABBCCDDEEFF112233 is base64, and ABSK the station at Absk",
            "sk.eyJ1 is where a Mapbox token begins, dt0c01.PUBLIC.PRIVATE a token of Dynatrace",
            "The file glpat-readme.md and the class xoxo-hugs are no tokens.",
        ],
    )
    def test_identifiers(self, text: str) -> None:
        """Hashes, UUIDs, public keys and words with a key's prefix are none."""
        assert found(text) == []

    @pytest.mark.parametrize(
        "value",
        [
            "your-api-key-1",
            "YOUR_API_KEY_1",
            "<your key 1>",
            "<API_KEY_1>",
            "${API_KEY_1}",
            "$(pass show key1)",
            "$API_KEY_1",
            "{{ api_key_1 }}",
            "{api_key_1}",
            "%API_KEY_1%",
            "xxxxxxxxxx12",
            "****ab12****",
            "***abcd1234",
            "****abcd1234",
            "*****abcd1234",
            "******abcd1234",
            "********abcd1234",
            "ab12...yz89",
            "changeme12345",
            "placeholder-77",
            "example-key-12",
            "test_key_12345",
            "0123456789abcdef",
            "abcdefgh12345",
            "[REDACTED-12]",
            "insert-key-2-here",
            "aaaaaaaaaaaa1",
            "password123",
            "my_secret_key_1",
            "account2-access-token",
            "admin:password1",
        ],
    )
    def test_placeholders(self, value: str) -> None:
        """What only holds a secret's place, or says what it is, is none."""
        for dress in ("api_key = {}", 'api_key: "{}"', "The API key is `{}`."):
            assert found(dress.format(value)) == []

    @pytest.mark.parametrize(
        "text",
        [
            "api_key = os.environ['API_KEY_1']",
            "api_key = os.getenv('API_KEY_1')",
            "const token = process.env.API_TOKEN_1;",
            "password = config['db2_password']",
            "password := cfg.db2.password",
            "token = self.settings.oauth2_token",
            "token = load_token2('main')",
            "token = tokens[index2]",
            "secret = Secret<string2>()",
            "password: String = form2.password",
            "secret: arn:aws:secretsmanager:eu-west-1:1122:secret:mill/db2",
            "token: 0x8f3c1d9a0b7e6f5241c3d2e1f0a9b8c7d6e5f4a3",
            "private_key: file:///etc/mill/key2.pem",
            "token_url = https://login.mill/oauth2/token",
            "password must have 8 characters and 1 digit",
            "The token is valid for 3600s.",
            "max_tokens=128000, pad_token_id=50256",
            '"token_type": "bearer2", "expires_in": 3600',
        ],
    )
    def test_references_and_prose(self, text: str) -> None:
        """Names, calls, addresses and sentences about secrets are none."""
        assert found(text) == []

    def test_providers_own_examples(self) -> None:
        """The keys that a provider's documentation prints are none."""
        key, secret = "AKIAIOSFODNN7" + "EXAMPLE", "wJalrXUtnFEMI/K7MDENG/" + "bPxRfiCYEXAMPLEKEY"
        assert found(f"aws_access_key_id = {key}\naws_secret_access_key = {secret}") == []


class TestAwsSecret:
    """Forty characters of base64 behind the letters AWS."""

    @pytest.mark.parametrize(
        "before", ["AWS_SECRET_ACCESS_KEY=", "aws secret: ", '"awsSecretKey": "', "AWS: "]
    )
    def test_any_spelling_will_do(self, before: str) -> None:
        """The letters count in either case, with whatever name follows."""
        assert found(f"{before}{AWS_SECRET} ") == [("aws_secret_key", AWS_SECRET)]

    def test_without_the_letters_nothing_is_found(self) -> None:
        """Forty such characters alone may be anything."""
        assert found(f"digest {AWS_SECRET} ") == []

    def test_another_length_is_none(self) -> None:
        """Thirty-nine or forty-one characters are none."""
        assert found(f"aws {AWS_SECRET[:-1]} ") == []
        assert found(f"aws {AWS_SECRET}A ") == []


class TestPrivateKey:
    """Armoured private keys."""

    @pytest.mark.parametrize("kind", ["", "RSA ", "EC ", "DSA ", "OPENSSH ", "ENCRYPTED "])
    def test_every_kind_is_found_whole(self, kind: str) -> None:
        """The span is the key from its first line to its last."""
        key = pem(kind)
        assert found(f"Here:\n\n{key}\n\nDone.") == [("private_key", key)]

    def test_pgp_block(self) -> None:
        """A PGP private key block with its headers is found whole."""
        key = (
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\nVersion: Mill 1.2\nComment: made up\n\n"
            f"{BODY}\n=ab1C\n-----END PGP PRIVATE KEY BLOCK-----"
        )
        assert found(key) == [("private_key", key)]

    @pytest.mark.parametrize(
        "gap",
        [
            *("\r\n", "\\n", "\\\\n", "\n> ", '\\n"\n  + "', "\n    ", "\n\n", '",\n"', "\n| "),
            *("\n# ", "\n// ", "\n * ", "<br>", "<br />\n", "\n12  "),
        ],
    )
    def test_any_line_end_will_do(self, gap: str) -> None:
        """Lines may be escaped, quoted, cited, commented or numbered, as in JSON, code and HTML."""
        key = pem().replace("\n", gap)
        assert found(f"k = {key}") == [("private_key", key)]

    def test_a_cut_key_is_found(self) -> None:
        """A key whose end is missing is one all the same."""
        cut = pem()[:150]
        assert found(cut) == [("private_key", cut)]

    def test_two_keys_are_two_findings(self) -> None:
        """Each key has a finding of its own."""
        assert [label for label, _ in found(f"{pem()}\n\n{pem('EC ')}")] == ["private_key"] * 2

    @pytest.mark.parametrize(
        "text",
        [
            "A key begins with -----BEGIN PRIVATE KEY----- and ends -----END PRIVATE KEY-----.",
            "Look for the line `-----BEGIN RSA PRIVATE KEY-----` in the file.",
            "-----BEGIN PRIVATE KEY-----\n...\n-----END PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\n<your key here>\n-----END PRIVATE KEY-----",
            f"-----BEGIN PUBLIC KEY-----\n{BODY}\n-----END PUBLIC KEY-----",
            f"-----BEGIN CERTIFICATE-----\n{BODY}\n-----END CERTIFICATE-----",
        ],
    )
    def test_no_key_without_a_body(self, text: str) -> None:
        """Talk about keys, placeholders, public keys and certificates are none."""
        assert found(text) == []


def ppk(lines: int = 3, version: int = 3) -> str:
    """Return a private key as PuTTY keeps it."""
    rows = [make(((B64, 64),), ("ppk", n)) for n in range(lines)]
    end = f"Private-Lines: {lines}\n" + "\n".join([*rows[:-1], rows[-1][:28] + "=="])
    head = f"PuTTY-User-Key-File-{version}: ssh-rsa\nEncryption: none\nComment: mill\n"
    return f"{head}Public-Lines: 1\n{rows[0]}\n{end}\nPrivate-MAC: {make(((HEX, 64),), 'mac')}"


ENVIRONMENT: Final = f"MILL=weir\nAWS_SECRET_ACCESS_KEY={make(((B64, 40),), 'aws')}\nPORT=80\n" * 2


class TestEncoded:
    """Credentials in base64."""

    @pytest.mark.parametrize("width", [60, 64, 76, 80, 4000])
    @pytest.mark.parametrize("gap", ["\n", "\r\n", "\n    "])
    def test_a_file_is_found_whole(self, width: int, gap: str) -> None:
        """Base64 of settings is, in one line or as tools break it."""
        plain = encode(ENVIRONMENT)
        key = gap.join(plain[at : at + width] for at in range(0, len(plain), width))
        assert found(f"Here it is:\n\n{key}\n\nKeep it.") == [("encoded_secret", key)]

    def test_it_may_be_encoded_twice(self) -> None:
        """What base64 stands for is read as any text."""
        assert [label for label, _ in found(encode(encode(ENVIRONMENT)))] == ["encoded_secret"]

    @pytest.mark.parametrize(
        "text",
        [
            encode("The mill stood still while the rain fell on the weir. " * 9),
            encode('<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0h24v24"/></svg>'),
            encode('{"name": "mill", "password": "<your-password>", "port": 5432}'),
            encode("DB_PASSWORD=changeme\nTOKEN=${TOKEN}\n"),
            "iVBORw0KGgoAAAANSUhEUg" + make(((B64, 300),), "png"),
            "sha512-" + make(((B64, 86),), "lock") + "==",
            make(((HEX, 64),), "hash"),
            "internationalizationAndLocalizationOfEverything",
            "/usr/local/lib/python3/site-packages/mill/weir/settings/base",
        ],
    )
    def test_ordinary_base64_is_none(self, text: str) -> None:
        """Texts, pictures, digests, placeholders and paths are none."""
        assert found(f"{text}\n") == []

    def test_a_whole_configuration_of_docker_is_found(self) -> None:
        """A Kubernetes secret may hold a file with credentials in it."""
        login = encode("clerk:" + PASSWORD)
        value = encode('{"auths":{"registry.weir.org":{"auth":"' + login + '"}}}')
        text = f"kind: Secret\ndata:\n  .dockerconfigjson: {value}\n"
        assert value in [span for _, span in found(text)]

    @pytest.mark.parametrize(
        "line",
        [
            f"username: {encode('weir-clerk7')}",
            f"POSTGRES_HOST: {encode('db7.weir.internal')}",
            f"tls.crt: {encode('-----BEGIN CERTIFICATE-----')}",
            f"greeting: {encode('good morning to you')}",
            f"digest: {make(((B64, 44),), 'digest')}",
        ],
    )
    def test_what_else_is_in_a_kubernetes_secret_is_none(self, line: str) -> None:
        """Names, hosts, certificates and words are none."""
        assert found(f"kind: Secret\ndata:\n  {line}\n") == []

    def test_only_a_secret_holds_secrets(self) -> None:
        """Elsewhere a short value in base64 says nothing."""
        assert found(f"kind: ConfigMap\nbinaryData:\n  icon: {encode(PASSWORD)}\n") == []

    @pytest.mark.parametrize(
        "plain",
        [
            "aladdin:opensesame",
            "Aladdin:open sesame",
            "Aladdin:OpenSesame",
            "username:password",
            "clerk:clerk",
            "a:${P}",
        ],
    )
    def test_specimens_of_basic_authentication_are_none(self, plain: str) -> None:
        """What introductions show is nobody's password in a settings file."""
        assert found(f'{{"auth": "{encode(plain)}"}}\n') == []

    @pytest.mark.parametrize("plain", ["bo:s3cr3t", "clerk:weirhouse", "clerk:tR9v:Q2x"])
    def test_short_basic_credentials_are_found(self, plain: str) -> None:
        """A user and a password are, however short."""
        value = encode(plain)
        assert found(f'{{"auth": "{value}"}}') == [("basic_credentials", value)]

    @pytest.mark.parametrize(
        "plain", ["clerk:weirhouse", "mill-admin:openthegate", "clerk:kV8mQz2Lp9xT"]
    )
    def test_a_header_holds_a_credential_whatever_the_password(self, plain: str) -> None:
        """What is sent may be a word: the header says that it is one."""
        value = encode(plain)
        assert found(f"Authorization: Basic {value}") == [("bearer_token", value)]


class TestWrapped:
    """Keys with line ends in them."""

    @pytest.mark.parametrize("width", [64, 76, 80])
    @pytest.mark.parametrize("name", ["anthropic_key", "github_fine_grained_token"])
    def test_is_found_whole(self, name: str, width: int) -> None:
        """A long key that a terminal or a mail broke is one finding."""
        key = "9".join([f"{dict(SAMPLES)[name]}", make(((ALNUM, 60), (DIGIT, 9)), name)])
        broken = "\n".join(key[at : at + width] for at in range(0, len(key), width))
        assert found(f"Here:\n{broken}\n\nKeep it.") == [(name, broken)]

    @pytest.mark.parametrize("width", [64, 76, 80])
    def test_a_token_is_found_whole(self, width: int) -> None:
        """So is a signed token of several lines."""
        payload = encode(json.dumps({"sub": "weir-clerk-7 " * 12})).rstrip("=")
        header = encode('{"alg":"RS256","typ":"JWT"}').rstrip("=")
        token = ".".join([header, payload, make(((B64URL, 340), (DIGIT, 9)), "token")])
        broken = "\n".join(token[at : at + width] for at in range(0, len(token), width))
        assert found(f"Here:\n{broken}\n\nKeep it.") == [("jwt", broken)]

    def test_words_behind_a_key_are_not_its_end(self) -> None:
        """A line of words is no rest of the key above it."""
        key = "github_pat_" + make(((ALNUM, 82),), "words")
        text = f"{key}\nKeep it well"
        assert found(text) == [("github_fine_grained_token", key)]


class TestSsh2Key:
    """Private keys as RFC 4716 writes them."""

    @pytest.mark.parametrize("kind", ["SSH2 ENCRYPTED PRIVATE KEY", "SSH2 PRIVATE KEY"])
    @pytest.mark.parametrize("head", ["", 'Comment: "rsa-key"\n', "Subject: mill\nComment: a\n"])
    def test_is_found_whole(self, kind: str, head: str) -> None:
        """The span is the key with both its signs and its header."""
        body = "\n".join(make(((B64, 70),), ("ssh2", n)) for n in range(9))
        key = f"---- BEGIN {kind} ----\n{head}{body}\n---- END {kind} ----"
        assert found(f"Here: {key}\n\nKeep it.") == [("private_key", key)]

    @pytest.mark.parametrize(
        "text",
        [
            "It begins with ---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ---- and has base64 in it.",
            f"---- BEGIN SSH2 PUBLIC KEY ----\n{BODY}\n---- END SSH2 PUBLIC KEY ----",
        ],
    )
    def test_talk_and_public_keys_are_none(self, text: str) -> None:
        """Prose about such a key and a public one are none."""
        assert found(text) == []


class TestPuttyKey:
    """Private keys as PuTTY keeps them."""

    @pytest.mark.parametrize("lines", [1, 2, 14])
    @pytest.mark.parametrize("gap", ["\n", "\r\n", "\\n", "\n> "])
    def test_is_found_whole(self, lines: int, gap: str) -> None:
        """The span is the file from its first line to its last."""
        key = ppk(lines).replace("\n", gap)
        assert found(f"Here: {key}\n\nKeep it.") == [("private_key", key)]

    def test_the_private_part_is_found_alone(self) -> None:
        """The rest of the file may be missing, and its end cut off."""
        key = ppk(2)
        key = key[key.index("Private-Lines") : key.index("Private-MAC") - 1]
        assert found(f"{key}\n") == [("private_key", key)]

    @pytest.mark.parametrize(
        "text",
        [
            "A PuTTY-User-Key-File-3: has Public-Lines: 6 and then Private-Lines: 14 of base64.",
            "Private-Lines: 14\n<your key here>\nPrivate-MAC: <hash>",
            "Private-Lines: 1\nnot a key\n",
        ],
    )
    def test_talk_about_it_is_none(self, text: str) -> None:
        """Prose and placeholders are none."""
        assert found(text) == []


class TestJwt:
    """Signed tokens."""

    def test_an_encrypted_one_without_a_key_is_found(self) -> None:
        """Where the key was agreed on its part is empty."""
        header, _, *rest = JWE.split(".")
        jwe = ".".join([header, "", *rest])
        assert found(f'"{jwe}"') == [("jwe", jwe)]

    def test_five_other_parts_are_none(self) -> None:
        """A header that does not name an encryption makes nothing encrypted."""
        assert found(".".join([part({"alg": "x"}), *JWE.split(".")[1:]])) == []

    def test_a_long_one_is_found_whole(self) -> None:
        """A payload and a signature may be as long as they like."""
        jwt = f"{part({'alg': 'x'})}.{part({'a': 'b' * 9000})}.{make(((B64URL, 2000),), 'long')}"
        assert found(f'"{jwt}"') == [("jwt", jwt)]

    @pytest.mark.parametrize("algorithm", ["HS256", "RS256", "ES512", "none"])
    def test_every_algorithm_is_found(self, algorithm: str) -> None:
        """A header that names an algorithm makes a token."""
        jwt = token({"alg": algorithm}, {"sub": "mill", "admin": False})
        assert found(f'"{jwt}"') == [("jwt", jwt)]

    @pytest.mark.parametrize("header", [{"typ": "JWT", "kid": "k1"}, {"a": {"alg": 1}, "b": 2}])
    def test_no_token_without_an_algorithm(self, header: object) -> None:
        """Other JSON in base64 is no token."""
        assert found(token(header, {"sub": "mill", "n": 1})) == []

    def test_the_specimen_is_none(self) -> None:
        """The token that every introduction prints is none."""
        assert found(token({"alg": "HS256"}, {"sub": "1234567890", "name": "J"})) == []

    @given(st.one_of(st.text(), st.binary().map(lambda b: base64.urlsafe_b64encode(b).decode())))
    def test_no_header_breaks_the_check(self, header: str) -> None:
        """Whatever a header decodes to, the check answers."""
        assert is_jwt(f"{header}.{header}.x") in (True, False)

    def test_hostile_nesting_is_no_token(self) -> None:
        """A header nested a hundred thousand deep is refused and crashes nothing."""
        deep = base64.urlsafe_b64encode(b"[" * 100_000).decode()
        assert is_jwt(f"{deep}.{deep}.x") is False


class TestConnectionString:
    """Passwords in addresses."""

    @pytest.mark.parametrize(
        "before",
        [
            "postgresql://app:",
            "postgresql+asyncpg://app:",
            "mysql://root:",
            "mongodb+srv://app:",
            "redis://:",
            "amqps://app:",
            "https://deploy:",
            "jdbc:sqlserver://sa:",
        ],
    )
    def test_every_scheme_is_found(self, before: str) -> None:
        """Whatever the scheme, the password is the span."""
        assert found(f"{before}{PASSWORD}@db.mill/x") == [("connection_string", PASSWORD)]

    @pytest.mark.parametrize("secret", ["Zk9@hd+K2", "pq%40Zk9%21hd", "a:Zk9:hd", "Zk9*hd$K2!"])
    def test_odd_characters_are_part_of_it(self, secret: str) -> None:
        """Of several `@` the last one ends the password; colons and escapes belong to it."""
        assert found(f"ftp://app:{secret}@files.mill") == [("connection_string", secret)]

    @pytest.mark.parametrize(
        "text",
        [
            "postgres://user:password@localhost/db",
            "postgres://postgres:postgres@localhost/db",
            "oracle://scott:tiger@host/db",
            "mysql://root:my_password1@localhost/db",
            "postgres://app:${DB_PASS}@db/main",
            "postgres://app:$DB_PASS@db/main",
            "postgres://app:{password}@db/main",
            "postgres://app:<password>@db/main",
            "postgres://app:%DB_PASS%@db/main",
            "postgresql://test:test@localhost/test",
            "postgresql://airflow:airflow@postgres/airflow",
            "postgresql://airflow:airflow@db.mill.dev/airflow",
            "mongodb://mongo:mongo@db",
            "amqp://rabbitmq:rabbitmq@mq.mill.dev:5672",
            "ftp://anonymous:anonymous@ftp.mill.dev",
            "postgres://foo:bar@localhost:5432/db",
            "postgres://foo:bar@127.0.0.1/db",
            "postgres://foo:bar@db.example.com/db",
            "redis://:redis@cache:6379",
            "mysql://root:toor@host.docker.internal/db",
            "postgres://app:***@db/main",
            "postgres://app@db/main",
            "http://localhost:8080/a@b",
            "https://mill.dev:443?mail=a@b.c",
            "http://[::1]:8080/@x",
        ],
    )
    def test_no_password(self, text: str) -> None:
        """Placeholders, public defaults, ports and addresses without a password are none."""
        assert "connection_string" not in labels(text)

    @pytest.mark.parametrize(
        ("text", "secret"),
        [
            ("postgres://foo:bar@db.mill.dev/db", "bar"),
            ("redis://:redis@cache.mill.dev:6379", "redis"),
            ("postgres://test:test2@db/x", "test2"),
            ("postgres://tests:test@db.mill.dev/x", "test"),
            (f"postgres://test:{PASSWORD}@localhost/test", PASSWORD),
            (f"postgres://test:test{PASSWORD}@localhost/test", f"test{PASSWORD}"),
            (f"https://{PASSWORD}:{PASSWORD}@git.mill.dev/x", PASSWORD),
            ("postgres://foo:bar@localhost.mill.dev/db", "bar"),
        ],
    )
    def test_a_default_elsewhere_is_a_password(self, text: str, secret: str) -> None:
        """Defaults count where others may log in; a key that stands for both is no name."""
        assert ("connection_string", secret) in found(text)


class TestBearer:
    """Tokens in an authorisation header."""

    TOKEN = make(((ALNUM, 20),), "a bearer")

    @pytest.mark.parametrize(
        "before",
        [
            "Authorization: Bearer ",
            "authorization: bearer ",
            "Authorization: Basic ",
            "'Authorization': 'token ",
            '"Authorization": "Bearer ',
            "Authorization = Bearer  ",
            "Authorization: ApiKey ",
            'headers["Authorization"] = "Bearer ',
            "set('Authorization', 'Bearer ",
            "Bearer ",
        ],
    )
    def test_every_spelling_is_found(self, before: str) -> None:
        """Case, quotes and the scheme do not matter; the token is the span."""
        assert found(f"{before}{self.TOKEN} ") == [("bearer_token", self.TOKEN)]

    @pytest.mark.parametrize(
        "value",
        ["<token>", "$ACCESS_TOKEN", "${ACCESS_TOKEN}", "{token}", "YOUR_ACCESS_TOKEN_1", "x" * 20],
    )
    def test_no_placeholder(self, value: str) -> None:
        """What stands for a token is none."""
        assert found(f"Authorization: Bearer {value}") == []


class TestAssigned:
    """A secret's name and its value."""

    @pytest.mark.parametrize(
        "dress",
        [
            "DB_PASS={}",
            "user=x&pass={}",
            "pw: {}",
            "RAILS_MASTER_KEY={}",
            'ENCRYPTION_KEY="{}"',
            "Your API key is: {}",
            "The password was {} until May.",
            "Das Passwort lautet {}",
            "Kennwort: {}",
            "Mot de passe : {}",
            "contrase\u00f1a: {}",
            "\u041f\u0430\u0440\u043e\u043b\u044c: {}",
            "\u5bc6\u7801\uff1a{}",
            "<password>{}</password>",
            "<b>Password:</b> <code>{}</code>",
            "<tr><td>Password</td><td>{}</td></tr>",
            "| Password | {} |",
            "| **DB_PASSWORD** | `{}` |",
            '<add key="ApiKey" value="{}"/>',
            "- name: DB_PASSWORD\n  value: {}",
            'password: str = "{}"',
            'var apiKey string = "{}"',
            'const API_KEY: &str = "{}";',
            "define('DB_PASSWORD', '{}');",
            'os.getenv("API_KEY", "{}")',
            'client.setPassword("{}")',
            'if password == "{}":',
            "run --password {} --user x",
            "ENV API_KEY {}",
            '#define API_KEY "{}"',
            "machine mill login x password {}",
        ],
    )
    def test_is_found_where_tools_and_people_write_it(self, dress: str) -> None:
        """In files, commands, code, tables and sentences, of other languages too."""
        value = password("the password", 20)
        assert ("assigned_secret", value) in found(dress.format(value))

    @pytest.mark.parametrize(
        "text",
        [
            "| Token | Uint8Array |",
            "| password | string2 |",
            "Vec<Token>from_bytes2",
            '["token", "oauth2_verifier", "x"]',
            'Password("Must contain 8 characters")',
            "Encryption key: AES-256-GCM",
            "The signing key is ECDSA-P256.",
            "echo $PASSWORD | sha256sum",
            "passengers: 120of150x",
            "--token-type oauth2bearer",
            "Bearer authentication2 of the application",
            "Set-Cookie: session_id=the_session_identifier1; Path=/",
        ],
    )
    def test_types_parameters_and_ciphers_are_none(self, text: str) -> None:
        """What stands behind a secret's name is no secret where it is made of words."""
        assert found(text) == []

    @pytest.mark.parametrize(
        "name",
        [
            "api_key",
            "API-Key",
            "apikey",
            "API key",
            "client_secret",
            "secret_key",
            "Secret Key",
            "SECRET",
            "access_token",
            "refreshToken",
            "private_key",
            "DB_PASSWORD",
            "passwd",
            "pwd",
            "passphrase",
            "credentials",
            "access key",
        ],
    )
    def test_every_name_and_sign_is_found(self, name: str) -> None:
        """Whatever a secret is called and however it is assigned, the value is the span."""
        for sign in ("=", " = ", ": ", ":=", " => ", " is "):
            assert found(f"{name}{sign}{PASSWORD}\n") == [("assigned_secret", PASSWORD)]

    @pytest.mark.parametrize(
        "dress",
        [
            'password: "{}"',
            "password: '{}'",
            "password: `{}`",
            "**password:** {}",
            "**password**: `{}`",
            "*password* = *{}*",
            "- **Password:** **{}**",
            "`password` is `{}`",
            '"password": "{}",',
            '{{\\"password\\": \\"{}\\"}}',
            '{{\\\\\\"password\\\\\\": \\\\\\"{}\\\\\\"}}',
            "password={};Server=db",
            "(password: {})",
            "password:\n{}",
        ],
    )
    def test_is_found_in_any_dress(self, dress: str) -> None:
        """Markdown, quotes and escaped quotes are not part of the value and hide nothing."""
        assert found(dress.format(PASSWORD)) == [("assigned_secret", PASSWORD)]

    @pytest.mark.parametrize(
        "value",
        ["Zk9-hdK2-pq71", "maple-drum-0417", "hd8!kQ2#zW", "3f2b8c1e-7a4d-4e0f-9b6a-1c2d3e4f5a6b"],
    )
    def test_values(self, value: str) -> None:
        """Passwords, pass phrases with a number and UUIDs are secrets where they are assigned."""
        assert found(f"password = '{value}'") == [("assigned_secret", value)]

    @pytest.mark.parametrize(
        "value", ["letters", "onlyletters", "12345678901", "Zk9hd", "aa11aa11"]
    )
    def test_weak_values(self, value: str) -> None:
        """Words, numbers, and what is short or monotonous may be anything."""
        assert found(f"password = {value}") == []

    @given(st.text(alphabet=ALNUM + "!#%&+-/=?@^_|~.:$*", max_size=40))
    def test_the_check_agrees_with_the_pack(self, value: str) -> None:
        """The pack finds no value that the check would reject."""
        spans = [
            span for label, span in found(f"password = '{value}'") if label == "assigned_secret"
        ]
        assert all(map(assigned, spans))


LONG: Final = make(((B64, 3000),), "a long value")

CUT: Final = (
    "Xk92fLq!ab;c7Zq99Rt-77",
    "uV}3kQz[9rT&x2Lm",
    "Xk92fLq!ab(c7Zq99Rt-77",
    "Xk9,2fLq!aa7Zq",
)
"""Made-up passwords with signs that end a bare value."""


class TestCommand:
    """Passwords that programs take in options that do not say so."""

    @pytest.mark.parametrize(
        "command",
        [
            "curl -sS -X POST \\\n  -u 'clerk:{}' https://mill.dev/grain?a=1&b=2",
            "curl --user=clerk:{} https://mill.dev",
            "curl --proxy-user clerk:{} https://mill.dev",
            "http -a clerk:{} GET mill.dev/grain",
            "sshpass -p '{}' ssh clerk@mill.dev",
            "sshpass -p{} ssh clerk@mill.dev",
            "mysql -u clerk -p{} grain",
            "mysqldump --single-transaction -uclerk -p{} grain > grain.sql",
            "redis-cli -h cache -a {} ping",
            "docker login -u clerk -p {} registry.mill.dev",
            "mongosh -u clerk -p {}",
            "sqlcmd -S db -U clerk -P {}",
            "ldapsearch -x -D cn=clerk -w {} -b dc=mill",
            "smbclient //mill/grain -U 'clerk%{}'",
            'unzip -P "{}" grain.zip',
            "7z x -p{} grain.7z",
            "winrs -r:mill -u:clerk -p:{} dir",
            "net use Z: \\\\mill\\grain {} /user:clerk",
            "net user clerk {} /add",
            "echo '{}' | sudo -S reboot",
            "echo 'clerk:{}' | sudo chpasswd",
            "echo {} | docker login -u clerk --password-stdin",
        ],
    )
    @pytest.mark.parametrize("value", ["harvest9", "Barley!Oats", password("long", 40)])
    def test_is_found(self, command: str, value: str) -> None:
        """Whatever the program, and where people chose the password, too."""
        text = f"Run this:\n\n    {command.format(value)}\n"
        assert ("command_password", value) in found(text)

    @pytest.mark.parametrize(
        "command",
        [
            "curl -u user:password https://mill.dev",
            "curl -u username:api_token2 https://mill.dev",
            "curl -u clerk:p4ssw0rd https://mill.dev",
            'curl -u "$USER1:${PASS1}" https://mill.dev',
            "curl -u admin:Admin123 localhost",
            "curl -u clerk https://mill.dev/a1b2c3d4",
            "millmap -u http://192.168.7.7:8080/grain -v",
            "mysql -u root -p grain2024",
            "mysql -uroot -p$PASS1 grain",
            "docker login -u foo -p bar12345",
            "docker run -p 8080:80 -u 1000:1000a mill",
            "ssh -p 22022 clerk@mill.dev",
            "mkdir -p grain1/oats2",
            "unzip -P secret grain.zip",
            "unzip -p Grain-2.1.jar META-INF/MANIFEST.MF",
            "sshpass -p your_password1 ssh mill",
            "sqlcmd -U clerk -P <YourStrong!Passw0rd>",
            "echo barley5oats | sudo tee /etc/mill",
        ],
    )
    def test_no_password(self, command: str) -> None:
        """Placeholders, variables, what everybody writes, and options that mean something else."""
        assert found(command) == []

    def test_a_long_token_is_found_whole(self) -> None:
        """Some services make tokens of two hundred characters for what takes a password."""
        value = password("a service's", 192)
        for command in (f"curl -u clerk:{value} x", f"redis-cli -a '{value}'"):
            assert ("command_password", value) in found(command)

    def test_what_is_quoted_may_have_spaces(self) -> None:
        """Only the quotation mark ends it."""
        assert found("mysql -p'Barley & 2 Oats' grain") == [("command_password", "Barley & 2 Oats")]

    def test_the_program_must_be_near(self) -> None:
        """An option in another command, or further behind than commands are long, is none."""
        assert found(f"curl https://mill.dev\ngrind -u clerk:{PASSWORD}") == []
        assert found(f"curl https://mill.dev {'a ' * 120} -u clerk:{PASSWORD}") == []


class TestWholeValue:
    """The whole value is the span, whatever signs it has and however long it is."""

    @pytest.mark.parametrize("value", [*CUT, "Xk92fLq!ab{c7}[Zq]<99Rt", ";Xk92fLq(7Zq99", LONG])
    @pytest.mark.parametrize(
        "dress",
        [
            'POSTGRES_PASSWORD: "{}"\n',
            "export DB_PASSWORD='{}'",
            "connect(host='db.mill', password='{}')",
            'The password is "{}" for now.',
            "The password is `{}`.",
            '{{"password": "{}", "user": "x1"}}',
            '{{\\"password\\": \\"{}\\", \\"user\\": \\"x1\\"}}',
            "- **Password:** `{}`",
        ],
    )
    def test_in_quotes(self, dress: str, value: str) -> None:
        """In quotes nothing but the closing one ends a value."""
        assert found(dress.format(value)) == [("assigned_secret", value)]

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ('password = "Xk92\\"fLq!ab7Zq"', 'Xk92\\"fLq!ab7Zq'),
            ('password = "Xk92fLq!ab7Zq\\\\" + x', "Xk92fLq!ab7Zq\\\\"),
            ('{\\"password\\": \\"Xk92\\\\\\"fLq!ab7Zq\\"}', 'Xk92\\\\\\"fLq!ab7Zq'),
            ('password = "Xk92\'fLq!ab7Zq"', "Xk92'fLq!ab7Zq"),
            ('password = "Xk92fLq!ab c7Zq99Rt-77", x', "Xk92fLq!ab c7Zq99Rt-77"),
            ('password = "Xk92fLq!ab(c7Zq99', "Xk92fLq!ab(c7Zq99"),
            ('password = "Xk92fLq!ab\nuser = "x"', "Xk92fLq!ab"),
            (f'password = "Xk92fLq!ab {"and so on " * 10}"', "Xk92fLq!ab"),
        ],
    )
    def test_to_the_closing_quote(self, text: str, value: str) -> None:
        """Escaped quotes belong to a value, and spaces where its end is on the line and near."""
        assert found(text) == [("assigned_secret", value)]

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("password: Xk92fLq!;c7Zq99Rt77 please", "Xk92fLq!;c7Zq99Rt77"),
            ("DB_PASSWORD=Xk92fLqa{c7Zq99Rt77\n", "Xk92fLqa{c7Zq99Rt77"),
            ("DB_PASSWORD=Xk92fLqa)}c7Zq99Rt77\n", "Xk92fLqa)}c7Zq99Rt77"),
            ("password: Xk9,2fLq!aa7Zq", "Xk9,2fLq!aa7Zq"),
            ("Password=k7Zq93Rt5w;Server=db2;Pooling=1x", "k7Zq93Rt5w"),
            ("connect(password=k7Zq93Rt5w,user2=x)", "k7Zq93Rt5w"),
            ("{password:k7Zq93Rt5w,port:80a}", "k7Zq93Rt5w"),
            ("(password: k7Zq93Rt5w), 2nd", "k7Zq93Rt5w"),
            ("password=k7Zq93Rt5w,backup2,x", "k7Zq93Rt5w"),
            ("use(password=k7Zq93Rt5w).then2()", "k7Zq93Rt5w"),
        ],
    )
    def test_without_quotes(self, text: str, value: str) -> None:
        """Signs belong to a bare value where what follows is as random; else they end it."""
        assert found(text) == [("assigned_secret", value)]

    @pytest.mark.parametrize(
        "before", ["aws_session_token = ", "token: ", "Authorization: Bearer "]
    )
    def test_long_values(self, before: str) -> None:
        """A long value ends where the run ends."""
        assert [value for _, value in found(f"{before}{LONG}\n")] == [LONG]

    @pytest.mark.parametrize(
        "text",
        [
            '"token=",getToken1(),"&x"',
            '"token="+getToken1()+"&x"',
            'f("password:",hash1(y),"b")',
            'token: "vault.read(x1)"',
            'password = "load_key2(path)"',
            'credentials=\'{"user":"x1","id":2}\'',
            '"password": "^(?=.*[A-Z])(?=.*[0-9]).{8,}$"',
            'password: "[a-z0-9]{8,32}"',
            'token: "header,query2,body"',
            'token: "a1;b2;c3;d4"',
            '"password": "Must have 8-20 characters, 1 digit"',
            "token = hash1(b64decode(x))",
            "api_key = get(k8s_secret)",
            "SELECT token,x1y2z3w4 FROM t",
        ],
    )
    def test_code_is_none(self, text: str) -> None:
        """Calls, JSON, regular expressions, lists and what stands between two strings are none."""
        assert found(text) == []


class TestReferences:
    """Names that code gives its settings, and values that only look like such names."""

    @pytest.mark.parametrize(
        "value",
        [
            "import.meta.env.VITE_AUTH0_TOKEN",
            "Config.OPENAI_API_KEY_V2",
            "settings.S3_API_KEY",
            "config.API_KEY_V2",
            "user?.password2",
            "this.$store.authToken2",
            "environment.OAuth2Token!",
            "kubernetes.io/tls-v1beta1",
            "CLIENT_SECRET_V2_PROD",
            "OPENAI_API_KEY_2",
        ],
    )
    def test_names_are_none(self, value: str) -> None:
        """Dotted names in any case and constants are references, in code and in YAML."""
        for dress in ("token: {}", "Client(api_key={})", "{{ token: {} }}", "secret = {};"):
            assert found(dress.format(value)) == []

    @pytest.mark.parametrize("seed", range(20))
    @pytest.mark.parametrize(
        "shape",
        [
            ("k", (ALNUM, 9), ".", "q", (ALNUM, 24)),
            ((string.ascii_uppercase, 3), "7", (CAPITAL, 8), "_", (CAPITAL, 12)),
            (*((CAPITAL, 4), "_") * 4, "7X2Q"),
            ("vault.mill/", (ALNUM, 24)),
            ("K7", (CAPITAL, 22)),
        ],
    )
    def test_random_tokens_are_found(self, shape: Shape, seed: int) -> None:
        """Letters drawn at random make up no words."""
        value = make(shape, seed)
        assert found(f"token = {value}\n") == [("assigned_secret", value)]


class TestEntropy:
    """Bits per character."""

    def test_known_values(self) -> None:
        """Nothing and one letter have none, two letters one bit, sixteen digits four bits."""
        assert [entropy(text) for text in ("", "aaaa", "abab", HEX)] == [0, 0, 1, 4]

    @given(st.text(min_size=1))
    def test_bounds(self, text: str) -> None:
        """It does not depend on the order, and many different letters make the most of it."""
        assert math.isclose(entropy(text[::-1]), entropy(text), abs_tol=1e-9)
        assert 0 <= entropy(text) <= math.log2(len(set(text))) + 1e-9
