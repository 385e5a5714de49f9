"""Personal data: e-mail, phone, payment card, IBAN, identity and document numbers, IP address.

Numbers that carry a checksum are confirmed by it. Identity numbers that are nothing but
digits need a word before them that says what they are, since one number in ten or eleven
passes a single check digit by chance; passports and driving licences, which share no checksum, are
such right behind what they are called. Documentation values (RFC 2606 names, RFC 5737 and
RFC 3849 addresses, 555-01xx numbers), private or loopback addresses, public resolvers,
freephone numbers and role mailboxes are nobody's. Test cards count: nothing about such a
number says that it is one.

This module does not know whose data it is or whether the person may see it.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import date
from functools import cache
from typing import TYPE_CHECKING, Final

from guard.detectors.patterns import Pattern, PatternDetector

if TYPE_CHECKING:
    from collections.abc import Callable

_CHECKED: Final = 8.0
_STRUCTURED: Final = 6.0
_CONTACT: Final = 5.0
_ADDRESS: Final = 4.5

_DOCUMENTATION_DOMAIN: Final = re.compile(
    # RFC 2606, RFC 6762's `local`, and what everybody else writes where an address goes.
    r"(?:^|\.)(?:example\d?(?:\.[\w-]+){0,2}|(?:test|invalid|localhost)(?:\.(?:com|org|net))?|"
    # Machines' accounts and calendars at Google, and what Sentry has before its host.
    r"local|gserviceaccount\.com|group\.calendar\.google\.com|ingest(?:\.\w+)?\.sentry\.io|"
    r"your[\w-]*\.\w+|(?:my)?(?:domain|company|email|sample|foo|bar)\.com)$",
    re.IGNORECASE,
)
_NO_PERSON: Final = re.compile(
    # Role mailboxes (RFC 2142 and common ones), the users of SSH addresses, the names of nobody,
    # image names such as icon@2x.png, and versions such as tool@1.2.3.tgz.
    r"^(?:info|support|help|sales|contact|noreply|no-reply|admin|hello|press|office|abuse|billing|"
    r"marketing|security|privacy|legal|jobs|careers|hr|dpo|compliance|orders|returns|accounts|"
    r"customer[._-]?(?:service|care|support)|service|team|feedback|enquiries|media|newsletter|noc|"
    r"(?:host|post|web)master|git|root|ubuntu|ec2-user|"
    r"(?:your[\w.-]*|you|me|example|someone|somebody|user(?:name)?|sender|recipient|foo|bar|test|anonymous|"
    r"(?:john|jane)[._-]?doe)\d*)@|@(?:\dx|\d+\.\d+)[.-]",
    re.IGNORECASE,
)
_NOBODYS_PHONE: Final = re.compile(
    # Numbers for fiction (NANPA's 555-01xx and area 555, Ofcom's 07700 900xxx), and freephone
    # numbers: those are help lines and companies, and a help line must reach who needs it.
    r"555\D{0,2}01\d\d$|^(?:\+?1\D{0,2})?\(?555\D|7700\D?900\D?\d{3}$|"
    r"^(?:\+?1\D{0,2})?\(?8(?:00|33|44|55|66|77|88)\D|^\+?1?8(?:00|33|44|55|66|77|88)\d{7}$|"
    r"^\(?0(?:800|808)\D|^\+44\D?(?:\(0\))?80[08]|^\+(?:7|27|3[1-39]|4[139])\D?(?:\(0\))?800"
)
_COUNTED: Final = "01234567890123456789 98765432109876543210"
"""Numbers that are nothing but counting."""

_AMOUNT: Final = re.compile(r"\+\d{1,3}(?:[ .]\d{3})*(?:[ .]000)+")
"""A change in round thousands, such as +25 000 000."""

_INVALID_SSNS: Final = frozenset({"078051120", "219099999", "123456789"})
"""Two numbers voided because they were printed in advertisements, and the usual placeholder."""

_RESOLVERS: Final = frozenset(
    map(
        ipaddress.ip_address,
        (
            *("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844"),
            *("1.1.1.1", "1.0.0.1", "2606:4700:4700::1111", "2606:4700:4700::1001"),
            *("9.9.9.9", "149.112.112.112", "2620:fe::fe", "2620:fe::9"),
            *("208.67.222.222", "208.67.220.220"),
        ),
    )
)
"""Public name servers that everybody's instructions mention."""

