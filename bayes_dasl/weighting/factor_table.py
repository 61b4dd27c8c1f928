"""`BayesFactors`, a table of Bayes factors and posterior probabilities of models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .weight_table import WeightTable


@dataclass(frozen=True)
class BayesFactors(WeightTable):
    """Bayes factors relative to the model nested in all others.

    Args:
        table: a row for each model, in the given order. `log_bayes_factor` is in nats, and `error`
            is its Monte-Carlo standard error. `by_bridge` says whether it comes from bridge
            sampling. `weight` is the posterior probability of the model among these models, given
            the `prior` probabilities.
        findings: findings on the Bayes factors and their errors.
        base: the name of the nested model.
        why: empty.
    """

    base: str
    weighed_by: ClassVar[str] = "evidence"
