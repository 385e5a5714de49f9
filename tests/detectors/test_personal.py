"""Personal data: what is found in which spelling, what a checksum rejects, and what is nobody's.

Every number here is a published test value or computed from its checksum.
"""

from __future__ import annotations

from random import Random
from string import ascii_uppercase, digits
from typing import Final

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from guard.categories import CATEGORIES
from guard.detectors import personal
from guard.detectors.personal import iban, luhn, personal_data_detector, verhoeff

DETECTOR = personal_data_detector()

CHECKED: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "payment_card": ("", ("4111 1111 1111 1111", "5555-5555-5555-4444", "378282246310005")),
    "iban": ("", ("DE89 3704 0044 0532 0130 00", "NO9386011117947")),
    "spanish_id": ("", ("12345678Z", "X-2482300W", "54362315-K")),
    "italian_fiscal_code": ("", ("RCCMNL83S18D969H",)),
    "french_nir": ("", ("2 95 10 99 126 111 93", "295109912611193")),
    "canadian_sin": ("SIN ", ("130 692 544", "130-692-544", "130692544")),
    "german_tax_id": ("Steuer-ID: ", ("36 574 261 809", "36574261809")),
    "dutch_bsn": ("BSN ", ("111222333", "1112.22.333")),
    "polish_pesel": ("PESEL: ", ("44051401359",)),
    "portuguese_nif": ("NIF ", ("501 964 843", "501964843")),
    "brazilian_cpf": ("CPF ", ("390.533.447-05", "39053344705")),
    "indian_aadhaar": ("Aadhaar no. ", ("2341 2341 2346", "234123412346")),
    "australian_tfn": ("TFN ", ("123 456 782", "123456782")),
    "swedish_personnummer": ("personnummer ", ("811218-9876", "19811218-9876")),
    "chinese_resident_id": ("", ("11010519491231002X",)),
    "south_korean_rrn": ("", ("900101-1234568",)),
    "singapore_nric": ("NRIC ", ("S1234567D",)),
    "swiss_ahv": ("AHV ", ("756.9217.0769.85", "7569217076985")),
    "norwegian_birth_number": ("fnr. ", ("01019010046",)),
    "finnish_identity_code": ("hetu ", ("131052-308T",)),
    "belgian_national_number": ("", ("85.07.30-033.28", "17.07.30-033.84")),
}
"""Kinds whose last character is, or ends, a checksum: words before, and numbers."""

OTHERS: Final[dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]] = {
    "email": ("", ("mara.lind@quietmill.dev",), ("mara.lind@quietmill", "@quietmill.dev")),
    "phone": ("call ", ("+44 20 7946 1234", "030 1234567"), ("+44 20", "0301")),
    "us_ssn": ("", ("219-45-6789",), ("000-45-6789", "666-45-6789", "219-00-6789", "219-45-0000")),
    "uk_nino": ("", ("AB 12 34 56 C", "JG103759A"), ("DB123456C", "GB123456C", "AB123456E")),
    "australian_medicare": ("Medicare ", ("2123 45670 1", "2123456701"), ("2123 45671 1",)),
    "indian_pan": ("PAN ", ("AFZPK7190K",), ("AFZXK7190K", "AFZPK0000K")),
    "passport": ("passport no. ", ("533380006", "C01X00T47"), ("PERSONAL", "1234567890", "A12")),
    "driving_licence": (
        "driver's license: ",
        ("MORGA657054SM9IJ", "B072RRE2I55", "D642-1180-5543"),
        ("MORGANIA", "D1234567"),
    ),
    "ip_address": ("", ("81.2.69.142", "2a00:1450:4001:81b::200e"), ("81.2.69.256", "1:2:3:4:5:6")),
}
"""Kinds that are told by their form: words before, what is one, and what is none."""

SAMPLES: Final = [
    *((n, before, value) for n, (before, values) in CHECKED.items() for value in values),
    *((n, before, value) for n, (before, values, _) in OTHERS.items() for value in values),
]


