"""What a page was asked for: filters and place, read from and written to its address.

This module does not know any page.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from guard.errors import InputError
from guard.journal.filters import Filters, Place
from guard.journal.times import moment

if TYPE_CHECKING:
    from collections.abc import Mapping

ACTIONS: Final = ("flag", "rewrite", "block")
DELIVERED: Final = ("full", "part", "none")
SHADOW: Final = ("yes", "no")
NO_MODEL: Final = "(none)"
"""What the model filter says for rows without one."""

_LONGEST: Final = 300


@dataclass(frozen=True, slots=True)
class Query:
    """What a page was asked for, as people write it; `""` for nothing.

    Attributes:
        action: `flag`, `rewrite` or `block`.
        flagged: only what was flagged for this category.
        category: only where its live risk is at least `minimum`.
        minimum: see `category`; 0.5 by default.
        security_class: the class's name.
        model: the backend model's name.
        delivered: `full`, `part` or `none`.
        shadow: `yes` or `no`.
        since: not before this time.
        until: before this time.
        unlabelled: `yes` for rows with a flag that nobody has labelled yet.
        after: the place of the last row of the page before this one.
    """

    action: str = ""
    flagged: str = ""
    category: str = ""
    minimum: str = ""
    security_class: str = ""
    model: str = ""
    delivered: str = ""
    shadow: str = ""
    since: str = ""
    until: str = ""
    unlabelled: str = ""
    after: str = ""

    @classmethod
    def parse(cls, given: Mapping[str, str]) -> Query:
        """Read a page's address; what it does not know in it is passed over.

        Raises:
            InputError: a filter has a value that it cannot have.
        """
        texts = {name: given.get(name, "").strip() for name in cls.__dataclass_fields__}
        if any(len(text) > _LONGEST for text in texts.values()):
            raise InputError(f"a filter has more than {_LONGEST} characters: shorten it")
        query = cls(**texts)
        query.filters()
        query.place()
        return query

    def filters(self) -> Filters:
        """Return the filters for the journal.

        Raises:
            InputError: one has a value that it cannot have.
        """
        return Filters(
            action=_one_of("action", self.action, ACTIONS),
            security_class=self.security_class or None,
            flagged=self.flagged or None,
            category=self.category or None,
            minimum=_share(self.minimum),
            model="" if self.model == NO_MODEL else self.model or None,
            delivered=_one_of("delivered", self.delivered, DELIVERED),
            shadow={"yes": True, "no": False}.get(_one_of("shadow", self.shadow, SHADOW) or ""),
            since=moment(self.since) if self.since else None,
            until=moment(self.until) if self.until else None,
        )

    def place(self) -> Place | None:
        """Return the place of the last row of the page before this one.

        Raises:
            InputError: it is none.
        """
        if not self.after:
            return None
        match = re.fullmatch(r"(-?\d{1,18})-([0-9a-f]{1,32})", self.after)
        if match is None:
            raise InputError("`after` is no place in the journal: begin with the newest rows")
        return Place(int(match[1]), match[2])

    @property
    def only(self) -> str | None:
        """The one category that labels are asked for, `None` for all."""
        return self.flagged or self.category or None

    @property
    def narrows(self) -> bool:
        """Whether it asks for some of the rows alone."""
        return self.first() != Query()

    def first(self) -> Query:
        """Return the same filters from the newest row on."""
        return replace(self, after="")

    def at(self, place: Place) -> Query:
        """Return the same filters behind `place`."""
        return replace(self, after=f"{place.created}-{place.id}")

    def but(self, **changes: str) -> Query:
        """Return the same with `changes`, from the newest row on."""
        values: dict[str, Any] = {"after": "", **changes}
        return replace(self, **values)

    def __str__(self) -> str:
        """Return it as the end of an address, `""` where it asks for nothing."""
        given = {name: text for name, text in asdict(self).items() if text}
        return f"?{urlencode(given)}" if given else ""


def _one_of(name: str, text: str, known: tuple[str, ...]) -> str | None:
    if text and text not in known:
        raise InputError(f"`{name}` is one of {', '.join(known)}")
    return text or None


def _share(text: str) -> float:
    try:
        number = float(text or 0.5)
    except ValueError:
        number = math.nan
    if not 0 <= number <= 1:
        raise InputError("`minimum` is a live risk: write a number from 0 to 1, such as 0.5")
    return number
