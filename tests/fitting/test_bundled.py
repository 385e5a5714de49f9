"""The bundled model's sample of benign embeddings."""

from __future__ import annotations

import numpy as np

from guard.detectors.classifier import Classifier
from guard.fitting import benign, sample_of
from guard.loading import BUNDLED_MODEL


def test_the_bundled_sample() -> None:
    """It is small, belongs to the model, and holds units behind a prompt and without one."""
    assert (BUNDLED_MODEL / benign.FILE).stat().st_size < 600_000
    classifier = Classifier(BUNDLED_MODEL)
    sample = sample_of(BUNDLED_MODEL, classifier)
    assert sample is not None
    assert sample.embeddings.shape == (len(sample.prompted), classifier.dimensions)
    assert len(sample.prompted) >= 500
    assert 0.3 < sample.prompted.mean() < 0.7
    assert np.isfinite(sample.embeddings).all()