def found(text: str) -> list[tuple[str, str]]:
    """Return labels and spans' texts of what is found in `text`."""
    return [(f.label, text[f.start : f.end]) for f in DETECTOR.find(text)]


def labels(text: str) -> set[str]:
    """Return the labels of what is found in `text`."""
    return {f.label for f in DETECTOR.find(text)}


def others(character: str) -> str:
    """Return the characters that may stand by mistake for one."""
    return (digits if character.isdigit() else ascii_uppercase).replace(character, "")


def test_the_tables_cover_the_pack() -> None:
    """Every kind of the pack has a sample here, and every sample a pattern."""
    assert {p.name for p in DETECTOR._patterns} == CHECKED.keys() | OTHERS.keys()


def test_the_category_is_one_of_the_taxonomy() -> None:
    """The pack declares the one category that it finds, and all evidence speaks for it."""
    assert DETECTOR.categories == ("pii_leak",)
    assert set(DETECTOR.categories) <= set(CATEGORIES)
    assert all(p.evidence > 0 for p in DETECTOR._patterns)


class TestKinds:
    """Every kind of personal data."""

    @pytest.mark.parametrize(("name", "before", "value"), SAMPLES)
    def test_is_found(self, name: str, before: str, value: str) -> None:
        """The value is one finding of its kind, whatever punctuation stands around it."""
        for dress in ("{} now", "{}", "**{}**, x", '"{}"', "{}.", "({})", "`{}`\n", "{}; and"):
            assert found(f"It is {before}{dress.format(value)}") == [(name, value)]

    @pytest.mark.parametrize(("name", "before", "value"), SAMPLES)
    def test_is_found_in_disguise(self, name: str, before: str, value: str) -> None:
        """Invisible characters inside and full-width ones hide nothing."""
        split = f"{value[:3]}\u200b{value[3:-3]}\u2060\u00ad{value[-3:]}"
        assert found(f"It is {before}{split} now") == [(name, split)]
        wide = "".join(c if c == " " else chr(ord(c) + 0xFEE0) for c in value)
        assert found(f"It is {before}{wide} now") == [(name, wide)]

    @pytest.mark.parametrize(("name", "before", "value"), SAMPLES)
    def test_part_of_a_longer_word_is_none(self, name: str, before: str, value: str) -> None:
        """The same characters inside a longer word or number are something else."""
        assert (name, value) not in found(f"It is {before}7{value}")
        assert (name, value) not in found(f"It is {before}{value}7Q")

    @pytest.mark.parametrize(("name", "before", "value"), [s for s in SAMPLES if s[0] in CHECKED])
    def test_broken_checksum_is_none(self, name: str, before: str, value: str) -> None:
        """With any other last character the checksum fails and nothing of the kind is found."""
        for other in others(value[-1]):
            assert name not in labels(f"It is {before}{value[:-1]}{other} now")

    @pytest.mark.parametrize(
        ("name", "before", "value"),
        [(n, before, value) for n, (before, _, values) in OTHERS.items() for value in values],
    )
    def test_wrong_form_is_none(self, name: str, before: str, value: str) -> None:
        """What is never given out in this form is none."""
        assert name not in labels(f"It is {before}{value} now")


