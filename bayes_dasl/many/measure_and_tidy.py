"""One row of a comparison: how well a model forecast, and what that cost."""

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
_QUANTILES = {"low": 0.05, "median": 0.5, "high": 0.95}
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
    """Fit a model, forecast what it has not seen, and say in one row how good that was: what a task
    of many returns.

    Args:
        model: the model.
        train: what it is fitted to.
        ahead: data that it is to forecast, by name, such as `{"near": …, "far": …}`: with
            observations, and with the forcings that the model reads. A pair of another model and
            data is forecast by that one with the same posterior (`what_if` of `bd.forecast`), as
            for another known number or another start.
        engine: what fits it, `NUTS()` unless given.
        derived: a function of the model, as for `bd.evaluate`, whose numbers are told by their
            median and the ends of their 90 % interval.
        each: a dimension of the data ahead, such as that of the members: what lies at each of its
            coordinates is scored by itself too, as data ahead of the name "NAME, COORDINATE".
        key: a whole number, for fit and forecasts.

    Returns:
        `scores` by name of the data and observable, of `bd.score`; `derived` by name; `verdict`,
        the levels of sampling and model, without the data ahead; `failed_draws`, the most that were
        left out of a forecast since a solve failed; seconds of `fit_s` and `forecast_s`, and
        `memory_mb`, the most that the process had at a time meanwhile, with what was there before
        (elsewhere than on Linux the most since it began).

    Raises:
        ModelError: if data ahead have no dimension `each`; Interrupted where Ctrl-C ended the fit;
            as `bd.fit` and `bd.forecast`.
    """
    if not isinstance(ahead, Mapping):
        raise ModelError(
            f"ahead is a dict of datasets by name, such as {{'ahead': test}}, not "
            f"{type(ahead).__name__}"
        )
    for name, asked in ahead.items() if each else ():
        if each not in (dims := (asked[1] if isinstance(asked, tuple) else asked).dims):
            raise ModelError(
                f"each='{each}' is no dimension of '{name}', which has {', '.join(map(str, dims))}"
            )
    _forget_peak()
    began = time.perf_counter()
    post = fit(model, train, engine or NUTS(), key=key, progress=False)
    fitted = time.perf_counter()
    if post.attrs["interrupted"]:
        raise Interrupted("the fit was stopped, so nothing is measured")
    scores, lost, spent = {}, 0, 0.0
    for name, asked in ahead.items():
        other, data = asked if isinstance(asked, tuple) else (model, asked)
        began_ahead = time.perf_counter()
        fc = forecast(other, post, data, what_if=other is not model, key=key)
        spent += time.perf_counter() - began_ahead
        parts = {name: (fc, data)}
        for place in () if each is None else data[each].values.tolist():
            parts[f"{name}, {place}"] = fc.sel({each: [place]}), data.sel({each: [place]})
        for part, held in parts.items():
            table = score(*held)
            lost = max(lost, int(table.attrs["failed_draws"]))
            table = table.drop(index="all", errors="ignore")
            scores[part] = {
                str(of): {s: _plain(table.loc[of, s]) for s in _SCORES} for of in table.index
            }
    found = diagnose(post)
    row = {
        "scores": scores,
        "verdict": {"sampling": found.sampling, "model": found.model},
        "failed_draws": lost,
        "fit_s": round(fitted - began, 2),
        "forecast_s": round(spent, 2),
        "memory_mb": round(_peak(), 1),
    }
    return row if derived is None else row | {"derived": _told(evaluate(model, post, derived))}


def tidy(
    rows: pd.DataFrame | Iterable[Mapping[str, Any]], of: Literal["scores", "derived"] = "scores"
) -> pd.DataFrame:
    """What `measure` found in many tasks as a long table: a line for each score of data ahead, or
    each derived number.

    Args:
        rows: what `run_many` returned; those of tasks that failed, or that have nothing of it, are
            left out.
        of: what is wanted of each row. Of "scores" a line is one task, data ahead and observable;
            of "derived" one task and derived number.

    Returns:
        The arguments of the task that are numbers or texts, `fit_s`, `forecast_s` and `memory_mb`;
        beside them `ahead`, `observable` and each score, or `quantity` and its `low`, `median` and
        `high`, of an array a line for each element, such as "eddy[3]".

    Raises:
        ModelError: for tasks with an argument of the name of such a column.
    """
    table = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame([*rows])
    if clash := _COLUMNS[of] & {*table.columns}:
        raise ModelError(
            f"the argument '{min(clash)}' of the tasks is called as a column of {of}: rename it"
        )
    lines = []
    for row in table.to_dict("records"):
        found = row.pop(of, None)
        if not isinstance(found, Mapping):
            continue
        kept = {
            name: value for name, value in row.items() if not isinstance(value, (Mapping, list))
        }
        if of == "derived":
            lines += [kept | line for name, ends in found.items() for line in _elements(name, ends)]
        else:
            lines += [
                kept | {"ahead": ahead, "observable": name} | dict(each)
                for ahead, by_name in found.items()
                for name, each in by_name.items()
            ]
    plain = [
        name
        for name in table
        if not any(isinstance(value, (Mapping, list)) for value in table[name])
    ]
    found = pd.DataFrame(lines) if lines else pd.DataFrame(columns=[*plain, *sorted(_COLUMNS[of])])
    numbers = [name for name in (_SCORES if of == "scores" else _QUANTILES) if name in found]
    return found.astype(dict.fromkeys(numbers, float))  # a column of nothing but None is of objects


