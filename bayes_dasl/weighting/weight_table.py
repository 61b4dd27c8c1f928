"""A table of models with a weight for each."""

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
    """A table with a row for each model, and findings on it.

    `weighed_by` is "evidence", "forecasts" or "equal".
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
        """Weights by model, in the given order, for `bd.mixture`."""
        return dict(zip(map(str, self.table.index), self.table["weight"].tolist(), strict=True))

    @property
    def basis(self) -> str:
        """The basis of the weights in words, and the reason why a better one was not used."""
        return f"{_BASES[self.weighed_by]}{self.why and f': {self.why}'}"
