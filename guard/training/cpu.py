"""What makes a training step on a CPU cheaper, and changes nothing of what is learnt.

Beside arithmetic a step spends time on memory that is given back and asked for anew, which the
kernel clears page by page, and on random numbers for dropout. Memory is kept, and dropout takes
stretches of one long draw. `benchmarks/training_speed.py` says what that gives.

This module does not know models, batches or losses.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

_TRIM_THRESHOLD: Final = -1
_MMAP_MAX: Final = -4
"""Of glibc's `mallopt`, see mallopt(3)."""

_ALL: Final = 2**31 - 1

_PLACES: Final = 1 << 22
"""At how many places of the draw a mask may begin."""

_SEED: Final = 1

_draws: dict[tuple[float, torch.dtype], Tensor] = {}


def keep_memory() -> bool:
    """Have this process keep memory that it frees, to be used again; return whether it does.

    It goes for the whole process, and as long as that runs. Only glibc's allocator is asked;
    with another one nothing happens.
    """
    mallopt = _of_glibc("mallopt")
    return mallopt is not None and bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, _ALL))


def trim_memory() -> None:
    """Give what is kept and not in use back to the system, where `keep_memory` works."""
    trim = _of_glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _of_glibc(name: str) -> Any | None:
    try:
        return getattr(ctypes.CDLL(None), name)
    except (AttributeError, OSError, TypeError):
        return None


def dropped(hidden: Tensor, rate: float) -> Tensor:
    """Return values of which some are 0 and the others larger, as dropout does in training.

    Which ones follows from torch's own random state, so that a run which is resumed goes on alike.

    Args:
        hidden: on a CPU, of any shape.
        rate: share of them that are 0, in [0, 1).
    """
    if not rate:
        return hidden
    count = hidden.numel()
    at = int(torch.randint(_PLACES, ()))
    return hidden * _draw(count + _PLACES, rate, hidden.dtype)[at : at + count].view(hidden.shape)


def _draw(count: int, rate: float, kind: torch.dtype) -> Tensor:
    """Return at least so many factors; what a longer draw begins with is the shorter one."""
    found = _draws.get((rate, kind))
    if found is None or len(found) < count:
        random = np.random.default_rng(_SEED).random(count, np.float32)
        found = torch.from_numpy(random >= rate).to(kind) / (1 - rate)
        _draws[rate, kind] = found
    return found
