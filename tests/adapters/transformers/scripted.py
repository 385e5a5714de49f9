"""Small language models of transformers that write what they are told, and their tokenizers.

The models are the library's own with random weights, asked by its own `generate`; their logits are
overwritten, so that behind a prompt with a known word follows the text that is scripted for it.

This module does not know how an answer is judged.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast, TextStreamer

from tests.adapters.leak_lab import FINE, PROMPT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SPECIAL: Final = {
    "bos_token": "<|start|>",
    "eos_token": "<|end|>",
    "pad_token": "<|pad|>",
    "unk_token": "<|unknown|>",
}

ASK: Final = "<|ask|>"
"""Ends prompts, so that the models know where their answer begins even if more is given with it."""

_CHAT: Final = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}" + ASK
)

_TEXTS: Final = (FINE, PROMPT, "Ivy grows by the wall.", "[blocked] [redacted: to redact]")

WORDS: Final = ("zb", "##lock", "##s", "ferns", "grow", "here", "blocked", "[", "]", ".", "?")
"""What the tokenizer of word pieces knows."""


def byte_pairs() -> Any:
    """Return a tokenizer of byte pairs, which spells every text exactly."""
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    inner.train_from_iterator(
        _TEXTS, trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    )
    return finished(inner)


def byte_fallback() -> Any:
    """Return a tokenizer as Llama's, which drops a first space and spells the rest by bytes."""
    letters = [*"▁abcdefghijklmnopqrstuvwxyzFI.,:?[]", "▁ferns", "▁grow", "▁in", "▁the", "▁shade"]
    names = [*(f"<0x{byte:02X}>" for byte in range(256)), *letters]
    inner = Tokenizer(
        models.Unigram(
            [(name, -1.0 - at / 500) for at, name in enumerate(names)],
            unk_id=0,
            byte_fallback=True,
        )
    )
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    inner.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return finished(inner)


def word_pieces() -> Any:
    """Return a tokenizer that joins pieces with spaces, and cannot spell most texts."""
    names = [*SPECIAL.values(), ASK, *WORDS]
    inner = Tokenizer(
        models.WordPiece({name: at for at, name in enumerate(names)}, unk_token="<|unknown|>")
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    return finished(inner)


def finished(inner: Tokenizer, *further: str) -> Any:
    """Return a tokenizer with special tokens; it ends a prompt with `ASK`."""
    names = [*SPECIAL.values(), ASK, *further]
    inner.add_special_tokens([AddedToken(name, special=True) for name in names])
    inner.post_processor = processors.TemplateProcessing(
        single=f"$A {ASK}", special_tokens=[(ASK, inner.token_to_id(ASK))]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        padding_side="left",
        chat_template=_CHAT,
        clean_up_tokenization_spaces=False,
        **SPECIAL,
    )


class ScriptedModel(GPT2LMHeadModel):
    """Writes what is scripted for a word of its prompt.

    Attributes:
        scripts: token ids by a word of the prompt; `""` is in every prompt.
        steps: how often it was asked.
        before: called before each step.
    """

    def __init__(self, config: GPT2Config) -> None:
        """Know no script yet."""
        super().__init__(config)
        self.tokenizer: Any = None
        self.scripts: Mapping[str, list[int]] = {}
        self.steps = 0
        self.before: Callable[[], object] = lambda: None

    def forward(  # noqa: D102  # as the library's
        self, input_ids: Any = None, attention_mask: Any = None, **kwargs: Any
    ) -> Any:
        self.before()
        self.steps += 1
        given = super().forward(input_ids=input_ids, attention_mask=attention_mask, **kwargs)
        cache: Any = kwargs.get("cache", kwargs.get("past_key_values"))
        first = cache.get_seq_length() - input_ids.shape[1]
        if first == 0:
            cache.scripts = [self._script(row) for row in input_ids.tolist()]
        logits = torch.zeros_like(given.logits)
        for row, (start, script) in enumerate(cache.scripts):
            for column in range(input_ids.shape[1]):
                at = first + column + 1 - start
                token = script[at] if 0 <= at < len(script) else self.config.eos_token_id
                logits[row, column, token] = 1e4
        given.logits = logits
        return given

    def _script(self, row: list[int]) -> tuple[int, list[int]]:
        """Return where the answer to a prompt begins, and what it is."""
        ask = self.tokenizer.convert_tokens_to_ids(ASK)
        start = len(row) - row[::-1].index(ask) if ask in row else len(row)
        prompt = self.tokenizer.decode(row[:start])
        return start, next(ids for word, ids in self.scripts.items() if word in prompt)


# Pipelines know by their names which models they are for.
ScriptedModel.__name__ = GPT2LMHeadModel.__name__


def new_model(tokenizer: Any, scripts: Mapping[str, Any] | str) -> Any:
    """Return a `ScriptedModel` that writes texts, or token ids, by a word of the prompt."""
    known = {"": scripts} if isinstance(scripts, str) else scripts
    config = GPT2Config(
        vocab_size=len(tokenizer),
        n_positions=2048,
        n_embd=8,
        n_layer=1,
        n_head=1,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    model: Any = ScriptedModel(config).eval()
    model.tokenizer = tokenizer
    model.scripts = {
        word: tokenizer(text, add_special_tokens=False)["input_ids"]
        if isinstance(text, str)
        else text
        for word, text in known.items()
    }
    model.generation_config.max_new_tokens = 900
    model.generation_config.do_sample = False
    return model


class Heard(TextStreamer):
    """A streamer that keeps what it hears."""

    def __init__(self, tokenizer: Any, **options: Any) -> None:
        """Have heard nothing yet."""
        super().__init__(tokenizer, **options)
        self.heard: list[str] = []
        self.ended = 0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:  # noqa: FBT001, FBT002
        """Keep a text."""
        self.heard.append(text)
        self.ended += stream_end