class TestContext:
    """Numbers that are told from others by a word before them."""

    BARE = (
        "130 692 544",
        "36 574 261 809",
        "111222333",
        "44051401359",
        "501964843",
        "39053344705",
        "2341 2341 2346",
        "123456782",
        "2123 45670 1",
        "811218-9876",
        "219456789",
        "030 1234567",
        "21 284 698 25",
        "4222222222222",
        "S1234567D",
        "AFZPK7190K",
        "7569217076985",
        "01019010046",
        "131052-308T",
    )

    @pytest.mark.parametrize("number", BARE)
    def test_without_the_word_it_may_be_anything(self, number: str) -> None:
        """The bare number is none, and no other kind either."""
        assert found(f"The number {number} is on the box.") == []

    @pytest.mark.parametrize(
        ("name", "before", "number"),
        [
            ("canadian_sin", "social insurance number: ", "130 692 544"),
            ("german_tax_id", "Steuerliche Identifikationsnummer ", "36 574 261 809"),
            ("german_tax_id", "tax ID is ", "36574261809"),
            ("dutch_bsn", "burgerservicenummer: ", "111222333"),
            ("portuguese_nif", "contribuinte n.º ", "501964843"),
            ("indian_aadhaar", "UIDAI ", "2341 2341 2346"),
            ("australian_tfn", "tax file number ", "123456782"),
            ("singapore_nric", "Singapore identity card: ", "S1234567D"),
            ("indian_pan", "Permanent Account Number: ", "AFZPK7190K"),
            ("swiss_ahv", "num\u00e9ro AVS: ", "756 9217 0769 85"),
            ("norwegian_birth_number", "f\u00f8dselsnummer: ", "01019010046"),
            ("finnish_identity_code", "henkil\u00f6tunnus ", "131052-308T"),
            ("us_ssn", "SSN: ", "219456789"),
            ("us_ssn", "social security number ", "219 45 6789"),
            ("payment_card", "Visa ", "4222222222222"),
            ("phone", "Reach me: ", "030 1234567"),
            ("phone", "Téléphone : ", "01 84 17 61 18"),
            ("phone", "Phone:\n", "60-56-85-91"),
            ("phone", "mobile number is ", "721 28 27 34"),
            ("phone", "Fax: ", "9498777106"),
            ("phone", "Telefonnummer: ", "030 2345678"),
            ("phone", "Mobil: ", "0151 23456789"),
            ("phone", "Tel\u00e9fono: ", "612 345 678"),
            ("phone", "m\u00f3vil: ", "612 34 56 78"),
            ("phone", "at ", "+49\u2011151\u201123456789"),
        ],
    )
    def test_with_the_word_it_is_found(self, name: str, before: str, number: str) -> None:
        """Each kind has several words, in its people's languages."""
        assert found(f"{before}{number}.") == [(name, number)]

    def test_the_word_must_be_near(self) -> None:
        """A word that stands far before the number says nothing about it."""
        assert labels(f"BSN{' ' * 40}111222333") == {"dutch_bsn"}
        assert labels(f"BSN{' ' * 60}111222333") == set()

    @pytest.mark.parametrize(
        "text", ["business 111222333", "passion 130 692 544", "recall 030 1234567"]
    )
    def test_the_word_must_stand_alone(self, text: str) -> None:
        """The letters inside another word are not the word."""
        assert found(text) == []


CARDS: Final = (
    "4111111111111111",  # Visa
    "5555555555554444",  # Mastercard
    "2223003122003222",  # Mastercard, second series
    "378282246310005",  # American Express
    "30569309025904",  # Diners Club
    "6011111111111117",  # Discover
    "3530111333300000",  # JCB
    "6200000000000005",  # UnionPay
)
"""The networks' published test numbers."""


class TestCards:
    """Payment cards."""

    @pytest.mark.parametrize("number", CARDS)
    @pytest.mark.parametrize("gap", ["", " ", "-", ".", "/", "\u2011", "\u2013", "&nbsp;"])
    def test_every_network_in_every_spelling(self, number: str, gap: str) -> None:
        """Digits together, and in groups by spaces, hyphens, dashes, full stops and slashes."""
        sizes = (4, 4, 4, 4) if len(number) == 16 else (4, 6, 5)
        parts, at = [], 0
        for size in sizes:
            parts.append(number[at : at + size])
            at += size
        written = gap.join(parts)
        assert found(f"Card {written}, 09/27") == [("payment_card", written)]

    @pytest.mark.parametrize(
        "number", ["9111111111111119", "1111111111111117", "4000000000000", "0" * 16, "4" * 16]
    )
    def test_no_card(self, number: str) -> None:
        """Numbers of no network, of a wrong length, and of one digit are none."""
        assert found(f"No. {number} here") == []

    def test_two_in_a_row(self) -> None:
        """Each of two cards that follow each other is found."""
        first, second = CARDS[:2]
        assert [span for _, span in found(f"{first} {second}")] == [first, second]


