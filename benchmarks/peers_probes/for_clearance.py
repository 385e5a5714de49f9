"""How clearance-guard is probed: OpenAI's SDK, wrapped."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from openai import OpenAI

from guard import Guard
from guard.detectors.base import Finding
from guard.detectors.classifier import Classifier
from guard.policy import load_class
from guard.security_class import SecurityClass
from peers_probes.probing import RULE, Given, Way, run, sdk_reader
from peers_probes.texts import PATTERN

if TYPE_CHECKING:
    from guard.detectors.base import Passage


TIMEOUT: Final = 60.0
"""Seconds for a unit: a machine that is busy with more than this must not end what is timed."""


class Marker:
    """The rule as a detector."""

    name, version, categories = "marker", "1", ("marker",)

    def __call__(self, passage: Passage) -> list[Finding]:
        """Return what begins in the unit."""
        if not RULE(passage.text):
            return []
        return [
            Finding("marker", 9.0, *match.span(), self.name, self.version)
            for match in PATTERN.finditer(passage.text)
            if passage.start <= match.start() < passage.end
        ]


def blocking() -> SecurityClass:
    """Return a class that blocks the marker."""
    return SecurityClass.model_validate(
        {
            "name": "marker",
            "rank": 1,
            "timeout_seconds": TIMEOUT,
            "limits": {"marker": {"flag": 0.5, "act": 0.9, "remedy": "block"}},
            "messages": {"en": {"blocked": "[blocked]", "replaced": "[replaced]"}},
        }
    )


def classified(given: Given) -> Guard:
    """Return a guard of the classifier alone, which judges by class `public`."""
    detector, whole = Classifier(given.model), load_class("public")
    limits = {name: whole.limits[name] for name in detector.categories if name in whole.limits}
    changes = {"limits": limits, "input": None, "timeout_seconds": TIMEOUT}
    return Guard(whole.model_copy(update=changes), [detector])


def ways(given: Given) -> list[Way]:
    """Return the default."""
    client = OpenAI(base_url=given.url, api_key="x")
    return [
        Way(
            "default",
            sdk_reader(Guard(blocking(), [Marker()]).wrap(client)),
            sdk_reader(client),
            classified=sdk_reader(classified(given).wrap(client)),
        )
    ]


if __name__ == "__main__":
    run(ways)
