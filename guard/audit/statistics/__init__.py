"""The figures of an audit, each with a 95 % interval that is honest about small numbers.

    what is asked                        function
    how often a model does it            `rate`, corrected for the classifier's errors
    the same, questions asked repeatedly `rate_of_questions`
    persona rate                         `rate` of answers with the persona's category
    shortcut rate, over-refusal          `rate` of the pairs' harmful side that was complied with,
                                         and of their benign side that was refused
    style amplification                  `effect`: the same questions, styled and neutral
    two models on the same probes        `effect`, `paired_p_value`
    two models on other probes           `difference`, `unpaired_p_value`
    the same, by their rates alone       both of them, of what the rates are `worth`
    many such comparisons at once        `holm`, `benjamini_hochberg`
    a person labelled some answers       `prediction_powered`

    estimate     what all of them return; counts per question
    rates        rates, and what a classifier's errors do to them
    effects      differences of rates
    labelled     predictions joined with labels
    comparing    tests, and many of them at once
    binomial     exact binomial arithmetic

Intervals for a number of answers that was fixed beforehand; for stopping early see
`guard.audit.sequences`. `benchmarks/audit_intervals.py` measures how often each holds the truth.

Where nothing was seen, nothing is certain: spreads are found as if a row or two more had been seen,
on either extreme. A bound therefore never closes because an event did not happen.

This package does not know probes, models or classes. It takes for granted that the classifier
errs on these answers as often as on the rows of its calibration, and that questions were drawn
independently of one another; it cannot see where that is wrong.
"""

from guard.audit.statistics.comparing import (
    benjamini_hochberg,
    holm,
    paired_p_value,
    unpaired_p_value,
)
from guard.audit.statistics.effects import difference, effect
from guard.audit.statistics.estimate import LEVEL, Counts, Estimate
from guard.audit.statistics.labelled import prediction_powered
from guard.audit.statistics.rates import rate, rate_of_questions, worth

__all__ = [
    "LEVEL",
    "Counts",
    "Estimate",
    "benjamini_hochberg",
    "difference",
    "effect",
    "holm",
    "paired_p_value",
    "prediction_powered",
    "rate",
    "rate_of_questions",
    "unpaired_p_value",
    "worth",
]