def _elements(name: str, ends: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each element of a derived number, which has an index if there are several."""
    arrays = {end: np.asarray(values, float) for end, values in ends.items()}
    places = [*np.ndindex(next(iter(arrays.values())).shape)]
    where = lambda place: f"[{', '.join(map(str, place))}]" if place else ""  # noqa: E731
    return [
        {"quantity": name + where(at)} | {end: float(a[at]) for end, a in arrays.items()}
        for at in places
    ]


def paired(
    table: pd.DataFrame,
    value: str,
    *,
    between: str,
    against: Any,
    over: str | Iterable[str] = ("seed",),
) -> pd.DataFrame:
    """How much better or worse each is than one of them, by the differences of what belongs
    together.

    Args:
        table: such as that of `tidy`.
        value: the column that is compared, such as "crps".
        between: the column that tells apart what is compared, such as "model".
        against: the value in it to which all others are compared.
        over: the column that says which rows belong together, such as seeds, or blocks of the data;
            or several.

    Returns:
        For each of the others the `median` of its value, the mean `difference`, its standard error
        (NaN of fewer than two; too small where pairs share data), and in how many of how many pairs
        it was `better`, which means less.

    Raises:
        ModelError: for a column that is missing, where nothing has the name `against`, or several
            rows belong to one place: choose one observable, and one of the data ahead, first.
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
    wide = table.pivot(index=over, columns=between, values=value)
    lines = {}
    for name in wide.columns:
        if name == against:
            continue
        own, other = wide[[name, against]].dropna().to_numpy(float).T
        with np.errstate(invalid="ignore"):  # of log scores that are infinite
            less = own - other
            lines[name] = {
                "median": float(np.median(own)) if own.size else np.nan,
                "difference": float(np.mean(less)) if less.size else np.nan,
                "error": float(np.std(less, ddof=1) / np.sqrt(less.size))
                if less.size > 1
                else np.nan,
                "better": int(np.sum(own < other)),
                "pairs": less.size,
            }
    columns = ["median", "difference", "error", "better", "pairs"]
    return pd.DataFrame.from_dict(lines, orient="index", columns=columns).rename_axis(between)


def medians(
    table: pd.DataFrame,
    values: str | Iterable[str],
    *,
    by: str | Iterable[str],
    across: str | None = None,
) -> pd.DataFrame:
    """The medians of columns over all rows that belong together, such as seeds, and how far these
    spread, to be read.

    Args:
        table: such as that of `tidy`.
        values: the column, of numbers, or several.
        by: the columns that say which rows belong together, such as "model": a line for each.
        across: another such column, whose values are the columns of what is returned.

    Returns:
        Texts, "1.24 (1.19 to 1.31)" with the lowest and the highest; the median alone where these
        are the same to three digits, nothing where there are no numbers. Nothing is left out for
        want of a value in `by` or `across`.

    Raises:
        ModelError: for a column that is missing, named twice or of no numbers, and for no columns
            at all.
    """
    lines, told = ([names] if isinstance(names, str) else [*names] for names in (by, values))
    kept = [*lines, *([] if across is None else [across])]
    if missing := [name for name in (*kept, *told) if name not in table]:
        raise ModelError(
            f"there is no column {', '.join(missing)}: there are {', '.join(map(str, table))}"
        )
    if not lines or not told or len({*kept, *told}) < len(kept) + len(told):
        raise ModelError(
            f"values={told}, by={lines} and across={across!r} must be columns, each named once"
        )
    if texts := [name for name in told if not pd.api.types.is_numeric_dtype(table[name])]:
        raise ModelError(f"there are no medians of {', '.join(texts)}, which holds no numbers")
    found: Any = table.groupby(kept, dropna=False)[told].agg(_with_ends)
    if across is None:
        return found
    return (found[values] if isinstance(values, str) else found).unstack(across, fill_value="")


def _with_ends(values: pd.Series) -> str:
    numbers = values.dropna()
    if numbers.empty:
        return ""
    middle, low, high = (number(of) for of in (numbers.median(), numbers.min(), numbers.max()))
    return middle if low == high else f"{middle} ({low} to {high})"


def _told(found: xr.Dataset) -> dict[str, dict[str, Any]]:
    told = {}
    for name, values in found.data_vars.items():
        ends = values.quantile([*_QUANTILES.values()], ("chain", "draw")).values
        told[str(name)] = {at: _plain(end, 8) for at, end in zip(_QUANTILES, ends, strict=True)}
    return told


def _plain(value: Any, digits: int = 6) -> Any:
    """A number, or each of an array, to so many digits."""
    return np.vectorize(lambda x: float(f"{x:.{digits}g}"), otypes=[float])(value).tolist()


def _forget_peak() -> None:
    """Let Linux count the most memory of the process from now on, which else is that of earlier
    tasks of a worker.
    """
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # a system that does not let it be set back
            Path("/proc/self/clear_refs").write_text("5")


def _peak() -> float:
    """The most memory that the process has had, in MB; NaN where the system does not tell."""
    if (
        sys.platform == "linux"
    ):  # where the other way counts what the process was before it became Python, too
        with contextlib.suppress(OSError, ValueError):
            told = dict(
                line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines()
            )
            if "VmHWM" in told:
                return int(told["VmHWM"].split()[0]) / 2**10
    try:
        import resource
    except ImportError:  # on Windows
        return np.nan
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 2**10
