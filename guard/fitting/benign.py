"""The bundled sample of benign embeddings: what an own category stands against.

`benign.npz` in a model's directory holds embeddings of some hundred ordinary units, eight
bits a number, and the digest of the model that made them. It holds no text.

    embeddings   int8, shape (units, dimensions)
    scale        float32, shape (dimensions,)
    offset       float32, same shape: a number is offset + scale * embedding
    prompted     bool, shape (units,): whether the unit was judged behind its prompt
    digest       the model's, as text

This module does not know which units they were (`guard.training.benign`).
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from guard.detectors import arrays
from guard.errors import ModelError

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

FILE: Final = "benign.npz"

_STEPS: Final = 127


@dataclass(frozen=True, slots=True)
class Benign:
    """Embeddings of ordinary units.

    Attributes:
        embeddings: shape (units, dimensions).
        prompted: which units were judged behind their prompt, shape (units,).
    """

    embeddings: NDArray[np.float64]
    prompted: NDArray[np.bool_]


def write(directory: Path, sample: Benign, digest: str) -> None:
    """Write the sample into a model's directory; the same sample gives the same bytes."""
    offset = sample.embeddings.mean(axis=0)
    scale = np.maximum(np.abs(sample.embeddings - offset).max(axis=0), 1e-9) / _STEPS
    kept = {
        "embeddings": np.rint((sample.embeddings - offset) / scale).astype(np.int8),
        "scale": scale.astype(np.float32),
        "offset": offset.astype(np.float32),
        "prompted": sample.prompted,
        "digest": np.array(digest),
    }
    arrays.write(directory / FILE, kept)


def read(directory: Path, digest: str) -> Benign | None:
    """Return a model's sample, `None` where it has none.

    Raises:
        ModelError: the file is damaged, or was made by another model.
    """
    path = directory / FILE
    if not path.is_file():
        return None
    try:
        # A path would stay open where the archive is damaged.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as given:
            made_by = str(given["digest"])
            units = given["offset"] + given["scale"] * given["embeddings"].astype(np.float64)
            sample = Benign(units, given["prompted"].astype(bool))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(f"`{path}` cannot be used: {error}: reinstall the model") from error
    if sample.embeddings.ndim != 2 or len(sample.prompted) != len(sample.embeddings):
        raise ModelError(f"`{path}` cannot be used: its parts do not fit: reinstall the model")
    if made_by != digest:
        raise ModelError(
            f"`{path}` was made by another model: make it anew with `python -m "
            "guard.training.benign DIRECTORY`"
        )
    return sample
