"""Equal weights of models, used if neither evidence nor past forecasts can give weights."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

import pandas as pd

from .._findings import model_finding
from .weight_table import WeightTable


@dataclass(frozen=True)
class EqualWeights(WeightTable):
    """Equal weights of models, used if neither evidence nor past forecasts can give weights.

    Args:
        table: a row for each model, with its `weight`.
        findings: a warning that nothing was compared.
        why: the reason why neither evidence nor past forecasts were used.
    """

    weighed_by: ClassVar[str] = "equal"


def equal_weights(models: Iterable[str], why: str) -> EqualWeights:
    """Give each model the same weight.

    Args:
        models: the names of the models.
        why: the reason why neither evidence nor past forecasts were used.

    Returns:
        A table of the models, with a warning.
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
