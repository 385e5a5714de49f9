"""One call of a language model's `generate` under guard: what it asks, and what it must not ask.

Where rows keep their places (greedy search, sampling, assisted generation) each is judged while it
grows, and ends as soon as it is withheld; beams change places, so that they are judged at the end.

This module does not know how a row is judged (`guard.adapters.transformers_rows`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import torch
from transformers import StoppingCriteria, StoppingCriteriaList

from guard.adapters.transformers_rows import Reading, Row, Unasked, closing_of, lead_of
from guard.errors import InputError
from guard.exchange import Exchange, Message
from guard.request_text import text_of
from guard.wire.asked import role_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from guard.adapters.transformers_rows import Ids, Read
    from guard.engine import Guard
    from guard.verdict import Verdict

    Options = dict[str, Any]
    Rows = Sequence[Row | Unasked]

_STEP: Final = 8
"""Tokens after which an answer is read anew."""

_SHARE: Final = 64
"""The share of a long answer after which it is, so that it all stays linear in its length."""

_REFUSED: Final = {
    "custom_generate": "it replaces `generate`, and nobody knows what by",
    "trust_remote_code": "it replaces `generate`, and nobody knows what by",
    "inputs_embeds": "nobody can read what they ask: give `input_ids`",
    "cache": "it would keep what was withheld: leave it to `generate`",
    "past_key_values": "it would keep what was withheld: leave it to `generate`",
    "cache_params": "it would keep what was withheld: leave it to `generate`",
    "token_healing": "it rewrites the prompt",
    "output_scores": "scores tell the words that were withheld",
    "output_logits": "logits tell the words that were withheld",
    "output_attentions": "they are of the words that were withheld, too",
    "output_hidden_states": "they tell the words that were withheld",
}
"""Options that cannot be guarded, with the reason."""


@dataclass(frozen=True)
class Guarding:
    """How a model is guarded.

    Attributes:
        guard: judges.
        tokenizer: the model's.
        on_verdict: called with the verdict on every row.
    """

    guard: Guard
    tokenizer: Any
    on_verdict: Callable[[Verdict], object] | None = None


def is_due(count: int, seen: int) -> bool:
    """Return whether an answer of `count` tokens of which `seen` were read is to be read."""
    return count - seen >= max(_STEP, count // _SHARE)


class Watch(StoppingCriteria):
    """Ends each row for itself as soon as it is withheld.

    Args:
        rows: in the order of the batch.
        start: where the answers begin, in tokens.
    """

    def __init__(self, rows: Rows, start: int) -> None:
        """Have seen nothing."""
        self._rows = rows
        self._start = start
        self._seen = 0

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        """Have what is new judged where there is enough of it; say which rows are to end."""
        del scores, kwargs
        count = input_ids.shape[1] - self._start
        if is_due(count, self._seen):
            self._seen = count
            answers = input_ids[:, self._start :].tolist()
            for row, ids in zip(self._rows, answers, strict=True):
                row.take(ids)
        ended = [row.stopped for row in self._rows]
        return torch.tensor(ended, dtype=torch.bool, device=input_ids.device)


@dataclass
class Call:
    """One call of `generate`.

    Attributes:
        guarding: how the model is guarded.
        model: the model itself.
        options: what `generate` is given, by name.
        asked: what each prompt asks, where the caller says so; else it is read from its ids.

    Raises:
        InputError: it asks for what cannot be guarded.
    """

    guarding: Guarding
    model: Any
    options: Options
    asked: Sequence[Any] | None = None
    prompts: list[Ids] = field(init=False)

    def __post_init__(self) -> None:
        """Refuse what cannot be guarded; read the prompts."""
        for name, reason in _REFUSED.items():
            value = self.setting(name)
            if value is not None and value is not False:
                raise InputError(f"`{name}` cannot be guarded: {reason}")
        if self.setting("cache_implementation") == "paged":
            raise InputError("a paged cache cannot be guarded: it ends no row early")
        self.prompts = self._prompts()
        if len(self.prompts) * self.answers > 1 and self._filling is None:
            raise InputError("several answers need a token to fill up with: set `pad_token_id`")
        if self.asked is not None and len(self.asked) != len(self.prompts):
            raise InputError(
                f"`asked` has {len(self.asked)} items for {len(self.prompts)} prompts: give one "
                "for each"
            )

    def setting(self, name: str) -> Any:
        """Return an option's value, whether it is given or configured."""
        if self.options.get(name) is not None:
            return self.options[name]
        for config in (self.options.get("generation_config"), self.model.generation_config):
            if getattr(config, name, None) is not None:
                return getattr(config, name)
        return None

    def generate(self, *criteria: StoppingCriteria) -> torch.Tensor:
        """Have the model write; return what it wrote behind each prompt, both as ids."""
        ends = StoppingCriteriaList([*(self.options.get("stopping_criteria") or ()), *criteria])
        given = self.model.generate(**self.options | {"stopping_criteria": ends})
        sequences: torch.Tensor = getattr(given, "sequences", given)
        return sequences

    @property
    def beams(self) -> bool:
        """Whether rows change places."""
        return (self.setting("num_beams") or 1) > 1

    @property
    def answers(self) -> int:
        """How many answers each prompt gets."""
        return int(self.setting("num_return_sequences") or 1)

    @property
    def start(self) -> int:
        """Where the answers begin, in tokens."""
        ids = self._input_ids
        # Without a prompt, a model is given the token that begins a text.
        return 1 if ids is None else int(ids.shape[1])

    def reading(self, prompt: int) -> Reading:
        """Return the ways to read the answers to a prompt."""
        tokenizer = self.guarding.tokenizer
        closing = closing_of(tokenizer, self.setting("eos_token_id"), self.setting("pad_token_id"))
        return Reading(tokenizer, self.prompts[prompt], closing)

    def exchange(self, prompt: int) -> Exchange:
        """Return what a prompt asks."""
        if self.asked is not None:
            return exchange_of(self.asked[prompt])
        return exchange_of(self.reading(prompt).alone(self.prompts[prompt]))

    def lead(self, prompt: int) -> str:
        """Return what readers see right before the answers to a prompt."""
        asked = None if self.asked is None else self.asked[prompt]
        if asked is None:
            return lead_of(self.reading(prompt).alone(self.prompts[prompt]))
        if isinstance(asked, str):
            return lead_of(asked)
        # An answer that was begun in the conversation goes on.
        last = self.exchange(prompt).messages[-1:]
        return lead_of(last[0].content) if last and last[0].role == "assistant" else ""

    def refusals(self) -> list[Verdict | None]:
        """Return, for each prompt that the model must not be asked, why."""
        guard = self.guarding.guard
        if not guard.security_class.input_limits:
            return [None] * len(self.prompts)
        judged = [guard.check_input(self.exchange(at)) for at in range(len(self.prompts))]
        return [verdict if verdict.message else None for verdict in judged]

    def rows(
        self,
        refusals: Sequence[Verdict | None],
        read: Callable[[Reading], Read] | None = None,
        say: Callable[[str], None] | None = None,
    ) -> Rows:
        """Return the answers to come.

        Args:
            refusals: see `refusals`.
            read: chooses the way in which the text is shown.
            say: told what may leave, where it leaves while more is coming.
        """
        rows: list[Row | Unasked] = []
        for prompt, refusal in enumerate(refusals):
            reading = self.reading(prompt)
            shown = read(reading) if read else self.shown(reading)
            for _ in range(self.answers):
                if refusal is not None:
                    rows.append(Unasked(refusal, reading))
                    continue
                asked = self.exchange(prompt), reading, shown, self.lead(prompt)
                rows.append(Row(self.guarding.guard, *asked, say))
        return rows

    def shown(self, reading: Reading) -> Read:
        """Return how an answer is shown: behind its prompt, unless the caller shows it alone."""
        return reading.joined if self.asked is None else reading.alone

    def repeated(self) -> list[Ids]:
        """Return the ids that stand before each row's answer."""
        ids = self._input_ids
        prompts: list[Ids] = [[]] if ids is None else ids.tolist()
        return [prompt for prompt in prompts for _ in range(self.answers)]

    def padded(self, rows: Sequence[Ids]) -> torch.Tensor:
        """Return rows of ids as a tensor, filled up at the end."""
        width = max(map(len, rows))
        filling = self._filling or 0
        filled = [[*ids, *[filling] * (width - len(ids))] for ids in rows]
        return torch.tensor(filled, dtype=torch.long, device=self.model.device)

    @property
    def _filling(self) -> int | None:
        """The token that fills rows up."""
        tokenizer = self.guarding.tokenizer
        known = (
            *(self.setting("pad_token_id"), self.setting("eos_token_id")),
            *(tokenizer.pad_token_id, tokenizer.eos_token_id),
        )
        firsts = (each[0] if isinstance(each, list | tuple) else each for each in known)
        return next((number for number in firsts if number is not None), None)

    @property
    def _input_ids(self) -> torch.Tensor | None:
        given = self.options.get("inputs")
        return self.options.get("input_ids") if given is None else given

    def _prompts(self) -> list[Ids]:
        """Return each prompt's ids, without what fills it up."""
        ids, mask = self._input_ids, self.options.get("attention_mask")
        if ids is None:
            return [[]]
        if mask is None or mask.shape != ids.shape:
            return [list(row) for row in ids.tolist()]
        return [row[kept.bool()].tolist() for row, kept in zip(ids, mask, strict=True)]


def exchange_of(asked: Any) -> Exchange:
    """Return what is asked, by a text or by the messages of a conversation.

    Raises:
        InputError: it is neither.
    """
    if isinstance(asked, Exchange):
        return asked
    if isinstance(asked, str):
        return Exchange((), (Message("user", asked),) if asked else ())
    if not isinstance(asked, list | tuple) or not all(isinstance(m, Mapping) for m in asked):
        raise InputError(
            f"what is asked must be a text or a list of messages, not {type(asked).__name__}"
        )
    said = (Message(role_of(m.get("role")), text_of(m.get("content"))) for m in asked)
    return Exchange((), tuple(said))
