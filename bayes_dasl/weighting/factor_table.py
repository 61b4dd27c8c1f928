"""Bayes factors of models as a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from .weight_table import WeightTable


@dataclass(frozen=True)
class BayesFactors(WeightTable):
    """Bayes factors of models over the model that is nested in all of them.

    Args:
        table: a row for each model, in the order in which they were given. `log_bayes_factor` is
            the log of that ratio, in nats, and `error` its Monte-Carlo standard error; `by_bridge`
            says whether it is by bridge sampling; `weight` is the probability of the model given
            the data, of these models and under the `prior` probabilities.
        findings: what can be said of them.
        base: the name of that model.
        why: empty.
    """

    base: str
    weighed_by: ClassVar[str] = "evidence"