IBANS: Final = (
    "BE68539007547034",
    "BR1800360305000010009795493C1",
    "CH9300762011623852957",
    "DE89370400440532013000",
    "ES9121000418450200051332",
    "FR1420041010050500013M02606",
    "GB82WEST12345698765432",
    "IT60X0542811101000000123456",
    "MT84MALT011000012345MTLCAST001S",
    "NL91ABNA0417164300",
    "NO9386011117947",
    "PL61109010140000071219812874",
    "SA0380000000608010167519",
    "SE4550000000058398257466",
)
"""Examples from the SWIFT registry."""


def new_iban(country: str, seed: int) -> str:
    """Return an account number of `country`, with check digits as ISO 13616 has them."""
    random = Random(f"{country} {seed}")
    length = personal._IBAN_LENGTHS[country] - 4
    account = "".join(random.choices(digits + ascii_uppercase, k=length))
    number = "".join(str(int(c, 36)) for c in f"{account}{country}00")
    return f"{country}{98 - int(number) % 97:02}{account}"


class TestIban:
    """International bank account numbers."""

    @pytest.mark.parametrize("number", IBANS)
    def test_every_country_in_every_spelling(self, number: str) -> None:
        """Together, in groups of four, by hyphens, by odd spaces, and in lower case."""
        groups = [number[at : at + 4] for at in range(0, len(number), 4)]
        for written in (number, " ".join(groups), "-".join(groups), number.lower()):
            assert found(f"Pay to {written} BIC MILLDEFF") == [("iban", written)]
        odd = "\u00a0".join(groups)
        assert found(f"Pay to {odd}.") == [("iban", odd)]

    @pytest.mark.parametrize("number", IBANS)
    def test_another_length_is_none(self, number: str) -> None:
        """A country's numbers have one length, and no other country's check makes up for it."""
        assert "iban" not in labels(f"Pay to {number[:-1]} now")
        assert "iban" not in labels(f"Pay to {number}0 now")

    @given(st.sampled_from(sorted(personal._IBAN_LENGTHS)), st.integers())
    def test_any_account_of_any_country(self, country: str, seed: int) -> None:
        """Whatever the account, the number is found and its check digits hold."""
        number = new_iban(country, seed)
        assert iban(number)
        assert ("iban", number) in found(f"IBAN: {number}\n")

    @given(st.sampled_from(sorted(personal._IBAN_LENGTHS)), st.integers(), st.data())
    def test_every_changed_character_is_noticed(
        self, country: str, seed: int, data: st.DataObject
    ) -> None:
        """With any one digit or letter changed for another the check fails."""
        number = new_iban(country, seed)
        at = data.draw(st.integers(0, len(number) - 1))
        other = data.draw(st.sampled_from(others(number[at])))
        assert not iban(number[:at] + other + number[at + 1 :])

    def test_unknown_country_is_none(self) -> None:
        """Two letters that are no country of the registry are none."""
        assert not iban("ZZ89370400440532013000")


def luhn_digit(number: str) -> str:
    """Return the digit that completes a number, by the table that clerks used."""
    doubled = "0246813579"
    total = sum(int(doubled[int(c)] if i % 2 == 0 else c) for i, c in enumerate(reversed(number)))
    return str(-total % 10)


VERHOEFF_D: Final = (
    "0123456789",
    "1234067895",
    "2340178956",
    "3401289567",
    "4012395678",
    "5987604321",
    "6598710432",
    "7659821043",
    "8765932104",
    "9876543210",
)
VERHOEFF_P: Final = (
    "0123456789",
    "1576283094",
    "5803796142",
    "8916043527",
    "9453126870",
    "4286573901",
    "2793806415",
    "7046913258",
)
VERHOEFF_INVERSE: Final = "0432156789"
"""The tables as they are usually printed."""


