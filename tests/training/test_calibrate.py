"""Calibrating a trained model where validation rows are few or copies of each other."""

from __future__ import annotations

import numpy as np
import pytest

from guard.training.calibrate import calibrate
from guard.training.data import HEADS, Row

HEAD = "harassment"


@pytest.mark.parametrize(("risky", "measured"), [(("a", "a"), False), (("a", "b"), True)])
def test_figures_need_two_texts_of_either_side(risky: tuple[str, str], *, measured: bool) -> None:
    """No line is fitted without the only risky text there is: no figures then, and no error."""
    texts = [(text, 1.0) for text in risky] + [(text, 0.0) for text in "cdefghij"]
    rows = [Row("", text, {HEAD: label}, "own", "CC0-1.0", 1.0) for text, label in texts]
    logits = np.full((len(rows), len(HEADS)), np.nan)
    logits[:, HEADS.index(HEAD)] = [4.0 * label - 2.0 for _, label in texts]
    entry = calibrate(logits, rows)["labels"][HEAD]
    assert (entry["positives"], entry["negatives"]) == (2, 8)
    assert entry["slope"] > 0
    assert ("ece" in entry) == measured
