"""Where the forecast's uncertainty comes from."""

from __future__ import annotations

import numpy as np
import xarray as xr

MEANINGS = {
    "total": "total variance",
    "aleatoric": "variance of the observation given the draw",
    "epistemic": "variance of the conditional mean over draws",
    "science": "epistemic variance from the science leaves alone",
    "network": "epistemic variance from the network leaves alone",
    "interaction": "epistemic variance from science and network together",
}


def decompose(fc: xr.DataTree) -> xr.Dataset:
    r"""Split the predictive variance of each observable at each time (law of total variance).

    $\mathrm{Var}[y] = E[\mathrm{Var}(y \mid \theta)] + \mathrm{Var}[E(y \mid \theta)]$,
    `total = aleatoric + epistemic`; the total is computed on its own, from $E[v + m^2] - E[m]^2$.

    With science and network leaves in the model, the crossed grid
    $m_{ij} = E(y \mid \text{science}_i, \text{network}_j)$ splits the epistemic part:
    `science` $= \mathrm{Var}_i E_j m_{ij}$ and `network` $= \mathrm{Var}_j E_i m_{ij}$, by the
    unbiased mean-square estimators of the two-way analysis of variance, so an effect that is near
    nothing may come out slightly negative. `interaction` is what is left of the epistemic part: the
    true interaction, and the posterior correlation of the two groups. It is negative when they
    compensate for each other, as a closure and a rate often do.

    Failed draws are left out (`attrs["failed_draws"]`), and so are failed rows and columns of the
    grid. NaN where fewer than two draws, rows or columns are left.

    Shapes: each variable is `(observable, time)`.
    Units: the square of the observable's, which the coordinate `units` names.
    """
    means = fc["conditional_mean"].to_dataset()
    variances = fc["conditional_variance"].to_dataset()
    names = [str(name) for name in means.data_vars]
    crossed = fc["crossed_mean"].to_dataset() if "crossed_mean" in fc.children else None
    rows, failed = [], 0
    for name in names:
        mean, variance = _stacked(means[name]), _stacked(variances[name])
        ok = np.all(np.isfinite(mean) & ~np.isnan(variance), axis=1)
        failed = max(failed, int((~ok).sum()))
        row = total_variance(mean[ok], variance[ok])
        if crossed is not None:
            grid = crossed[name].transpose("science_draw", "network_draw", "time").values
            row |= crossed_variance(grid)
            row["interaction"] = row["epistemic"] - row["science"] - row["network"]
        rows.append(row)
    return _labelled(rows, names, means, failed)


def total_variance(mean: np.ndarray, variance: np.ndarray) -> dict[str, np.ndarray]:
    """Return total, aleatoric and epistemic `(time,)` from conditional moments `(draw, time)`.

    Shapes: NaN where there are fewer than two draws.
    """
    if mean.shape[0] < 2:
        return {
            name: np.full(mean.shape[1], np.nan) for name in ("total", "aleatoric", "epistemic")
        }
    # Variance knows no origin; near zero the squares lose no digits.
    centred = mean - mean[0]
    return {
        "total": (variance + centred**2).mean(axis=0) - centred.mean(axis=0) ** 2,
        "aleatoric": variance.mean(axis=0),
        "epistemic": mean.var(axis=0),
    }


def crossed_variance(grid: np.ndarray) -> dict[str, np.ndarray]:
    r"""Return science and network `(time,)` from a crossed grid `(science, network, time)`.

    $\hat\sigma^2_a = (MS_a - MS_{ab}) / J$ for the rows, and the same for the columns

    Rows and columns with failures (NaN) are dropped, the worst first.

    Source: Searle, Casella & McCulloch (1992), Variance Components, section 4.3.
    """
    grid = complete_block(grid)
    n_rows, n_columns, n_times = grid.shape
    if min(n_rows, n_columns) < 2:
        return {name: np.full(n_times, np.nan) for name in ("science", "network")}
    row, column = grid.mean(axis=1), grid.mean(axis=0)
    centre = row.mean(axis=0)
    residual = grid - row[:, None] - column[None] + centre
    mean_square = (residual**2).sum(axis=(0, 1)) / ((n_rows - 1) * (n_columns - 1))
    return {
        "science": row.var(axis=0, ddof=1) - mean_square / n_columns,
        "network": column.var(axis=0, ddof=1) - mean_square / n_rows,
    }


def complete_block(grid: np.ndarray) -> np.ndarray:
    """Drop rows and columns, the one with the largest share of failures first, until none fails."""
    bad = np.any(~np.isfinite(grid), axis=2)
    rows, columns = np.ones(grid.shape[0], bool), np.ones(grid.shape[1], bool)
    while (left := bad[np.ix_(rows, columns)]).any():
        row_share, column_share = left.mean(axis=1), left.mean(axis=0)
        if row_share.max() >= column_share.max():
            rows[np.flatnonzero(rows)[row_share.argmax()]] = False
        else:
            columns[np.flatnonzero(columns)[column_share.argmax()]] = False
    return grid[np.ix_(rows, columns)]


def _stacked(variable: xr.DataArray) -> np.ndarray:
    values = variable.transpose("chain", "draw", "time").values
    return values.reshape(-1, values.shape[-1])


def _labelled(rows, names, means: xr.Dataset, failed: int) -> xr.Dataset:
    units = [str(means[name].attrs.get("units", "")) for name in names]
    variables = {
        part: (("observable", "time"), np.array([row[part] for row in rows]), {"long_name": text})
        for part, text in MEANINGS.items()
        if part in rows[0]
    }
    coords = {
        "observable": names,
        "units": ("observable", units),
        "time": means["time"].variable,
    }
    return xr.Dataset(variables, coords=coords, attrs={"failed_draws": failed})