def verhoeff_digit(number: str) -> str:
    """Return the digit that completes a number."""
    check = "0"
    for i, c in enumerate(reversed(number), 1):
        check = VERHOEFF_D[int(check)][int(VERHOEFF_P[i % 8][int(c)])]
    return VERHOEFF_INVERSE[int(check)]


NUMBERS: Final = st.text(digits, min_size=1, max_size=20)


class TestCheckDigits:
    """Luhn's and Verhoeff's checks."""

    @given(NUMBERS)
    @example("7992739871")
    def test_luhn(self, number: str) -> None:
        """A completed number passes, and every change of a single digit is noticed."""
        whole = number + luhn_digit(number)
        assert luhn(whole)
        for at, digit in enumerate(whole):
            assert not any(luhn(whole[:at] + o + whole[at + 1 :]) for o in others(digit))

    @given(NUMBERS)
    @example("236")
    def test_verhoeff(self, number: str) -> None:
        """A completed number passes, and every change of a single digit is noticed."""
        whole = number + verhoeff_digit(number)
        assert verhoeff(whole)
        for at, digit in enumerate(whole):
            assert not any(verhoeff(whole[:at] + o + whole[at + 1 :]) for o in others(digit))

    @given(NUMBERS, st.data())
    def test_verhoeff_notices_swapped_neighbours(self, number: str, data: st.DataObject) -> None:
        """Two neighbours that change places are noticed, which Luhn's check does not promise."""
        whole = number + verhoeff_digit(number)
        at = data.draw(st.integers(0, len(whole) - 2))
        assume(whole[at] != whole[at + 1])
        assert not verhoeff(whole[:at] + whole[at + 1] + whole[at] + whole[at + 2 :])

    @given(st.text())
    def test_separators_do_not_count(self, text: str) -> None:
        """A check depends on the ASCII digits alone."""
        plain = "".join(c for c in text if c in digits)
        assert (luhn(text), verhoeff(text)) == (luhn(plain), verhoeff(plain))


class TestEmail:
    """Addresses of people, and of nobody."""

    @pytest.mark.parametrize(
        "address",
        [
            "m@quietmill.dev",
            "mara.lind+news@post.quietmill.co.uk",
            "MARA_LIND%x@QUIETMILL.DEV",
            "jürgen.weiß@müllerei.de",
            "мара@мельница.com",
            "米拉@quietmill.dev",
            "mara@163.com",
            "testa.rossa@quietmill.dev",
            "youssef@quietmill.dev",
        ],
    )
    def test_people(self, address: str) -> None:
        """Names in any script, tags, sub-domains and short names are found whole."""
        for dress in (
            "mailto:{}",
            "<{}>",
            "\u201c{}\u201d",
            "Mail {}, please",
            "[{}](x)",
            "\ufffd{}",
        ):
            assert found(dress.format(address)) == [("email", address)]

    def test_scripts_without_spaces(self) -> None:
        """An address that follows on a word at once is found without the word."""
        assert found("我的邮箱是mara@quietmill.dev\uff0c谢谢") == [("email", "mara@quietmill.dev")]

    @pytest.mark.parametrize(
        "address",
        [
            "mara@example.com",
            "mara@mail.example.org",
            "mara@example.co.uk",
            "mara@sub.test",
            "mara@test.com",
            "mara@printer.local",
            "mara@yourcompany.com",
            "mara@mydomain.com",
            "mara@email.com",
            "info@quietmill.dev",
            "no-reply@quietmill.dev",
            "postmaster@quietmill.dev",
            "root@db1.quietmill.dev",
            "git@quietmill.dev",
            "you@quietmill.dev",
            "your.name@quietmill.dev",
            "user1@quietmill.dev",
            "john.doe@quietmill.dev",
            "icon@2x.png",
            "tool@1.2.3.tgz",
        ],
    )
    def test_nobody(self, address: str) -> None:
        """Documentation domains, role mailboxes, stand-ins, image and package names are none."""
        assert found(f"Write to {address} today") == []