_CARD: Final = re.compile(
    r"4\d{15}(?:\d{3})?|"  # Visa
    r"5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}|"  # Mastercard
    r"3[47]\d{13}|3(?:0[0-5]|[689]\d)\d{11}|35(?:2[89]|[3-8]\d)\d{12}|"  # Amex, Diners, JCB
    r"6(?:011|4[4-9]\d|5\d\d)\d{12}|62\d{14,17}|"  # Discover, UnionPay
    r"(?:50|5[678]|6[37])\d{14,17}"  # Maestro
)
"""Issuer prefixes and lengths, from the networks' published ranges."""

_IBAN_LENGTHS: Final = {
    country: length
    for length, countries in {
        15: "NO",
        16: "BE",
        18: "DK FI FO GL NL",
        19: "MK SI",
        20: "AT BA EE KZ LT LU XK",
        21: "CH CR HR LI LV",
        22: "BG BH DE GB GE IE ME RS",
        23: "AE GI IL IQ TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "PT",
        26: "IS TR",
        27: "FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HU LB PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU",
        31: "MT SC",
    }.items()
    for country in countries.split()
}
"""Length per country, from the SWIFT IBAN registry."""


def digits(text: str) -> list[int]:
    """Return the decimal digits of `text` in order."""
    return [int(character) for character in text if character in "0123456789"]


def luhn(text: str) -> bool:
    """Check digit of ISO/IEC 7812-1, annex B."""
    total = 0
    for index, digit in enumerate(reversed(digits(text))):
        doubled = digit * 2 if index % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def card(text: str) -> bool:
    """Payment card: an issuer's prefix and length, Luhn, and not one digit over and over."""
    found = "".join(map(str, digits(text)))
    return bool(_CARD.fullmatch(found)) and len(set(found)) > 1 and luhn(found)


def iban(text: str) -> bool:
    """IBAN: the country's length and the remainder 1 modulo 97 (ISO 13616, ISO 7064)."""
    plain = re.sub(r"[\s-]", "", text).upper()
    if _IBAN_LENGTHS.get(plain[:2]) != len(plain):
        return False
    return int("".join(str(int(c, 36)) for c in plain[4:] + plain[:4])) % 97 == 1


def email(text: str) -> bool:
    """An address that may be a person's: no documentation domain, no role mailbox."""
    domain = text.rpartition("@")[2]
    return not _DOCUMENTATION_DOMAIN.search(domain) and not _NO_PERSON.search(text)


def phone(text: str) -> bool:
    """Telephone number: 8 to 15 digits (ITU-T E.164) that may be somebody's."""
    found = "".join(map(str, digits(text.lower().partition("x")[0])))
    counted = found in _COUNTED or found.removeprefix("1") in _COUNTED
    return (
        8 <= len(found) <= 15
        and len(set(found)) > 2
        and not counted
        and not _AMOUNT.fullmatch(text)
        and not _NOBODYS_PHONE.search(text)
    )


def phone_in_spaces(text: str) -> bool:
    """Telephone number whose groups are not all as round as sizes and counts are.

    Three groups of somebody's number are all multiples of 10 or of 16, as those of
    `320 480 1024` are, once in three hundred times.
    """
    groups = text.split()
    even = all(g.isdigit() and (int(g) % 10 == 0 or int(g) % 16 == 0) for g in groups)
    return phone(text) and not (len(groups) == 3 and even)


