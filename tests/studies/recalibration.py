"""How much the 90 % intervals of recalibrated forecasts hold, lead by lead, where the model's own
are wrong.

Run: `uv run python -m tests.studies.recalibration`; half an hour. What is done is kept, `--table`
prints it, and either writes it into docs/measurements/benchmarks.md.

Twenty series: an autoregression, a random walk, a damped oscillation and a line with noise, each
forecast ten times ahead by its true distribution, with half or twice the spread, with a bias, and
with a spread that is too wide at first and too narrow later. Each is drawn many times over. Beside
them rows in any order, whose noise is uneven.
"""

import time
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import DataError
from bayes_dasl.scores.held_out_errors import HELD_OUT, along_origins, held_out_errors

from . import ROOT
from .pages import table, write_section
from .provenance import fingerprint
from .rows import Row, age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs" / "measurements" / "benchmarks.md"
TASK = ("setting", "kind", "forecaster", "seed")
HORIZON, BEFORE, BURN = 10, 5, 200
LEADS = np.arange(1, HORIZON + 1)
DAMPED = 2 * 0.95 * np.cos(0.5), -(0.95**2)
KINDS = {
    "autoregression": (0.8, 0.0),
    "random walk": (1.0, 0.0),
    "damped oscillation": DAMPED,
    "line with noise": (0.0, 0.0),
}
ROWS = "rows"
FORECASTERS = {
    "right": (0.0, np.ones(HORIZON)),
    "half the spread": (0.0, np.full(HORIZON, 0.5)),
    "twice the spread": (0.0, np.full(HORIZON, 2.0)),
    "biased": (1.0, np.ones(HORIZON)),
    "spread wrong with lead": (0.0, np.linspace(1.6, 0.4, HORIZON)),
}
"""A shift, in standard deviations of one step, and a factor of the spread at each lead."""
SERIES = {  # origins, steps between them, growth of the noise, how often a series is drawn, draws, and what is asked
    "conformal, 20 origins side by side": (20, HORIZON, 1.0, 200, 1000, {}),
    "conformal, 60 origins side by side": (60, HORIZON, 1.0, 50, 1000, {}),
    "conformal, 20 origins, one each 3 steps": (20, 3, 1.0, 100, 1000, {}),
    "conformal, 20 origins, one each step": (20, 1, 1.0, 100, 1000, {}),
    "conformal, 60 origins, one each step": (60, 1, 1.0, 50, 1000, {}),
    "isotonic, 20 origins side by side": (20, HORIZON, 1.0, 25, 4000, {"method": "isotonic"}),
    "conformal, 40 origins side by side, noise grows threefold": (40, HORIZON, 3.0, 50, 1000, {}),
    "the same with a half-life of 5 origins": (40, HORIZON, 3.0, 50, 1000, {"half_life": 5.0}),
}
OF_ROWS = {  # rows held out, and what is asked
    "conformal, 19 rows": (19, {}),
    "conformal, 60 rows": (60, {}),
    "isotonic, 60 rows": (60, {"method": "isotonic"}),
}
PATHS, NEW, DRAWS = 200, 20, 1000


