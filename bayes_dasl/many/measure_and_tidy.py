"""Scores and cost of a model as one row, and tables made of many such rows."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr

from ..errors import Interrupted, ModelError
from ..fitting.fit_and_resume import fit
from ..inference import NUTS, AbstractEngine
from ..model import Model
from ..prediction.evaluation import evaluate
from ..prediction.forecasts import forecast
from ..reports._text import number
from ..scores.scores import score
from ..verdict.diagnosis import diagnose

_SCORES = ("rmse", "mae", "crps", "log_score", "coverage_50", "coverage_90", "n")
_QUANTILES = {
    "low": 0.05,
    "median": 0.5,
    "high": 0.95,
}
_COLUMNS = {"scores": {"ahead", "observable", *_SCORES}, "derived": {"quantity", *_QUANTILES}}


def measure(
    model: Model,
    train: xr.Dataset,
    ahead: Mapping[str, xr.Dataset | tuple[Model, xr.Dataset]],
    engine: AbstractEngine | None = None,
    *,
    derived: Callable[[Model], Any] | None = None,
    each: str | None = None,
    key: int = 0,
) -> dict[str, Any]:
    """Fit a model, forecast unseen data, and return scores and cost as one row for `run_many`.

    Args:
        model: the model.
        train: the training data.
        ahead: unseen data by name, such as `{"near": …, "far": …}`, with observations and with the
            forcings of the model. A value may also be a pair of another model and data. This model
            then forecasts with the posterior of the fit (`what_if` of `bd.forecast`), for example
            with another known number.
        engine: the engine; None for `NUTS()`.
        derived: a function of the model, as for `bd.evaluate`. The row then has the median and the
            90 % interval of its values.
        each: a dimension of the unseen data, such as groups. Then each coordinate on it is also
            scored separately, as unseen data with the name "NAME, COORDINATE".
        key: the random seed of fit and forecasts.

    Returns:
        - `scores`: scores as in `bd.score`, by name of the data, observable and score.
        - `derived`: `low`, `median` and `high` by name of the derived quantity, if `derived` is
          given.
        - `verdict`: the levels `sampling` and `model` of `bd.diagnose` for the fit alone.
        - `failed_draws`: the largest number of draws that a forecast left out.
        - `fit_s` and `forecast_s`: duration of fit and forecasts in seconds.
        - `memory_mb`: largest memory use of the process during the call, in MB. On systems other
          than Linux it is the largest since the process began.

    Raises:
        ModelError: if `ahead` is no dict, or its data do not have the dimension `each`.
        Interrupted: if Ctrl-C ended the fit.
        BayesDaslError: as `bd.fit` and `bd.forecast`.
    """
    if not isinstance(ahead, Mapping):
        raise ModelError(
            f"ahead is a dict of datasets by name, such as {{'ahead': test}}, not "
            f"{type(ahead).__name__}"
        )
    # 1. Pair each dataset with the model that forecasts it.
    asked = {name: a if isinstance(a, tuple) else (model, a) for name, a in ahead.items()}
    for name, (_, data) in asked.items():
        if each and each not in data.dims:
            dims = ", ".join(map(str, data.dims))
            raise ModelError(f"each='{each}' is no dimension of '{name}', which has {dims}")
    # 2. Fit.
    _forget_peak()
    began = time.perf_counter()
    post = fit(model, train, engine or NUTS(), key=key, progress=False)
    fitted = time.perf_counter()
    if post.attrs["interrupted"]:
        raise Interrupted("the fit was stopped, so nothing is measured")
    # 3. Forecast and score. Only forecasts count as forecasting time.
    scores, lost, spent = {}, 0, 0.0
    for name, (other, data) in asked.items():
        began_ahead = time.perf_counter()
        fc = forecast(other, post, data, what_if=other is not model, key=key)
        spent += time.perf_counter() - began_ahead
        parts = {name: (fc, data)}
        for place in data[each].values.tolist() if each else ():
            parts[f"{name}, {place}"] = fc.sel({each: [place]}), data.sel({each: [place]})
        for part, (fc_part, data_part) in parts.items():
            table = score(fc_part, data_part)
            lost = max(lost, int(table.attrs["failed_draws"]))
            shown: Any = table.drop(index="all", errors="ignore")[[*_SCORES]]
            scores[part] = shown.map(_rounded).rename(index=str).to_dict("index")
    # 4. Collect the row.
    found = diagnose(post)
    row = {
        "scores": scores,
        "verdict": {"sampling": found.sampling, "model": found.model},
        "failed_draws": lost,
        "fit_s": round(fitted - began, 2),
        "forecast_s": round(spent, 2),
        "memory_mb": round(_peak(), 1),
    }
    if derived is not None:
        row["derived"] = _derived_quantiles(evaluate(model, post, derived))
    return row


def tidy(
    rows: pd.DataFrame | Iterable[Mapping[str, Any]], of: Literal["scores", "derived"] = "scores"
) -> pd.DataFrame:
    """Return the results of `measure` in many tasks as a long table.

    Args:
        rows: the result of `run_many`. Tasks that failed, or whose results lack `of`, are left out.
        of: "scores" gives one line for each task, unseen dataset and observable. "derived" gives
            one line for each task and derived number; an array has one line per element, such as
            "eddy[3]".

    Returns:
        A table with all columns of `rows` whose values are single numbers or texts, such as the
        arguments of the task and `fit_s`. For "scores" it adds `ahead` (the name of the unseen
        dataset in `measure`), `observable` and each score. For "derived" it adds
        `quantity`, `low`, `median` and `high`.

    Raises:
        ModelError: if an argument of the tasks has the name of an added column.
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame([*rows])
    if clash := _COLUMNS[of] & {*table.columns}:
        raise ModelError(
            f"the argument '{min(clash)}' of the tasks is called as a column of {of}: rename it"
        )
    lines_of = _score_lines if of == "scores" else _derived_lines
    lines = []
    for row in table.to_dict("records"):
        found = row.pop(of, None)
        if isinstance(found, Mapping):
            plain = {name: value for name, value in row.items() if not _is_nested(value)}
            lines += [plain | line for line in lines_of(found)]
    if not lines:
        # An empty table has the same columns.
        plain = [name for name in table if not any(map(_is_nested, table[name]))]
        return pd.DataFrame(columns=[*plain, *sorted(_COLUMNS[of])])
    found = pd.DataFrame(lines)
    # A column of nothing but None would hold objects.
    numbers = [name for name in (_SCORES if of == "scores" else _QUANTILES) if name in found]
    return found.astype(dict.fromkeys(numbers, float))