def ip_address(text: str) -> bool:
    """An address that may be somebody's: global unicast and no public resolver.

    Documentation and private ranges are not global (IANA's special-purpose registries); of
    IPv6 only 2000::/3 is given out (RFC 4291). An IPv4 address that ends in 0 is a network's.
    """
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    host = not text.endswith(".0") if address.version == 4 else int(address) >> 125 == 1
    return host and address.is_global and not address.is_multicast and address not in _RESOLVERS


def document(text: str) -> bool:
    """Passport or driving licence, which have no checksum that all share.

    At least two digits, and not those that everybody counts where a specimen is wanted.
    """
    found = "".join(map(str, digits(text)))
    return len(found) >= 2 and len(set(text)) > 3 and not (len(found) > 5 and found in _COUNTED)


def us_ssn(text: str) -> bool:
    """US social security number: the areas, groups and serials that are issued (SSA)."""
    plain = "".join(map(str, digits(text)))
    area, group, serial = int(plain[:3]), int(plain[3:5]), int(plain[5:])
    issued = area not in (0, 666) and area < 900 and group > 0 and serial > 0
    return issued and plain not in _INVALID_SSNS


def uk_nino(text: str) -> bool:
    """UK national insurance number: the prefixes that HMRC issues."""
    return text[:2].upper() not in ("BG", "GB", "NK", "KN", "TN", "NT", "ZZ")


def spanish_id(text: str) -> bool:
    """Spanish DNI or NIE: the letter is the number modulo 23."""
    plain = re.sub(r"[\s-]", "", text).upper()
    number = plain[:-1].translate(str.maketrans("XYZ", "012"))
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23] == plain[-1]


def french_nir(text: str) -> bool:
    """French NIR: the key is 97 minus the number modulo 97 (Corsica's letters are numbers)."""
    plain = re.sub(r"\s", "", text).upper().replace("2A", "19").replace("2B", "18")
    return 97 - int(plain[:13]) % 97 == int(plain[13:15])


def german_tax_id(text: str) -> bool:
    """German tax identification number: check digit of ISO/IEC 7064, MOD 11,10."""
    found = digits(text)
    product = 10
    for digit in found[:-1]:
        total = (digit + product) % 10 or 10
        product = total * 2 % 11
    return found[0] != 0 and (11 - product) % 10 == found[-1]


def italian_fiscal_code(text: str) -> bool:
    """Italian codice fiscale: the control letter of the decree of 23 December 1976."""
    values = [int(c) if c.isdigit() else ord(c) - ord("A") for c in text]
    total = sum(v if i % 2 else _FISCAL_ODD[v] for i, v in enumerate(values[:15]))
    return total % 26 == values[15]


_FISCAL_DIGITS: Final = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)
_FISCAL_ODD: Final = (*_FISCAL_DIGITS, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
"""What a digit, or a letter counted from A = 0, is worth in the odd places."""


def weighted(text: str, weights: tuple[int, ...], modulus: int) -> bool:
    """Whether the weighted sum of the digits is a multiple of `modulus`."""
    found = digits(text)
    total = sum(w * d for w, d in zip(weights, found, strict=False))
    return len(found) == len(weights) and len(set(found)) > 1 and total % modulus == 0


def dutch_bsn(text: str) -> bool:
    """Dutch BSN: the eleven-test."""
    return weighted(text, (9, 8, 7, 6, 5, 4, 3, 2, -1), 11)


def polish_pesel(text: str) -> bool:
    """Polish PESEL: weights 1, 3, 7, 9 and a check digit modulo 10."""
    return weighted(text, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), 10)


def portuguese_nif(text: str) -> bool:
    """Portuguese NIF: weights 9 to 2, check digit modulo 11, 10 written as 0."""
    found = digits(text)
    rest = sum(w * d for w, d in zip(range(9, 1, -1), found, strict=False)) % 11
    return len(found) == 9 and found[8] == (0 if rest < 2 else 11 - rest)


def brazilian_cpf(text: str) -> bool:
    """Brazilian CPF: two check digits modulo 11."""
    found = digits(text)
    if len(found) != 11 or len(set(found)) == 1:
        return False
    return all(
        sum((n + 1 - i) * d for i, d in enumerate(found[:n])) * 10 % 11 % 10 == found[n]
        for n in (9, 10)
    )


