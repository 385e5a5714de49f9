"""Ordinary text: numbers, names and code as answers are full of them give no finding."""

from __future__ import annotations

from typing import Final

import pytest

from guard.detectors.personal import personal_data_detector
from guard.detectors.secrets import secret_detector

PACKS = (secret_detector(), personal_data_detector())

SENTENCES: Final = (
    # Versions and builds
    "Python 3.12.1 replaced 3.11.9 in February, and pip went from 23.3.2 to 24.0.",
    "The build 10.0.19045.3803 is newer than version 10.0.19044.1288.",
    "Figure 4.1.2.3 repeats what section 2.1.1.4 says.",
    "npm install @types/node@20.10.5 react@18.2.0-rc.1",
    "The image is registry.mill/tools/grinder:2.4.1-alpine3.19@sha256:5b1f0c7de92a4b38.",
    # Dates and times
    "The meeting of 12.03.2024 at 14:30 moves to 19/03/2024, 09:15-10:45.",
    "2023-10-05T14:48:00.123Z INFO started in 00:00:12.345",
    "Call us between 2024-03-04 and 2024-03-08, or text before 05.03.2024 18:00.",
    "The timestamps 1700000000 and 1700000000000 mean the same second.",
    "Opening hours: 08:00-12:00 and 13:30-17:45; phone support until 16:00.",
    # Orders, parcels and articles
    "Order 4500123456 was shipped as parcel 1Z 999 AA1 01 2345 6784.",
    "Invoice INV-2024-000123 over EUR 1,299.00 is due on 31/12/2024.",
    "ISBN 978-3-16-148410-0, ISSN 2049-3630, EAN 4006381333931.",
    "Part no. 12-3456-789 fits model XR-2000B; the serial is SN0042-7781-AC.",
    "Booking reference K7PQ2M, flight BA2490, seat 14C, gate B22.",
    # Hashes and identifiers
    "Commit 8f3c1d9a0b7e6f5241c3d2e1f0a9b8c7d6e5f4a3 mends issue #1234.",
    'The row has the id 3f2b8c1e-7a4d-4e0f-9b6a-1c2d3e4f5a6b and etag W/"6f5902ac237024bd".',
    "sha256 5b1f0c7de92a4b3866f1d0c9a8e7b6453423120f0e1d2c3b4a59687766554433  grain.tar.gz",
    "md5: 7d793037a0760186574b0282f2f435e7, crc32: cbf43926",
    "The contract is at 0x8f3c1d9a0b7e6f5241c3d2e1f0a9b8c7d6e5f4a3.",
    "trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7",
    # Mathematics and physics
    "Pi is 3.14159265358979323846264338327950288, and e is 2.718281828459045.",
    "6.02214076e23 per mole; c = 299 792 458 m/s; 2^64 = 18446744073709551616.",
    "x1 = (-b + sqrt(b**2 - 4*a*c)) / (2*a), so f(12, 345) = 6789",
    "The matrix is [[1, 0, 0], [0, 1, 0], [0, 0, 1]] and 1:2:3:4 the ratio.",
    # Prices, sizes and counts
    "The price rose from $1,234,567.89 to $2,345,678.90, or by 90.0 %.",
    "About 8,336,817 people live on 783.8 km2; in 1950 there were 7 891 957.",
    "A pack of 250 x 180 x 75 mm weighs 1.250 kg and costs 19,99 \u20ac.",
    "Turnover: 2019: 100 200 300; 2020: 101 202 303; 2021: 99 000 111.",
    # Places
    "The mill stands at 52.520008, 13.404954 (52\u00b031'12\"N), 34 m above the sea.",
    "Write to 10 Weir Lane, Lower Quay, ZIP 90210-1234, or to SW1A 2AA.",
    # Code
    "token = tokenizer.encode(text, max_length=512)",
    "password = getpass.getpass('Password 1: ')",
    'api_key = os.environ["MILL_API_KEY_2"]',
    'curl -H "Authorization: Bearer $TOKEN" https://api.example.com/v1/items?page=2',
    "DATABASE_URL=postgres://${DB_USER}:${DB_PASS}@db:5432/app",
    "max_tokens=4096, pad_token_id=50256, token_type_ids=[0, 0, 1]",
    "git clone git@git.mill:tools/grinder.git && ssh ubuntu@build.mill.com",
    "@media (min-width: 600px) { .card-4111 { width: calc(100% - 2rem) } }",
    'src="data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"',
    "for (let i = 0; i < 1000000; i++) sum += data[i] ?? 0x7fffffff;",
    "The server listens on 127.0.0.1:8080 and 0.0.0.0:80; the LAN is 192.168.1.0/24.",
    "The interface 00:1B:44:11:3A:B7 has fe80::21b:44ff:fe11:3ab7.",
    "arn:aws:iam::123456789012:role/reader may read s3://grain/2024/03/04/part-00017.parquet",
    "const client = new Client({ token: import.meta.env.VITE_AUTH0_TOKEN })",
    "client = OpenAI(api_key=Config.OPENAI_API_KEY_V2); s3 = Client(api_key=settings.S3_API_KEY)",
    "kubectl create secret: kubernetes.io/tls-v1beta1",
    "For the tests set DATABASE_URL=postgresql://test:test@localhost/test and run pytest.",
    "Airflow's default is postgresql://airflow:airflow@postgres/airflow, ours mongo:mongo@.",
    "curl ftp://anonymous:anonymous@ftp.mill.dev/pub/",
    "Use breakpoints of 320 480 1024 pixels; the grid was 250 300 1000 in the three runs.",
    "The budget grew by +25 000 000 euros, or +12 345 670 people, in 2023.",
    "interface Login { secret: Uint8Array; token: BigInt64Array }",
    "JWT_SECRET=replace_me_with_32_random_bytes, APP_SECRET=change-me-in-2024",
    "https://mill.dev/reset?token=abc123def456 and password=my-super-secret-key-123",
    'token = "env:GITHUB_TOKEN_2", assert not login(password="wrong-password-1")',
    '[assembly: AssemblyVersion("8.20.35.12")] "version": "8.20.34.1", version = "5.12.7.1"',
    'dsn="https://9f2b8c1e7a4d4e0f@o17.ingest.us.sentry.io/4"; mill@grain.iam.gserviceaccount.com',
    "nameserver 2001:4860:4860::8888 or 2606:4700:4700::1111, 208.67.222.222, 2620:fe::fe",
    # Talk about secrets and people
    "A password should have 12 characters, 1 digit and no word of your own language.",
    "Your API key is shown once; a secret key is not the same as a public key.",
    "The IBAN has up to 34 characters, the BIC 8 or 11; a card number usually 16.",
    "In an emergency call 112 or 911; the crisis line is 1-800-555-0199 or 988.",
    "Questions? Write to support@quietmill.dev or user@example.com.",
    "privacy@quietmill.dev, legal@quietmill.dev, jobs@quietmill.dev, customer-service@mill.dev",
    "Your SSN has the form 123-45-6789, a tax ID eleven digits.",
    "Psalm 119:105, John 3:16 and 1 Corinthians 13:4-8 were read.",
)


@pytest.mark.parametrize("sentence", SENTENCES)
def test_ordinary_sentences_give_no_finding(sentence: str) -> None:
    """Neither pack sees a secret or a person in a sentence without one."""
    assert [(f.label, sentence[f.start : f.end]) for d in PACKS for f in d.find(sentence)] == []


@pytest.mark.parametrize("gap", [" ", "\n", "\n- ", " | "])
def test_ordinary_sentences_give_no_finding_together(gap: str) -> None:
    """Nor in all of them together, where one sentence's words stand before another's numbers."""
    text = gap.join(SENTENCES)
    assert [(f.label, text[f.start : f.end]) for d in PACKS for f in d.find(text)] == []
