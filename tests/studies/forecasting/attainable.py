"""How often intervals of forecasts that are just what they say hold as many data as wanted."""

from collections.abc import Sequence

import numpy as np
import xarray as xr

WITHIN = (0.85, 0.95)
"""Of data in 90 % intervals."""

_KEPT = 50
_DRAWS = 20_000


def covers_itself(forecast: xr.DataTree, test: xr.Dataset) -> list[float]:
    """Quantiles of the share of all data ahead that 90 % intervals hold, where draws of the
    forecast are the data.

    Data that hold together, or that are few, are seldom held as often as wanted by intervals that
    are right.
    """
    predicted, parts = forecast["predictions"].to_dataset(), []
    for name in (name for name in predicted.data_vars if name in test):
        seen = test[name].dropna("time")
        draws = predicted[name].sel(time=seen["time"].values).stack(sample=("chain", "draw"))
        values = draws.transpose("sample", ...).values.reshape(draws.sizes["sample"], -1)
        low, high = np.quantile(values, [0.05, 0.95], axis=0)
        parts.append((values >= low) & (values <= high))
    held = np.concatenate(parts, axis=1).mean(axis=1)
    return [
        round(float(value), 4)
        for value in np.quantile(held, (np.arange(_KEPT) + 0.5) / _KEPT, method="nearest")
    ]


def expected(each: Sequence[Sequence[float]]) -> float:
    """The probability that the mean coverage of data sets is as wanted, by what `covers_itself`
    says of each.
    """
    rng = np.random.default_rng(0)
    means = np.mean([rng.choice(quantiles, _DRAWS) for quantiles in each], axis=0)
    return float(np.mean((means >= WITHIN[0]) & (means <= WITHIN[1])))
