"""The security class and its sections: what a policy file may say, checked strictly.

A *security class* is a named, ranked set of limits: per category the live risk at which a
response is flagged and at which it is acted upon, the remedy, what happens when a detector
fails, what the journal keeps, what the end user reads, and what a model must have shown to be
deployed under it. Higher ranks are stricter.

This module does not know files (`guard.policy`) or how a risk comes about.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence  # noqa: TC003  # pydantic reads them
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PrivateAttr,
    StringConstraints,
    ValidationInfo,
    field_validator,
)
from pydantic_core import PydanticCustomError

from guard.policy_problems import LANGUAGE, NAME, WORDS

Remedy = Literal["redact", "excise", "regenerate", "replace", "block"]
"""What is done above the act limit.

`redact` puts a placeholder in the place of the span; `excise` takes out the smallest set of
sentences; `regenerate` has an adapter ask the backend again and is `replace` elsewhere;
`replace` delivers a message instead; `block` delivers nothing.
"""

OnFailure = Literal["block", "replace", "flag"]
"""What is done where a detector or the journal failed."""

TextMode = Literal["full", "redacted", "hashed", "omitted"]
"""How the journal keeps texts."""

AlarmAction = Literal["notify", "tighten", "fallback", "quarantine"]
"""What an alarm does while it stands."""

JournalledAction = Literal["flag", "rewrite", "block"]

Risk = Annotated[
    float,
    Field(ge=0, le=1, strict=True, allow_inf_nan=False, description="live risk in [0, 1]"),
]
Probability = Annotated[
    float,
    Field(gt=0, lt=1, strict=True, allow_inf_nan=False, description="probability in (0, 1)"),
]
Effect = Annotated[
    float,
    Field(ge=-1, le=1, strict=True, allow_inf_nan=False, description="difference in [-1, 1]"),
]
Odds = Annotated[
    float, Field(ge=0, le=20, strict=True, allow_inf_nan=False, description="log-odds, nats")
]
Language = Annotated[str, StringConstraints(pattern=LANGUAGE)]
Words = Annotated[str, Field(pattern=WORDS)]
FileName = Annotated[str, StringConstraints(min_length=1)]

_PLACEHOLDER: Final = re.compile(r"\{(\w*)\}")


def _frozen(value: Mapping[str, Any]) -> Mapping[str, Any]:
    return MappingProxyType(dict(value))


def _nothing() -> Mapping[str, Any]:
    return MappingProxyType({})


_Plain: Final = PlainSerializer(dict)


class Model(BaseModel):
    """A section of a policy: unknown keys are refused, nothing changes after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    def __reduce__(self) -> tuple[Any, ...]:
        # The frozen mappings inside cannot be pickled.
        return type(self).model_validate, (self.model_dump(),)

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Any:
        return self


class InputLimit(Model):
    """The live risk at which what a model is given is flagged, and refused.

    Attributes:
        flag: from here on it is passed on and journalled.
        act: from here on it is not passed on; at or above `flag`.
    """

    flag: Risk | None = None
    act: Risk | None = Field(default=None, validate_default=True)

    @field_validator("act")
    @classmethod
    def _ordered(cls, act: float | None, info: ValidationInfo) -> float | None:
        if "flag" not in info.data:
            return act
        flag = info.data["flag"]
        if act is None and flag is None:
            raise problem("sets neither `flag` nor `act`: give one, or remove the category", up=1)
        if act is not None and flag is not None and act < flag:
            raise problem(f"{act:g} is below `flag` {flag:g}: raise it, or lower `flag`")
        return act


class Limit(InputLimit):
    """The live risk at which one category is flagged and acted upon.

    Attributes:
        flag: from here on the response is delivered and journalled.
        act: from here on the remedy is applied; at or above `flag`.
        remedy: what is done from `act` on.
    """

    remedy: Remedy = "block"


class Input(Model):
    """What is done about what a model is given: the last user message and tool results.

    Attributes:
        limits: per category.
    """

    limits: Annotated[Mapping[str, InputLimit], AfterValidator(_frozen), _Plain] = Field(
        min_length=1
    )


class Regenerate(Model):
    """How often and how long a backend is asked again where the remedy is `regenerate`.

    Attributes:
        attempts: further answers that are asked for.
        seconds: for all of them together, pauses included.
        instruction: added to the conversation as the last system message.
    """

    attempts: int = Field(default=2, ge=1, le=10, strict=True)
    seconds: float = Field(default=30.0, gt=0, le=600, strict=True, allow_inf_nan=False)
    instruction: Words = (
        "Your last draft broke the rules of this service and was withheld. Answer the question "
        "anew: helpful, factual and safe, without anything that could hurt anybody."
    )


