"""A table of models with their weights."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from typing import ClassVar

import pandas as pd

from .._findings import Finding

_BASES = {
    "evidence": "Model weights by evidence",
    "forecasts": "Model weights by past forecasts",
    "equal": "Equal model weights",
}


@dataclass(frozen=True)
class WeightTable:
    """A table of models with their weights, and findings on it.

    The class attribute `weighed_by` is "evidence", "forecasts" or "equal".

    Args:
        table: a row for each model, with the column `weight`.
        findings: findings on the models and their weights.
        why: the reason why a better method was not used; empty if there is none.
    """

    table: pd.DataFrame
    findings: tuple[Finding, ...]
    why: str = field(default="", kw_only=True)
    weighed_by: ClassVar[str]

    def __str__(self) -> str:
        table = self.table.to_string(float_format="{:.3g}".format)
        return "\n".join([self.basis, table, *map(str, self.findings)])

    def _repr_html_(self) -> str:
        said = "".join(f"<li>{html.escape(str(finding))}</li>" for finding in self.findings)
        table = self.table.to_html(float_format="{:.3g}".format)
        return f"<p>{html.escape(self.basis)}</p>{table}<ul>{said}</ul>"

    @property
    def weights(self) -> dict[str, float]:
        """Weights by name of the model, in the given order, for `bd.mixture`."""
        return dict(zip(map(str, self.table.index), self.table["weight"].tolist(), strict=True))

    @property
    def basis(self) -> str:
        """How the weights were computed, in words, and why a better method was not used."""
        return f"{_BASES[self.weighed_by]}{self.why and f': {self.why}'}"
