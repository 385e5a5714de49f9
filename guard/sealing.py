"""Seals a model's directory: a manifest with the size and SHA-256 of every file.

This module does not know what any of the files says.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

SIZE_LIMIT: Final = 25_000_000
"""Bytes that a model directory may have in all."""

MANIFEST: Final = "manifest.json"

SEALED: Final = (
    "config.json",
    "tokenizer.json",
    "onnx/model_quantized.onnx",
    "onnx/model_quantized.onnx.data",
    "calibration.json",
    "canonical.json",
    "benign.npz",
    "unfamiliar.npz",
    "README.md",
)
"""The files of a model that was made here."""


def seal(
    out: Path,
    facts: Mapping[str, Any],
    names: Iterable[str] = SEALED,
    *,
    limit: int | None = SIZE_LIMIT,
) -> None:
    """Write `manifest.json`: `facts`, and size and SHA-256 of every file of `names` that is there.

    Raises:
        ValueError: the files are larger than `limit` in all.
    """
    files = {name: _entry(out / name) for name in names if (out / name).is_file()}
    total = sum(entry["bytes"] for entry in files.values())
    if limit is not None and total > limit:
        raise ValueError(f"the model takes {total:,} bytes, more than {limit:,}")
    text = json.dumps({**facts, "files": files}, indent=2, sort_keys=True)
    (out / MANIFEST).write_text(text + "\n", "utf-8")


def _entry(path: Path) -> dict[str, Any]:
    content = path.read_bytes()
    return {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