class Live(Model):
    """How the live risk of a deployment is followed, and what raises an alarm.

    Attributes:
        rise: how far a prior may rise above its start, in log-odds.
        fall: how far it may fall below its start, in log-odds; what benign traffic can talk down.
        half_life: exchanges after which an exchange counts half for the priors.
        tolerated: the rate of risky answers that is within what the class tolerates.
        tolerated_of: the same for single categories.
        alpha: chance of a false alarm over the whole life, over all categories together.
        horizon: exchanges over which `alpha` holds for the test for change.
        action: what an alarm does while it stands. `notify` tells; `tighten` judges by the
            next stricter class; `fallback` asks another backend; `quarantine` blocks everything.
        action_of: the same for single categories.
    """

    rise: Odds = 2.5
    fall: Odds = 0.5
    half_life: float = Field(default=2000.0, gt=0, strict=True, allow_inf_nan=False)
    tolerated: Probability = 0.001
    tolerated_of: Annotated[Mapping[str, Probability], AfterValidator(_frozen), _Plain] = Field(
        default_factory=_nothing
    )
    alpha: float = Field(default=0.01, gt=0, lt=0.5, strict=True, allow_inf_nan=False)
    horizon: int = Field(default=10_000, ge=1, le=1_000_000_000, strict=True)
    action: AlarmAction = "notify"
    action_of: Annotated[Mapping[str, AlarmAction], AfterValidator(_frozen), _Plain] = Field(
        default_factory=_nothing
    )

    @property
    def actions(self) -> tuple[AlarmAction, ...]:
        """Everything that some alarm may do."""
        return (self.action, *self.action_of.values())


EFFECTS: Final = ("over_refusal", "persona_rate", "shortcut_rate", "style_amplification")
"""The effects that an audit tells (`guard.audit.figures`).

Style amplification is also told of single styles, as in `style_amplification.edgy`.
"""


class Deploy(Model):
    """What a model must have shown in an audit to be deployed under a class.

    Attributes:
        tag: whether a signed tag is demanded at start.
        rates: per category or mechanism, the highest upper bound of the audited rate.
        effects: per effect, such as `style_amplification`, its highest upper bound.
        samples: answers that each rate must rest on.
    """

    tag: Literal["optional", "required"] = "optional"
    rates: Annotated[Mapping[str, Risk], AfterValidator(_frozen), _Plain] = Field(
        default_factory=_nothing
    )
    effects: Annotated[Mapping[str, Effect], AfterValidator(_frozen), _Plain] = Field(
        default_factory=_nothing
    )
    samples: int = Field(default=100, ge=1, strict=True)


class Prior(Model):
    """The live prior: how likely a response carries a risk before it is looked at.

    Attributes:
        default: for every category that is not named.
        categories: for single categories.
    """

    default: Probability = 0.02
    categories: Annotated[Mapping[str, Probability], AfterValidator(_frozen), _Plain] = Field(
        default_factory=_nothing
    )


class JournalSettings(Model):
    """What the journal keeps.

    Attributes:
        actions: which actions get a row.
        text: how prompt and response are kept. `redacted` takes out secrets and personal
            data, `hashed` keeps a SHA-256, `omitted` nothing, `full` everything.
    """

    actions: tuple[JournalledAction, ...] = ("flag", "rewrite", "block")
    text: TextMode = "redacted"


class Messages(Model):
    """What the end user reads.

    Attributes:
        blocked: in place of a blocked response.
        replaced: in place of a replaced one.
        redacted: in place of a span; `{category}` is filled in.
    """

    blocked: Words
    replaced: Words
    redacted: str = "[redacted: {category}]"

    @field_validator("blocked", "replaced", "redacted")
    @classmethod
    def _placeholders(cls, text: str, info: ValidationInfo) -> str:
        known = ("category",) if info.field_name == "redacted" else ()
        unknown = [word for word in _PLACEHOLDER.findall(text) if word not in known]
        if unknown:
            there = "only `{category}` is filled in here" if known else "nothing is filled in here"
            raise problem(f"holds `{{{unknown[0]}}}`, and {there}: remove it")
        return text


