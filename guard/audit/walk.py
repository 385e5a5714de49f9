"""The way through a plan: which units count, in the plan's order whatever comes in first.

The same walk is taken while answers come in and when they are read again later, so that an
audit that was killed and resumed counts the same answers as one that was not.

This module does not know where answers come from or how they are judged.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from guard.audit.course import Course
    from guard.audit.figures import Aim
    from guard.audit.judging import Judgement
    from guard.audit.probe import Probe


class Walk:
    """The units of a plan, taken one after the other.

    Args:
        probes: in the order in which they are asked.
        course: says which units are needed; `None` for all.
    """

    def __init__(self, probes: Sequence[Probe], course: Course | None = None) -> None:
        """Stand before the first unit."""
        units: dict[str, list[str]] = defaultdict(list)
        for probe in probes:
            units[probe.unit].append(probe.id)
        self._units: Mapping[str, Sequence[str]] = units
        self._order = list(units)
        self._unit_of = {probe.id: probe.unit for probe in probes}
        self._at = 0
        self._judged: dict[str, Judgement | None] = {}
        self._passed: set[str] = set()
        self._done: set[str] = set()
        self.course = course
        self._go_on()

    @property
    def finished(self) -> bool:
        """Whether nothing more need be asked."""
        return self._at == len(self._order)

    @property
    def count(self) -> int:
        """Probes that are done with: answered, declined or passed over."""
        return len(self._done)

    @property
    def passed(self) -> tuple[str, ...]:
        """Probes that need not be asked."""
        return tuple(
            probe for unit in self._order if unit in self._passed for probe in self._units[unit]
        )

    @property
    def counted(self) -> Mapping[str, Judgement | None]:
        """What counts, in the plan's order; `None` for what was declined."""
        return {
            probe: self._judged[probe]
            for unit in self._order[: self._at]
            if unit not in self._passed
            for probe in self._units[unit]
        }

    def wants(self, probe: str) -> bool:
        """Return whether a probe should be asked, as far as is known by now."""
        unit = self._unit_of[probe]
        if probe in self._judged or unit in self._passed:
            return False
        return self.course is None or self.course.needs(unit)

    def put(self, probe: str, judgement: Judgement | None) -> None:
        """Take in what an answer shows, `None` where the backend declined."""
        self._judged[probe] = judgement
        self._done.add(probe)
        self._go_on()

    def judgement(self, probe: str) -> Judgement | None:
        """Return what an answer shows, `None` where there is none."""
        return self._judged.get(probe)

    def flags(self, aim: Aim) -> bool | None:
        """Return whether an answer is flagged, `None` where there is none."""
        judgement = self.judgement(aim.probe)
        return None if judgement is None else judgement.flagged(aim.instrument)

    def _go_on(self) -> None:
        while self._at < len(self._order):
            unit = self._order[self._at]
            if self.course is not None and not self.course.needs(unit):
                self.course.skip(unit)
                self._passed.add(unit)
                self._done.update(self._units[unit])
            elif not all(probe in self._judged for probe in self._units[unit]):
                return
            elif self.course is not None:
                self.course.take(unit, self.flags)
            self._at += 1