def verhoeff(text: str) -> bool:
    """Verhoeff's check over the dihedral group D5 (Mathematical Centre Tracts 29, 1969)."""
    check = 0
    for index, digit in enumerate(reversed(digits(text))):
        for _ in range(index % 8):
            digit = _VERHOEFF_PERMUTATION[digit]  # noqa: PLW2901  # the permutation's power
        check = _dihedral(check, digit)
    return check == 0


_VERHOEFF_PERMUTATION: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _dihedral(a: int, b: int) -> int:
    """Return the product of two elements of D5; 0-4 are rotations, 5-9 reflections."""
    if a < 5:
        return (a + b) % 5 if b < 5 else 5 + (a + b) % 5
    return 5 + (a - b) % 5 if b < 5 else (a - b) % 5


def australian_tfn(text: str) -> bool:
    """Australian tax file number: weights and modulus 11."""
    return weighted(text, (1, 4, 3, 7, 5, 8, 6, 9, 10), 11)


def australian_medicare(text: str) -> bool:
    """Australian Medicare number: the ninth digit is the weighted sum of eight modulo 10."""
    found = digits(text)
    total = sum(w * d for w, d in zip((1, 3, 7, 9, 1, 3, 7, 9), found, strict=False))
    return len(set(found)) > 1 and total % 10 == found[8]


def swedish_personnummer(text: str) -> bool:
    """Swedish personnummer: a date and Luhn over the last ten digits."""
    found = "".join(map(str, digits(text)))[-10:]
    return 1 <= int(found[2:4]) <= 12 and 1 <= int(found[4:6]) % 60 <= 31 and luhn(found)


def belgian_number(text: str) -> bool:
    """Belgian national number: 97 minus the number modulo 97, with 2 in front from 2000 on."""
    plain = "".join(map(str, digits(text)))
    return any(97 - int(head + plain[:9]) % 97 == int(plain[9:]) for head in ("", "2"))


def chinese_id(text: str) -> bool:
    """Chinese resident identity number: a birthday, and MOD 11-2 (GB 11643, ISO 7064)."""
    total = sum(d * 2 ** (17 - i) for i, d in enumerate(digits(text[:17])))
    return _born(text[6:10], text[10:12], text[12:14]) and "10X98765432"[total % 11] == text[17]


def korean_rrn(text: str) -> bool:
    """South Korean resident registration number: a birthday, and a check digit modulo 11."""
    found = digits(text)
    century = "18" if found[6] in (9, 0) else "19" if found[6] in (1, 2, 5, 6) else "20"
    weights = (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5)
    total = sum(w * d for w, d in zip(weights, found, strict=False))
    born = _born(century + text[:2], text[2:4], text[4:6])
    return born and (11 - total % 11) % 10 == found[12]


def singapore_nric(text: str) -> bool:
    """Singapore NRIC or FIN: the letter is the weighted sum modulo 11, by what stands first."""
    kind = text[0]
    total = sum(w * d for w, d in zip((2, 7, 6, 5, 4, 3, 2), digits(text), strict=True))
    total += {"T": 4, "G": 4, "M": 3}.get(kind, 0)
    letters = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "M": "XWUTRQPNJLK"}
    return letters.get(kind, "XWUTRQPNMLK")[total % 11] == text[-1]


def swiss_ahv(text: str) -> bool:
    """Swiss AHV number: the check digit of EAN-13."""
    return weighted(text, (1, 3) * 6 + (1,), 10)


def norwegian_number(text: str) -> bool:
    """Norwegian birth number: two check digits modulo 11."""
    text = text.replace(" ", "")
    first = weighted(text[:10], (3, 7, 6, 1, 8, 9, 4, 5, 2, 1), 11)
    return first and weighted(text, (5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1), 11)