class TestPhone:
    """Telephone numbers."""

    @pytest.mark.parametrize(
        "number",
        [
            "+44 20 7946 1234",
            "+44 (0)20 7946 1234",
            "+49-30-1234567",
            "+33 1 84 17 61 18",
            "+14155551234",
            "+1 (415) 555-1234",
            "001 415 555 1234",
            "(415) 555-1234",
            "(415)555-1234",
            "415-555-1234",
            "415.555.1234",
            "1-415-555-1234",
            "415-555-1234 ext. 12",
            "+1-415-555-1234x565",
            "+91 98260 64646",
            "+353 800 55 123",
        ],
    )
    def test_is_found(self, number: str) -> None:
        """International and North American spellings need no word before them."""
        assert found(f"It is {number} here.") == [("phone", number)]

    @pytest.mark.parametrize(
        "number",
        [
            "415-555-0123",
            "+1 415 555 0199",
            "(415) 555-0100",
            "(555) 123-4567",
            "07700 900123",
            "+44 7700 900456",
            "1-800-438-4380",
            "(888) 438-4380",
            "+18774384380",
            "0800 123 4567",
            "+44 800 123 4567",
            "+49 800 1234567",
            "123-456-7890",
            "987-654-3210",
            "+1234567890",
            "+1 (123) 456-7890",
            "555-555-5555",
            "+000000000",
        ],
    )
    def test_nobodys(self, number: str) -> None:
        """Numbers for fiction, freephone numbers and mere counting are nobody's."""
        assert found(f"Call {number} now") == []

    @pytest.mark.parametrize(
        "text",
        [
            "Call me on 03.04.2024 or 03/05/24",
            "Call for papers: 2024-03-04, ISSN 0049-3630",
            "Phone: 2024-03-04",
            "tel 0301, then 2024",
            "mobile 2 of 3",
            "The text says 0 1 2 3 4 5",
            "reach 100 000 people",
            "breakpoints of 320 480 1024 pixels",
            "values 250 300 1000 and 480 720 1280",
            "+25 000 000 euros",
            "+25 125 000 more of them",
            "+34 612 345 678 dollars",
            "415 555 1234 px",
            "+49 301 234 567 €",
        ],
    )
    def test_other_numbers_behind_the_word(self, text: str) -> None:
        """Dates, serial numbers and counts behind a word such as `call` are none."""
        assert found(text) == []

    @pytest.mark.parametrize(
        ("before", "number"),
        [
            ("It is ", "415 555 1234"),
            ("It is ", "212 345 6789"),
            ("It is ", "320 481 1024"),
            ("It is ", "(320) 480 1024"),
            ("It is ", "320-480-1024"),
            ("call ", "320 480 1024"),
            ("It is ", "+34 612 345 678"),
            ("It is ", "+27 11 123 4000"),
            ("It is ", "+49 30 123 4567"),
        ],
    )
    def test_round_numbers_may_be_somebodys(self, before: str, number: str) -> None:
        """One group that is not round, brackets, dashes or a word before them make a number."""
        assert found(f"{before}{number}, they say.") == [("phone", number)]


