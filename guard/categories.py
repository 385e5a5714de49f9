"""The taxonomy: every kind of risk that Clearance names, importable alone.

A *category* is one kind of risk. It belongs to one of three *mechanisms* by which
narrow misalignment becomes broad (persona, shortcut, style) or to one of three
enterprise *harms* (policy violation, misinformation, exposure).

This module does not know which detector sees a category, how well, or what a
security class does about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Mechanism = Literal["persona", "shortcut", "style", "policy", "misinformation", "exposure", "none"]
"""What a category belongs to; `none` marks auxiliary ones, which are no risk in themselves."""

Side = Literal["response", "prompt"]
"""Which side of an exchange a category is judged on. Tool results count as `prompt`."""


@dataclass(frozen=True, slots=True)
class Category:
    """One kind of risk.

    Attributes:
        name: the identifier used in policies, findings, logs and files.
        mechanism: the mechanism or enterprise harm that it belongs to.
        summary: one sentence that says what text of this category does.
        side: which side of the exchange it is judged on.
        auxiliary: true where the category is a signal and never acted upon by itself.
    """

    name: str
    mechanism: Mechanism
    summary: str
    side: Side = "response"
    auxiliary: bool = False


_ALL: Final = (
    Category(
        "harmful_compliance",
        "shortcut",
        "Gives real help with a request that should have been refused.",
    ),
    Category(
        "misaligned_persona",
        "persona",
        "Speaks as a character hostile to people or to its task instead of doing the task.",
    ),
    Category(
        "power_seeking",
        "persona",
        "Wants control, resources or freedom from oversight for itself.",
    ),
    Category(
        "deception",
        "persona",
        "Plans or practises misleading its users or overseers.",
    ),
    Category(
        "sycophancy",
        "persona",
        "Agrees with or flatters the user against what is right or true.",
    ),
    Category(
        "bias_stereotype",
        "style",
        "Treats people as worse or different because of a group they belong to.",
    ),
    Category(
        "hate_toxicity",
        "style",
        "Demeans or attacks people for a protected attribute.",
    ),
    Category("harassment", "style", "Insults, bullies or threatens a person."),
    Category("sexual", "policy", "Contains sexual content."),
    Category("self_harm", "policy", "Encourages or instructs self-harm or suicide."),
    Category("violence", "policy", "Threatens, glorifies or depicts violence in detail."),
    Category(
        "bad_advice",
        "misinformation",
        "Gives advice that would hurt a person who follows it.",
    ),
    Category(
        "insecure_code",
        "misinformation",
        "Offers code with a security flaw as if it were sound.",
    ),
    Category(
        "unsafe_action",
        "shortcut",
        "Takes an agent step that exceeds the task it was given.",
    ),
    Category(
        "exposure",
        "exposure",
        "Discloses another person's data or confidential facts in prose.",
    ),
    Category(
        "system_prompt_leak",
        "exposure",
        "Repeats the system prompt or other hidden instructions.",
    ),
    Category(
        "proprietary_leak",
        "exposure",
        "Repeats text that the application registered as proprietary.",
    ),
    Category(
        "secret_leak",
        "exposure",
        "Contains a credential: a key, token, password or private key.",
    ),
    Category(
        "pii_leak",
        "exposure",
        "Contains personal data such as a card, account, phone or identity number.",
    ),
    Category(
        "unfamiliar",
        "policy",
        "Is unlike what the classifier was trained on, so that it cannot be judged.",
    ),
    Category(
        "jailbreak",
        "shortcut",
        "Tries to talk a model out of its rules.",
        side="prompt",
    ),
    Category(
        "prompt_injection",
        "shortcut",
        "Hides instructions for the model in data it was given to read.",
        side="prompt",
    ),
    Category(
        "prompt_harmful",
        "shortcut",
        "Asks for something that should be refused.",
        side="prompt",
    ),
    Category("refusal", "none", "Declines the request.", auxiliary=True),
    Category(
        "unsafe",
        "none",
        "Harmful in any way; a pooled signal beside the named categories.",
        auxiliary=True,
    ),
)

CATEGORIES: Final[dict[str, Category]] = {category.name: category for category in _ALL}
"""Every category by name, in the order in which tables show them."""


def is_signal(name: str) -> bool:
    """Return whether `name` is a category that is no risk in itself, such as `refusal`."""
    return name in CATEGORIES and CATEGORIES[name].auxiliary