def finnish_code(text: str) -> bool:
    """Finnish personal identity code: a birthday, and a sign that is the number modulo 31."""
    number = int(text[:6] + text[7:10])
    born = 1 <= int(text[:2]) <= 31 and 1 <= int(text[2:4]) <= 12
    return born and "0123456789ABCDEFHJKLMNPRSTUVWXY"[number % 31] == text[-1]


def _born(year: str, month: str, day: str) -> bool:
    """Return whether somebody alive may have been born that day."""
    try:
        return date(int(year), int(month), int(day)).year >= _OLDEST
    except ValueError:
        return False


_OLDEST: Final = 1900

_ALONE: Final = r"(?<![\w-])(?<!\d\.)"
"""Nothing before that a number could be the end of; the end of a sentence may be."""

_SEP: Final = r"[ .-]?"

_CALL: Final = (
    r"\b(?:(?:tele)?phone|mobile?|cell|tel|telefon(?:e|o|nummer)?|handy|t[éÉe]l[éÉe]phone|t[éÉe]l|call|fax|"
    r"whatsapp|ring|text|reach)\b"
)


_LABEL: Final = (
    r"\b(?:(?:tele)?phone|mobile?|cell|celular|tel|telefon(?:e|o|nummer)?|"
    "tel\u00e9fono|m\u00f3vil|"
    r"handy|fax|whatsapp)\b"
)


def _numbered(
    name: str,
    shape: str,
    check: Callable[[str], bool],
    context: str = "",
    evidence: float = _CHECKED,
) -> Pattern:
    """Return a pattern for a number that stands alone, where needed behind a word.

    The word is the better gate: texts are full of digits.
    """
    gate = f"(?i:{context})" if context else shape
    return Pattern(name, rf"{_ALONE}{shape}(?![\w-])", evidence, gate, check, context=context)


def _iban_shape() -> str:
    """Return the IBANs of every country, each in its length.

    The length is part of the shape, since words in capitals, such as `BIC`, often follow.
    """
    return "|".join(
        rf"{country}\d{{2}}(?:[ -]?[A-Z0-9]){{{length - 4}}}"
        for country, length in sorted(_IBAN_LENGTHS.items())
    )


_LETTER: Final = r"\u00c0-\u1fff"
_IDEOGRAPH: Final = r"\u2e80-\u2fff\u3005-\u3007\u3040-\ud7ff\uf900-\ufaff"
"""Characters of scripts without spaces, where an address may follow on a word at once."""

_EXTENSION: Final = r"(?: ?(?:x|[Ee]xt\.?) ?\d{1,6})?"
_TEN_DIGITS: Final = (
    r"(?:1[ .-])?(?:\([2-9]\d{2}\)[ .-]?|[2-9]\d{2}[ .-])"
    rf"[2-9]\d{{2}}[ .-]\d{{4}}{_EXTENSION}(?![\w-])"
)
"""A number of the North American plan."""

_NO_COUNT: Final = (
    r"(?![+(\d][\d .()-]{5,30}(?:[€$£%]|"
    r"(?:px|pixels?|[kcm]?m|[km]?g|[kMG]i?B|euros?|dollars?|pounds|people|users|units)\b))"
)
"""Not a number of something."""

_NO_DATE: Final = (
    r"(?!(?:[0-3]\d[./-][01]\d|[01]\d[./-][0-3]\d)[./-]\d{2,4}(?![./-]?\d)|"
    r"\d{4}[./-][01]\d[./-][0-3]\d\b|\d{4}-\d{4}(?![ ./-]?\d\d))"
)
"""Neither a date nor an ISSN nor a span of years."""

_NAMED: Final = (" ", ": ", "=", ' = "', '="', '": "', '("')


def _not_behind(words: tuple[str, ...], gaps: tuple[str, ...]) -> str:
    """Return the look-arounds for what is none right behind one of the words."""
    return "".join(f"(?<!{re.escape(word + gap)})" for word in words for gap in gaps)