def _is_nested(value: Any) -> bool:
    """Whether a value is a dict or a list, which does not fit into a cell of a table."""
    return isinstance(value, (Mapping, list))


def _score_lines(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return one line per name of unseen data and observable, from the `scores` of one task."""
    return [
        {
            "ahead": ahead,
            "observable": observable,
            **scores,
        }
        for ahead, by_observable in found.items()
        for observable, scores in by_observable.items()
    ]


def _derived_lines(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return one line per derived number, from the `derived` of one task.

    An array has one line per element.
    """
    lines = []
    for name, quantiles in found.items():
        arrays = {end: np.asarray(values, float) for end, values in quantiles.items()}
        for place in np.ndindex(next(iter(arrays.values())).shape):
            index = f"[{', '.join(map(str, place))}]" if place else ""
            ends = {end: float(array[place]) for end, array in arrays.items()}
            lines.append({"quantity": f"{name}{index}", **ends})
    return lines


def paired(
    table: pd.DataFrame,
    value: str,
    *,
    between: str,
    against: Any,
    over: str | Iterable[str] = ("seed",),
) -> pd.DataFrame:
    """Compare alternatives with one of them, by differences of paired values.

    Args:
        table: a table such as that of `tidy`.
        value: the column to compare, such as "crps"; lower is better.
        between: the column that names the alternatives, such as "model".
        against: the alternative with which all others are compared.
        over: the column or columns, such as seeds, that define pairs: two rows with equal values in
            them.

    Returns:
        One line per other alternative, with these columns:

        - `median`: the median of its values.
        - `difference`: the mean difference from `against`.
        - `error`: its standard error. It is NaN for fewer than two pairs, and too small if pairs
          share data.
        - `better`: the number of pairs in which the value is lower than that of `against`.
        - `pairs`: the number of complete pairs.

    Raises:
        ModelError: if a column or the alternative `against` is missing, or if several rows have the
            same values of `between` and `over`. In the latter case select one observable and one
            name of unseen data first.
    """
    over = [over] if isinstance(over, str) else [*over]
    if missing := [name for name in (value, between, *over) if name not in table]:
        raise ModelError(
            f"there is no column {', '.join(missing)}: there are {', '.join(map(str, table))}"
        )
    if against not in (known := [*table[between].unique()]):
        raise ModelError(
            f"there is no {between} {against!r} to compare with: there are "
            f"{', '.join(map(str, known))}"
        )
    if table.duplicated([*over, between]).any():
        raise ModelError(
            f"several rows have the same {between} and {', '.join(over)}: choose one observable "
            "first"
        )
    wide = table.pivot(index=over, columns=between, values=value).astype(float)
    base = wide[against]
    others = wide.drop(columns=against)
    # 1. Keep complete pairs.
    paired = others.notna() & base.notna().to_numpy()[:, None]
    own = others.where(paired)
    pairs = paired.sum()
    # 2. The difference of infinite log scores is undefined, and so is then the mean difference.
    less = own.sub(base, axis=0)
    known = less.count() == pairs
    with np.errstate(invalid="ignore"):
        found = {
            "median": own.median(),
            "difference": less.mean().where(known),
            "error": less.sem().where(known),
            "better": own.lt(base, axis=0).sum(),
            "pairs": pairs,
        }
    return pd.DataFrame(found).rename_axis(between)


def medians(
    table: pd.DataFrame,
    values: str | Iterable[str],
    *,
    by: str | Iterable[str],
    across: str | None = None,
) -> pd.DataFrame:
    """Return medians over groups of rows, with their range, as text for reading.

    Args:
        table: a table such as that of `tidy`.
        values: the numeric column to summarise, or several.
        by: the column or columns that define the groups of rows, such as "model". Each combination
            of their values is a line of the result.
        across: a further grouping column, whose values become the columns of the result.

    Returns:
        A table with cells such as "1.24 (1.19 to 1.31)": the median, and the lowest and highest
        value. A cell has the median alone if lowest and highest are equal to three digits. It is
        empty if no row has a number. Rows without a value in `by` or `across` are kept.

    Raises:
        ModelError: if a column is missing, named twice or not numeric, or if no columns are given.
    """
    lines, shown = ([names] if isinstance(names, str) else [*names] for names in (by, values))
    kept = lines if across is None else [*lines, across]
    if missing := [name for name in (*kept, *shown) if name not in table]:
        raise ModelError(
            f"there is no column {', '.join(missing)}: there are {', '.join(map(str, table))}"
        )
    if not lines or not shown or len({*kept, *shown}) < len(kept) + len(shown):
        raise ModelError(
            f"values={shown}, by={lines} and across={across!r} must be columns, each named once"
        )
    if texts := [name for name in shown if not pd.api.types.is_numeric_dtype(table[name])]:
        raise ModelError(f"there are no medians of {', '.join(texts)}, which holds no numbers")
    found: Any = table.groupby(kept, dropna=False)[shown].agg(_with_ends)
    if across is None:
        return found
    return (found[values] if isinstance(values, str) else found).unstack(across, fill_value="")


def _with_ends(values: pd.Series) -> str:
    """Return median, lowest and highest value as text; an empty string if all are NaN."""
    middle, low, high = map(number, values.agg(["median", "min", "max"]))
    if values.isna().all():
        return ""
    return middle if low == high else f"{middle} ({low} to {high})"


def _derived_quantiles(found: xr.Dataset) -> dict[str, dict[str, Any]]:
    """Return `low`, `median` and `high` of derived quantities by name, to eight digits."""
    levels = [*_QUANTILES.values()]
    quantiles = {}
    for name, values in found.data_vars.items():
        ends = values.quantile(levels, ("chain", "draw")).values
        rounded = (_rounded(end, 8) for end in ends)
        quantiles[str(name)] = dict(zip(_QUANTILES, rounded, strict=True))
    return quantiles


def _rounded(value: Any, digits: int = 6) -> Any:
    """Round a number, or an array as nested lists, to significant digits."""
    return np.vectorize(lambda x: float(f"{x:.{digits}g}"), otypes=[float])(value).tolist()


def _forget_peak() -> None:
    """Reset the peak memory that Linux records, which would include earlier tasks of the worker."""
    if sys.platform == "linux":
        # Some containers do not allow it.
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """Return the peak memory of the process in MB; NaN where the system does not record it."""
    # `getrusage` would include the memory before the process became Python.
    if sys.platform == "linux":
        with contextlib.suppress(OSError, ValueError):
            lines = Path("/proc/self/status").read_text().splitlines()
            status = dict(line.split(":", 1) for line in lines)
            if "VmHWM" in status:
                return int(status["VmHWM"].split()[0]) / 2**10
    # Windows has no module `resource`.
    try:
        import resource
    except ImportError:
        return np.nan
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
