"""Equal weights, where nothing tells which model is better."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from .._findings import model_finding
from .weight_table import WeightTable


@dataclass(frozen=True)
class EqualWeights(WeightTable):
    """The same weight for each model, where nothing tells which one is better.

    Args:
        table: a row for each model, with its `weight`.
        findings: a warning that nothing was compared.
        why: why neither their evidence nor past forecasts weigh them.
    """

    weighed_by: ClassVar[str] = "equal"


def equal_weights(models: Iterable[str], why: str) -> EqualWeights:
    """The same weight for each model.

    Args:
        models: their names.
        why: why nothing else weighs them.
    """
    names = [*models]
    said = model_finding(
        "warning",
        "weights",
        "all models have the same weight: neither evidence nor past forecasts were compared",
        "weigh them by what you know of them, or take more data",
    )
    table = pd.DataFrame({"weight": 1 / len(names)}, index=pd.Index(names, name="model"))
    return EqualWeights(table, (said,), why=why)