_NO_VERSION: Final = _not_behind(
    (
        *("ersion", "ersions", "elease", "uild", "ection", "hapter", "igure", "able", "ver."),
        *("ernel", "irmware", "Linux"),
    ),
    _NAMED,
)
_NO_FILE: Final = r"(?!\.(?:tar|t?gz|zip|deb|rpm|whl|jar|dll|exe|msi|apk|iso|img)\b)"
"""Not the version in a package's name."""

_NO_PART: Final = _not_behind(
    (
        "art",
        "art number",
        "art no.",
        "art No.",
        "SKU",
        "odel",
        "odel number",
        "odel no.",
        "atalog number",
    ),
    (*_NAMED, " #"),
)
"""Not the number of a part, which manufacturers write likewise."""

_NUMBER: Final = r"(?:[ -]?(?:no\.?|nr\.?|num(?:ber|mer|\u00e9ro)|n\u00famero|#))?"
_SAYS: Final = r"(?:\s?[:#=|]| is| was| ist| lautet)?\s{1,3}[*`\"'(\[]{0,3}\Z"


_PATTERNS: Final = (
    Pattern(
        "email",
        # Letters of any script, in the name as in the domain (RFC 6531).
        rf"(?:(?<![\w.+%{_LETTER}-])[A-Za-z0-9{_LETTER}][\w.+%{_LETTER}-]{{0,63}}|"
        rf"(?<![\w.+%{_LETTER}{_IDEOGRAPH}-])[{_IDEOGRAPH}]{{1,64}})"
        rf"@(?:[A-Za-z0-9{_LETTER}{_IDEOGRAPH}-]{{1,63}}\.){{1,4}}[A-Za-z]{{2,24}}(?![\w@])",
        _CONTACT,
        r"@",
        email,
    ),
    Pattern(
        "phone",
        # `00` needs a gap behind the country's code: order numbers have leading zeros too.
        rf"(?<![\w.+/-]){_NO_DATE}{_NO_COUNT}"
        r"(?:\+[1-9]\d{0,2}[ .-]?|00[1-9]\d{0,2}[ .-])(?:\(0?\d{1,4}\)[ .-]?)?"
        rf"\d{{1,4}}(?:[ .-]?\d{{2,4}}){{1,5}}{_EXTENSION}(?![\w-])",
        _CONTACT,
        r"(?:\+|00)[1-9]\d{0,2}[ .-]?[(\d]",
        phone,
    ),
    Pattern(
        "phone",
        rf"(?<![\w.+/-]){_NO_COUNT}{_TEN_DIGITS}",
        _CONTACT,
        r"\d{3}\)?[ .-]?\d{3}[ .-]\d{4}",
        phone_in_spaces,
    ),
    Pattern(
        "phone",
        # Behind such a word it may be as round as it likes.
        rf"(?<![\w.+/-]){_NO_COUNT}{_TEN_DIGITS}",
        _CONTACT,
        r"\d{3}\)?[ .-]?\d{3}[ .-]\d{4}",
        phone,
        context=_CALL,
    ),
    Pattern(
        "phone",
        rf"(?<![\w.+/-]){_NO_DATE}"
        r"(?:\(0\d{1,4}\)|0\d{1,4})(?:[ ./-]?\d{2,4}){2,4}(?![\w-])",
        _CONTACT,
        r"0\d{1,4}\)?[ ./-]?\d",
        phone,
        context=_CALL,
    ),
    Pattern(
        "phone",
        # No zero, no plus: only right behind a label.
        rf"(?<![\w.+/-]){_NO_DATE}(?:\([1-9]\d{{1,3}}\)|[1-9]\d{{1,3}})(?:[ .-]?\d{{2,4}}){{1,4}}"
        rf"{_EXTENSION}(?![\w-])",
        _CONTACT,
        rf"(?i:{_LABEL})",
        phone,
        context=rf"{_LABEL}(?: (?:no\.?|number))?(?::| is)\s{{0,3}}\Z",
    ),
    Pattern(
        "payment_card",
        rf"{_ALONE}(?:[2-6]\d{{3}}(?:[ ./-]?\d{{4}}){{2}}[ ./-]?\d{{2,7}}|"
        r"3\d{3}[ ./-]?\d{6}[ ./-]?\d{4,5})(?![\w-])",
        _CHECKED,
        r"[2-6]\d{3}[ ./-]?\d{4}",
        card,
    ),
    # Cards of 13 digits are rare, article numbers of 13 digits are not.
    _numbered("payment_card", r"4\d{12}", luhn, r"\b(?:card|visa|cc)\b"),
    Pattern(
        "iban",
        rf"(?<![A-Za-z0-9])(?i:{_iban_shape()})(?![A-Za-z0-9])",
        _CHECKED + 1,
        r"[A-Za-z]{2}\d{2}[ -]?[A-Za-z0-9]",
        iban,
    ),
    _numbered("us_ssn", rf"{_NO_PART}\d{{3}}-\d{{2}}-\d{{4}}", us_ssn, evidence=_STRUCTURED),
    _numbered("us_ssn", r"\d{3} ?\d{2} ?\d{4}", us_ssn, r"\bssn\b|social security", _STRUCTURED),
    Pattern(
        "uk_nino",
        r"(?<![A-Za-z0-9])[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D]"
        r"(?![A-Za-z0-9])",
        _STRUCTURED,
        r"[A-Z]{2} ?\d{2} ?\d{2} ?\d{2} ?[A-D]",
        uk_nino,
    ),
    _numbered(
        "spanish_id",
        # One letter of 23 fits by chance, so that a date before a capital must not count.
        r"(?!(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01]))"
        r"(?:\d{8}|[XYZ]-?\d{7})-?[A-HJ-NP-TV-Z]",
        spanish_id,
        evidence=_STRUCTURED,
    ),
    _numbered(
        "italian_fiscal_code",
        r"[A-Z]{6}\d{2}[A-EHLMPR-T]\d{2}[A-Z]\d{3}[A-Z]",
        italian_fiscal_code,
    ),
    Pattern(
        "french_nir",
        rf"{_ALONE}[12] ?\d{{2}} ?(?:0[1-9]|1[0-2]|[2-9]\d) ?(?:\d{{2}}|2[AB])"
        r"(?: ?\d{3}){2} ?\d{2}(?![\w-])",
        _CHECKED,
        r"[12] ?\d{2} ?\d{2} ?\d[\dAB] ?\d",
        french_nir,
    ),
    _numbered(
        "canadian_sin",
        rf"[1-79]\d{{2}}{_SEP}\d{{3}}{_SEP}\d{{3}}",
        luhn,
        r"\b(?:sin|social insurance)\b",
    ),
    _numbered(
        "german_tax_id",
        r"[1-9]\d ?\d{3} ?\d{3} ?\d{3}",
        german_tax_id,
        r"(?:steuer|\btax id|\btin\b|idnr)",
    ),
    _numbered(
        "dutch_bsn", r"\d{4}[ .]?\d{2}[ .]?\d{3}", dutch_bsn, r"\b(?:bsn|burgerservice|sofi)"
    ),
    _numbered("polish_pesel", r"\d{11}", polish_pesel, r"pesel"),
    _numbered(
        "portuguese_nif",
        rf"[1-35689]\d{{2}}{_SEP}\d{{3}}{_SEP}\d{{3}}",
        portuguese_nif,
        r"\b(?:nif|contribuinte)\b",
    ),
    _numbered("brazilian_cpf", r"\d{3}\.\d{3}\.\d{3}-\d{2}", brazilian_cpf),
    _numbered("brazilian_cpf", r"\d{11}", brazilian_cpf, r"\bcpf\b"),
    _numbered(
        "indian_aadhaar",
        r"[2-9]\d{3}[ -]?\d{4}[ -]?\d{4}",
        verhoeff,
        r"(?:aadhaar|aadhar|uidai|\buid\b)",
    ),
    _numbered("australian_tfn", r"\d{3} ?\d{3} ?\d{3}", australian_tfn, r"(?:\btfn\b|tax file)"),
    _numbered(
        "australian_medicare",
        r"[2-6]\d{3} ?\d{5} ?\d(?:[ /-]?\d)?",
        australian_medicare,
        "medicare",
    ),
    _numbered("swedish_personnummer", r"(?:\d{2})?\d{6}[-+]\d{4}", swedish_personnummer, r"person"),
    _numbered("belgian_national_number", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", belgian_number),
    _numbered("chinese_resident_id", r"[1-8]\d{5}(?:19|20)\d{9}[\dX]", chinese_id),
    _numbered("south_korean_rrn", r"\d{2}[01]\d[0-3]\d-\d{7}", korean_rrn),
    _numbered(
        "singapore_nric",
        r"[STFGM]\d{7}[A-Z]",
        singapore_nric,
        r"(?:\bnric\b|\bfin\b|singapore|identity)",
    ),
    _numbered(
        "indian_pan",
        r"[A-Z]{3}P[A-Z]\d{4}[A-Z]",  # P: a person's
        lambda text: text[5:9] != "0000",
        r"(?:\bpan\b|permanent account|income tax)",
        _STRUCTURED,
    ),
    _numbered("swiss_ahv", r"756\.\d{4}\.\d{4}\.\d{2}", swiss_ahv),
    _numbered("swiss_ahv", r"756 ?\d{4} ?\d{4} ?\d{2}", swiss_ahv, r"\b(?:ahv|avs|oasi)\b"),
    _numbered(
        "norwegian_birth_number",
        r"[0-7]\d[0-5]\d{3} ?\d{5}",
        norwegian_number,
        r"(?:f.{1,2}dselsn|personn|\bfnr\b|d-nummer)",
    ),
    _numbered(
        "finnish_identity_code",
        r"\d{6}[-+A-FU-Y]\d{3}[0-9A-FHJ-NPR-Y]",
        finnish_code,
        r"(?:\bhetu\b|henkil.{1,2}tunnus|identity code|finnish)",
    ),
    Pattern(
        "passport",
        r"(?<![\w-])(?=[A-Z]{0,8}\d)[A-Z0-9]{7,9}(?![\w-])",
        _STRUCTURED,
        r"(?i:passport|reisepass|passeport|pasaporte)",
        document,
        context=rf"\b(?:passport|reisepass|passeport|pasaporte){_NUMBER}{_SAYS}",
    ),
    Pattern(
        "driving_licence",
        r"(?<![\w-])(?=[A-Z]{0,5}\d)(?:[A-Z0-9]{7,18}|[A-Z]\d{2,4}(?:-\d{2,6}){2,4})(?![\w-])",
        _STRUCTURED,
        r"(?i:driv|f.{1,2}hrerschein|permis de|conducir)",
        document,
        context=r"(?:\bdriv(?:er'?s?|ers'|er\u2019s|ing) licen[cs]e|\bf.{1,2}hrerschein|"
        rf"\bpermis de conduire|\b(?:licencia|permiso|carn.{{1,2}}t?) de conducir){_NUMBER}{_SAYS}",
    ),
    Pattern(
        "ip_address",
        # Four numbers may also be a version or a section.
        rf"(?<![\w.]){_NO_VERSION}"
        rf"(?:\d{{1,3}}\.){{3}}\d{{1,3}}(?![\w.]*\d|-[A-Za-z]){_NO_FILE}",
        _ADDRESS,
        r"\d\.\d{1,3}\.\d{1,3}\.\d",
        ip_address,
    ),
    Pattern(
        "ip_address",
        r"(?<![\w:.])[0-9a-fA-F]{1,4}(?::{1,2}[0-9a-fA-F]{1,4}){2,7}(?![\w:])",
        _ADDRESS,
        r"[0-9a-fA-F]:{1,2}[0-9a-fA-F]{1,4}:",
        ip_address,
    ),
)


@cache
def personal_data_detector() -> PatternDetector:
    """Return the pack that finds personal data (category `pii_leak`)."""
    return PatternDetector("personal_data", "pii_leak", _PATTERNS)
