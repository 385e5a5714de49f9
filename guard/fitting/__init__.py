"""Categories of one's own: from a few labelled examples to a head, on a CPU in seconds.

    examples    labelled texts, read from JSON lines
    bags        their units as embeddings, near copies and groups
    benign      the model's bundled sample of ordinary units
    logistic    the regression, numpy alone
    fit         weights, calibration and figures
    advice      what would make it better

This package does not know policies, and imports neither torch nor sklearn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from guard.errors import ConfigurationError, ModelError
from guard.fitting import benign
from guard.fitting.bags import bags
from guard.fitting.fit import fit
from guard.heads import TOLL, BelongsTo, OwnHead, unusable_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from guard.detectors.classifier import Classifier
    from guard.fitting.benign import Benign
    from guard.fitting.examples import Example


def check_name(category: str) -> None:
    """Refuse a name that no own category can have.

    Raises:
        ConfigurationError: the name is taken or is none.
    """
    if (problem := unusable_name(category)) is not None:
        raise ConfigurationError(problem)


def sample_of(directory: Path, classifier: Classifier) -> Benign | None:
    """Return the benign sample in a model's directory, `None` where it has none."""
    return benign.read(directory, classifier.digest)


def make_head(
    classifier: Classifier,
    category: str,
    examples: Iterable[Example],
    *,
    sample: Benign | None,
    advance: Callable[[], None] = lambda: None,
) -> OwnHead:
    """Return a head for `category`, fitted to `examples`.

    Args:
        classifier: the model whose embeddings the head reads.
        category: the name; see `check_name`.
        examples: each answer once; their order does not matter.
        sample: of ordinary units, `None` to go by the examples alone.
        advance: called after each example.

    Raises:
        ModelError: the model gives no embeddings.
        ConfigurationError: too few examples.
    """
    if not classifier.dimensions:
        raise ModelError(
            f"`{classifier.name}` gives no embeddings: export it with an output "
            "`sentence_embedding`, or use another model"
        )
    found = fit(bags(classifier, examples, advance), sample)
    return OwnHead(
        category=category,
        model=BelongsTo(name=classifier.name, version=classifier.version, digest=classifier.digest),
        weights=found.weights,
        intercept=found.intercept,
        calibration=found.calibration,
        toll=TOLL,
        figures=found.figures,
        advice=found.advice,
    )