class SecurityClass(Model):
    """A named, ranked set of limits.

    Attributes:
        name: how it is called.
        rank: its place among the classes; higher is stricter.
        description: whom it is for.
        heads: files of own categories (`guard model fit`), relative to the policy file; the
            categories may have limits and priors like any other.
        prior: the live prior.
        limits: per category; a category without a limit is scored and never acted upon.
        input: the same for what the model is given; by default that is not judged.
        regenerate: for the remedy of this name.
        deploy: what a model must have shown to be deployed under the class.
        live: how the live risk is followed; by default the priors stay as they are.
        on_failure: what is done where a detector or the journal failed.
        shadow: decide and journal, but deliver everything unchanged.
        timeout_seconds: for all detectors together, per judged unit.
        journal: what is kept.
        messages: by language tag (BCP 47).
        language: which of them is used unless another is asked for.
    """

    name: str = Field(pattern=NAME)
    rank: int = Field(ge=0, le=1000, strict=True)
    description: str = ""
    heads: tuple[FileName, ...] = ()
    prior: Prior = Field(default_factory=Prior)
    limits: Annotated[Mapping[str, Limit], AfterValidator(_frozen), _Plain] = Field(min_length=1)
    input: Input | None = None
    regenerate: Regenerate = Field(default_factory=Regenerate)
    deploy: Deploy | None = None
    live: Live | None = None
    on_failure: OnFailure = "block"
    shadow: bool = Field(default=False, strict=True)
    timeout_seconds: float = Field(default=5.0, gt=0, le=600, strict=True, allow_inf_nan=False)
    journal: JournalSettings = Field(default_factory=JournalSettings)
    messages: Annotated[Mapping[Language, Messages], AfterValidator(_frozen), _Plain] = Field(
        min_length=1
    )
    language: Language = Field(default="en", validate_default=True)
    _policy: Callable[[], Sequence[SecurityClass]] = PrivateAttr(default=tuple)

    def __eq__(self, other: object) -> bool:
        # Which classes stand beside it says nothing about what a class asks for.
        return isinstance(other, SecurityClass) and self.__dict__ == other.__dict__

    __hash__ = Model.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.model_dump(), self._policy)

    @field_validator("language")
    @classmethod
    def _has_messages(cls, language: str, info: ValidationInfo) -> str:
        messages = info.data.get("messages")
        if messages is not None and language not in messages:
            there = ", ".join(messages)
            raise problem(
                f"there are no `messages` in `{language}`: add them, or use one of {there}"
            )
        return language

    def limit(self, category: str) -> Limit | None:
        """Return the limit of `category`, `None` where it is never acted upon."""
        return self.limits.get(category)

    @property
    def stricter(self) -> SecurityClass | None:
        """The class of the next higher rank in the same policy, `None` where there is none."""
        above = [item for item in self._policy() if item.rank > self.rank]
        return min(above, key=lambda item: item.rank, default=None)

    @property
    def tightens(self) -> bool:
        """Whether some alarm has the stricter class judge."""
        return self.live is not None and "tighten" in self.live.actions

    @property
    def input_limits(self) -> Mapping[str, InputLimit]:
        """The limits on what a model is given; none where that is not judged."""
        return {} if self.input is None else self.input.limits

    def of_input(self) -> SecurityClass:
        """Return the class by which what a model is given is judged: refused or passed on."""
        limits = {
            category: Limit(flag=limit.flag, act=limit.act)
            for category, limit in self.input_limits.items()
        }
        return self.model_copy(update={"limits": _frozen(limits)})

    def among(self, policy: Callable[[], Sequence[SecurityClass]]) -> SecurityClass:
        """Return the class as one of a policy.

        Args:
            policy: gives all classes of the policy; asked only once they are needed.
        """
        placed = self.model_copy()
        placed._policy = policy  # noqa: SLF001  # it is one of its own
        return placed

    def with_priors(self, priors: Mapping[str, float]) -> SecurityClass:
        """Return the class with other priors, in (0, 1), for the categories of `priors`."""
        merged = _frozen({**self.prior.categories, **priors})
        prior = self.prior.model_copy(update={"categories": merged})
        return self.model_copy(update={"prior": prior})

    def prior_of(self, category: str) -> float:
        """Return the live prior of `category`, in (0, 1)."""
        return self.prior.categories.get(category, self.prior.default)

    def messages_in(self, language: str | None) -> Messages:
        """Return the messages in `language`, else in a wider one, else the class's own.

        Tags are looked up as in RFC 4647: `zh-Hant-TW`, then `zh-Hant`, then `zh`; upper and
        lower case are the same, and so are `_` and `-`.
        """
        there = {tag.lower(): messages for tag, messages in self.messages.items()}
        parts = (language or self.language).replace("_", "-").lower().split("-")
        for length in range(len(parts), 0, -1):
            if (tag := "-".join(parts[:length])) in there:
                return there[tag]
        return self.messages[self.language]


def _restored(
    values: Mapping[str, Any], policy: Callable[[], Sequence[SecurityClass]]
) -> SecurityClass:
    """Return a class that was sent from another process."""
    return SecurityClass.model_validate(values).among(policy)


def problem(text: str, *, up: int = 0) -> PydanticCustomError:
    """Return an error of the field that is validated, or of what stands `up` levels above."""
    return PydanticCustomError("own", "{text}", {"text": text, "up": up})