class Series:
    """Paths of a second-order autoregression, `(path, time)`, whose forecasts are known in closed
    form.
    """

    def __init__(self, kind: str, paths: int, length: int, growth: float, rng: np.random.Generator):
        self.coefficients, self.slope = KINDS[kind], 0.1 if kind == "line with noise" else 0.0
        scale = np.concatenate([np.ones(BURN), np.geomspace(1.0, growth, length)])
        noise = rng.normal(size=(paths, BURN + length)) * scale
        values = np.zeros_like(noise)
        for t in range(2, BURN + length):
            values[:, t] = noise[:, t] + sum(
                c * values[:, t - 1 - i] for i, c in enumerate(self.coefficients)
            )
        self.values = values[:, BURN:] + self.slope * np.arange(length)

    def forecast(self, origin: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean `(lead, path)` and standard deviation `(lead,)` of what follows the row `origin`,
        for noise of one.
        """
        (one, two), line = (
            self.coefficients,
            self.slope * np.arange(origin - 1, origin + HORIZON + 1),
        )
        means = [self.values[:, origin - 1 + i] - line[i] for i in (0, 1)]
        weights = [0.0, 1.0]
        for _ in LEADS:
            means.append(one * means[-1] + two * means[-2])
            weights.append(one * weights[-1] + two * weights[-2])
        return np.stack(means[2:]) + line[2:, None], np.sqrt(np.cumsum(np.square(weights[1:-1])))


def run(setting: str, kind: str, forecaster: str, seed: int) -> Row:
    began, rng = (
        time.perf_counter(),
        np.random.default_rng([seed, *map(ord, setting + kind + forecaster)]),
    )
    of_kind = of_rows if kind == ROWS else of_series
    fc, past, came, asked = of_kind(setting, kind, forecaster, rng)
    names = [str(name) for name in fc["predictions"].data_vars]
    new = recalibrated(fc, past, asked)
    own = {name: fc["predictions"][name].values[0] for name in names if name in new}
    at = [names.index(name) for name in new]
    found: dict[str, Any] = {"refused": len(names) - len(new), "paths": len(new)}
    if new:
        each = {"model": np.stack([*own.values()], -1), "held": np.stack([*new.values()], -1)}
        ends = {name: np.quantile(draws, (0.05, 0.95), axis=0) for name, draws in each.items()}
        for name, (low, high) in ends.items():
            inside = ((low <= came[:, at]) & (came[:, at] <= high)).mean(axis=1)
            found[name] = np.atleast_1d(inside.mean() if kind == ROWS else inside).round(4).tolist()
        widths = {name: (high - low).mean(axis=1) for name, (low, high) in ends.items()}
        found["width_ratio"] = (
            (widths["held"] / widths["model"]).round(3).tolist()[: len(found["held"])]
        )
    task = {"setting": setting, "kind": kind, "forecaster": forecaster, "seed": seed}
    return task | found | {"seconds": round(time.perf_counter() - began, 1)}


def of_series(
    setting: str, kind: str, forecaster: str, rng: np.random.Generator
) -> tuple[Any, ...]:
    """A forecast of many paths, each an observable, errors of the past, what came `(lead, path)`,
    and what is asked.
    """
    origins, apart, growth, paths, draws, asked = SERIES[setting]
    length = BEFORE + apart * (origins - 1) + 2 * HORIZON
    series, (shift, factor) = Series(kind, paths, length, growth, rng), FORECASTERS[forecaster]
    last = length - HORIZON - 1

    def drawn(origin: int) -> np.ndarray:
        mean, sd = series.forecast(origin)
        return mean + shift + (sd * factor)[:, None] * rng.normal(size=(draws, *mean.shape))

    past = rolling_origins(
        series.values, drawn, [last - HORIZON - apart * i for i in range(origins)][::-1]
    )
    fc = by_path(drawn(last), "time", last + LEADS * 1.0)
    fc.attrs["train_end"] = float(last)
    return fc, past, series.values[:, last + 1 :].T, asked


def of_rows(setting: str, _: str, forecaster: str, rng: np.random.Generator) -> tuple[Any, ...]:
    """The same of rows, of which some were held out; "wrong with lead" is an even spread where
    noise is not even.
    """
    number, asked = OF_ROWS[setting]
    shift, factor = FORECASTERS[forecaster]
    mean, sd = (
        rng.normal(size=(number + NEW, PATHS)),
        np.exp(0.5 * rng.normal(size=(number + NEW, PATHS))),
    )
    came = mean + sd * rng.normal(size=mean.shape)
    spread = np.ones_like(sd) if np.ptp(factor) else factor[0] * sd
    draws = mean + shift + spread * rng.normal(size=(DRAWS, *mean.shape))
    old = by_path(draws[:, :number], "depth", np.arange(number) * 1.0)
    data = xr.Dataset(
        {str(i): ("depth", y) for i, y in enumerate(came[:number].T)},
        {"depth": np.arange(number) * 1.0},
    )
    return (
        by_path(draws[:, number:], "depth", np.arange(NEW) * 1.0),
        (old, data),
        came[number:],
        asked,
    )


def by_path(draws: np.ndarray, index: str, at: np.ndarray) -> xr.DataTree:
    """Draws `(draw, row, path)` as a forecast of which each path is an observable."""
    of_each = {
        str(i): (("chain", "draw", index), draws[None, :, :, i]) for i in range(draws.shape[2])
    }
    return xr.DataTree.from_dict({"predictions": xr.Dataset(of_each, {index: at})})


def rolling_origins(
    values: np.ndarray, drawn: Callable[[int], np.ndarray], origins: list[int]
) -> xr.DataTree:
    """What `leave_future_out` would keep of forecasts of paths `(path, time)`."""
    index = {"time": np.arange(values.shape[1]) * 1.0, "path": np.arange(len(values))}
    data, names, found = (
        xr.Dataset({"y": (("time", "path"), values.T)}, index),
        list(map(str, index["path"])),
        [],
    )
    for origin in origins:
        times = origin + LEADS * 1.0
        draws = xr.Dataset(
            {"y": (("chain", "draw", "time", "path"), drawn(origin)[None])}, index | {"time": times}
        )
        errors = held_out_errors(xr.DataTree.from_dict({"predictions": draws}), data, times)
        errors = (
            errors.drop_vars(["observable", "censored"])
            .isel(observable=0, member=0)
            .rename(value="observable")
        )
        errors = errors.expand_dims(("member", "value")).assign_coords(observable=names)
        found.append(
            errors.assign(censored=(("observable", "lead"), np.zeros((len(names), HORIZON), int)))
        )
    times = ("origin", "lead"), np.add.outer(np.asarray(origins), LEADS) * 1.0
    root = xr.Dataset(
        coords={"origin": np.asarray(origins) * 1.0, "observable": names, "time": times}
    )
    return xr.DataTree.from_dict({"/": root, HELD_OUT: along_origins(found)})


def recalibrated(fc: xr.DataTree, past: Any, asked: dict[str, Any]) -> dict[str, np.ndarray]:
    """New draws `(draw, row)` of each path that is not refused."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".* are alike where windows overlap")
        try:
            trees = [bd.recalibration.recalibrate(fc, past, **asked)]
        except DataError:
            trees = list(_one_by_one(fc, past, asked))
    return {str(n): v.values[0] for tree in trees for n, v in tree["predictions"].data_vars.items()}


def _one_by_one(fc: xr.DataTree, past: Any, asked: dict[str, Any]) -> Iterator[xr.DataTree]:
    for name in fc["predictions"].data_vars:
        alone = xr.DataTree.from_dict({"predictions": fc["predictions"].to_dataset()[[name]]})
        alone.attrs = fc.attrs
        of_it = past
        if isinstance(past, tuple):
            of_it = (
                xr.DataTree.from_dict({"predictions": past[0]["predictions"].to_dataset()[[name]]}),
                past[1],
            )
        try:
            yield bd.recalibration.recalibrate(alone, of_it, **asked)
        except DataError:
            continue


def tasks(seed: int) -> list[tuple[str, str, str, int]]:
    each = [
        (setting, kind, forecaster, seed)
        for setting in SERIES
        for kind in KINDS
        for forecaster in FORECASTERS
    ]
    return each + [
        (setting, ROWS, forecaster, seed) for setting in OF_ROWS for forecaster in FORECASTERS
    ]


@cache
def _code() -> str:
    return fingerprint(bd.recalibration.recalibrate)


def code_of(*_: object) -> str:
    return _code()


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    of_series, of_rows = (
        [row for row in rows if (row["kind"] == ROWS) == which] for which in (False, True)
    )
    text = (
        f"{_of_settings(of_series)}\n\nOf the first line, by how the series were forecast:\n\n"
        f"{_of_forecasters(of_series)}\n\nRows in any "
        f"order:\n\n{_of_rows(of_rows)}\n\n{age(rows, TASK, code_of)}"
    )
    write_section(PAGE, "recalibration", text)
    return text


def _mean(rows: list[Row], what: str) -> np.ndarray:
    """The mean over series, each counted by how many of its paths were not refused, by lead."""
    told = [row for row in rows if row["paths"]]
    return np.average([row[what] for row in told], axis=0, weights=[row["paths"] for row in told])


def _shares(values: np.ndarray) -> str:
    low, high = f"{values.min():.1%}", f"{values.max():.1%}"
    return low if low == high else f"{low} to {high}"


def _of_settings(rows: list[Row]) -> str:
    lines: list[list[object]] = [
        ["recalibrated", "series", "draws of each", "refused", "held by the model's own", "one time ahead", "two",
         "five", "ten", "lowest and highest lead", "width, of the model's"]
    ]  # fmt: skip
    for setting in SERIES:
        here = [row for row in rows if row["setting"] == setting]
        if any(row["paths"] for row in here):
            mean, paths = _mean(here, "held"), [row["paths"] + row["refused"] for row in here]
            refused = sum(row["refused"] for row in here) / sum(paths)
            leads = [f"{mean[lead - 1]:.1%}" for lead in (1, 2, 5, 10)]
            own, width = (
                _shares(_mean(here, "model")),
                f"{float(_mean(here, 'width_ratio').mean()):.2f}",
            )
            lines.append(
                [
                    setting,
                    len(here),
                    max(paths),
                    f"{refused:.0%}",
                    own,
                    *leads,
                    _shares(mean),
                    width,
                ]
            )
    return table(lines)


def _of_forecasters(rows: list[Row]) -> str:
    lines: list[list[object]] = [["forecaster", *KINDS]]
    for forecaster in FORECASTERS:
        cells = []
        for kind in KINDS:
            here = [row for row in rows if (row["kind"], row["forecaster"]) == (kind, forecaster)]
            here = [row for row in here if row["setting"] == next(iter(SERIES))]
            cells.append(
                f"{_shares(_mean(here, 'model'))} → {_shares(_mean(here, 'held'))}" if here else "–"
            )
        lines.append([forecaster, *cells])
    return table(lines)


def _of_rows(rows: list[Row]) -> str:
    lines: list[list[object]] = [
        ["recalibrated", "forecaster", "refused", "held by the model's own", "held", "width"]
    ]
    for row in rows:
        named = (
            "even spread, uneven noise"
            if row["forecaster"] == "spread wrong with lead"
            else row["forecaster"]
        )
        refused = f"{row['refused'] / (row['refused'] + row['paths']):.0%}"
        cells = (
            [f"{row[what][0]:.1%}" for what in ("model", "held")] if row["paths"] else ["–", "–"]
        )
        width = f"{row['width_ratio'][0]:.2f}" if row["paths"] else "–"
        lines.append([row["setting"], named, refused, *cells, width])
    return table(lines)


if __name__ == "__main__":
    go_on(__doc__ or "", RESULTS, range(1), TASK, tasks, run, code_of, tables)