class TestIpAddress:
    """Addresses on the network."""

    @pytest.mark.parametrize(
        "address",
        ["81.2.69.142", "2.125.160.216", "2a00:1450:4001:81b::200e", "2A02:908:1C:2:3:4:5:6"],
    )
    def test_somebodys(self, address: str) -> None:
        """Addresses that providers give out are found."""
        for dress in ("{}", "http://{}/x", "{}:8080", "[{}]", "from {}."):
            if ":" in address and dress == "{}:8080":
                continue
            assert found(dress.format(address)) == [("ip_address", address)]

    @pytest.mark.parametrize(
        "address",
        [
            "192.0.2.7",
            "198.51.100.7",
            "203.0.113.7",
            "2001:db8::1:7",
            "127.0.0.1",
            "10.1.2.3",
            "172.16.5.4",
            "192.168.1.20",
            "169.254.1.1",
            "100.64.0.1",
            "fe80::1:2:3",
            "fd00:1:2::3",
            "224.0.0.251",
            "255.255.255.255",
            "0.0.0.0",
            "8.8.8.8",
            "1.1.1.1",
            "81.2.69.0",
        ],
    )
    def test_nobodys(self, address: str) -> None:
        """Documentation, private, local, multicast, network and resolvers' addresses are none."""
        assert found(f"ping {address} now") == []

    @pytest.mark.parametrize(
        "text",
        [
            "version 4.3.2.1",
            "Version: 4.3.2.1",
            "Version=4.3.2.1",
            "release 4.3.2.1",
            "build 4.3.2.1",
            "v4.3.2.1",
            "section 4.3.2.1",
            "Figure 4.3.2.1",
            "ver. 4.3.2.1",
            "1.4.3.2.1",
            "4.3.2.1.5",
            "4.3.2.1-beta1",
            "12:34:56:78:9A:BC",
            "12:34:56",
            "std::map::a::b",
        ],
    )
    def test_other_numbers_with_dots_or_colons(self, text: str) -> None:
        """Versions, sections, hardware addresses, times and names in code are none."""
        assert found(text) == []


class TestDocuments:
    """Passports and driving licences."""

    @pytest.mark.parametrize(
        "before",
        [
            "Her passport number is ",
            "Passport: ",
            "Reisepassnummer: ",
            "| Passport # | ",
            "passeport num\u00e9ro ",
        ],
    )
    def test_any_name_will_do(self, before: str) -> None:
        """What a passport is called, in some languages, with or without a word for number."""
        assert ("passport", "X4RTBPFW4") in found(f"{before}X4RTBPFW4.")

    @pytest.mark.parametrize(
        "text",
        [
            "Your passport is valid until 20310407.",
            "The passport number is on page 2.",
            "Passport No: 123456789",
            "The driving licence counter is in room B2041177.",
            "The driver's license number field takes A-Z and 0-9.",
        ],
    )
    def test_talk_about_them_is_none(self, text: str) -> None:
        """Only what stands right behind the name, and is no specimen, is one."""
        assert found(text) == []


class TestNationalIds:
    """What single kinds know beyond their checksum."""

    def test_voided_ssns(self) -> None:
        """Numbers that advertisements printed, and the usual placeholder, are none."""
        for number in ("078-05-1120", "219-09-9999", "123-45-6789", "900-12-3456"):
            assert found(f"SSN {number}") == []

    def test_a_date_before_a_capital_is_no_spanish_id(self) -> None:
        """Of dates one in 23 has the letter that fits; none counts."""
        for day in range(1, 29):
            assert not any(
                found(f"On 202403{day:02}{letter} they met") for letter in "TRWAGMYFPDXB"
            )

    def test_corsican_nir(self) -> None:
        """Corsica's departments have a letter, which counts as a number."""
        number = 97 - int("1840119004123") % 97
        written = f"1 84 01 2A 004 123 {number:02}"
        assert found(f"NIR {written}.") == [("french_nir", written)]

    def test_no_birthday_is_no_identity_number(self) -> None:
        """A day that does not exist, or on which nobody alive was born, is none."""
        for born in ("19491331", "18491231", "20490230"):
            assert found("".join(f" 110105{born}002{last}" for last in f"{digits}X")) == []
        assert found("".join(f" 901332-123456{last}" for last in digits)) == []

    def test_swedish_dates(self) -> None:
        """A month or day that does not exist is none, even where Luhn's check passes."""
        number = "811318987"
        assert luhn(number + luhn_digit(number))
        assert found(f"personnummer 811318-987{luhn_digit(number)}") == []

    @pytest.mark.parametrize("kind", ["dutch_bsn", "brazilian_cpf", "australian_tfn"])
    def test_one_digit_over_and_over_is_none(self, kind: str) -> None:
        """Numbers of one digit pass many checks, and are nobody's."""
        before, values = CHECKED[kind]
        length = len(values[-1].replace(".", ""))
        assert not any(found(f"{before}{digit * length}") for digit in digits)
