"""Data that are wrong, or only look so."""

from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import xarray as xr

import bayes_dasl as bd

from .given import TIMES, Decay, closed, data, fit, later, model, posterior, rate

REPLICATES = (0.0, 1.0, 1.0, 2.0, 2.0, 3.0)


def _replicates_count_as_data() -> bool:
    """A row that is there twice weighs twice as much."""
    from bayes_dasl.inference import pose

    once, twice = data([0.0, 1.0, 2.0]), data([0.0, 1.0, 1.0, 2.0])
    problems = [pose(closed(), given) for given in (once, twice, data([1.0]))]
    base, more, alone = (float(p.terms(np.zeros(1)).data) for p in problems)
    return bool(np.isclose(more, base + alone))


def _replicates_are_scored_row_by_row() -> bool:
    held = data(REPLICATES)
    fc = bd.forecast(closed(), posterior(closed(), held), held)
    return int(bd.score(fc, held).loc["y", "n"]) == 6


def _replicates_are_reported() -> bool:
    held = data((4.0, 4.0, 5.0))
    post = posterior(closed(), data(REPLICATES))
    fc = bd.forecast(closed(), post, xr.concat([data(REPLICATES), held], "time"))
    return "3 held-out values" in bd.report(post, fc, held).html


def _a_gap_is_no_fault() -> bool:
    from bayes_dasl.inference import pose

    y = data()["y"].values.copy()
    y[2] = np.nan
    return pose(closed(), data(y=y)).data == 5


def _dates_do_where_numbers_do() -> bool:
    """A correction is as large of a dataset with dates."""
    days = np.datetime64("2020-01-01", "ns") + np.arange(6) * np.timedelta64(1, "D")
    units = [
        bd.corrected(Decay(0.4), given, "y").closure.units
        for given in (data(), data().assign_coords(time=days))
    ]
    return units[0] == units[1]


def _table(text: str, value: str = "dv", **options: Any) -> xr.Dataset:
    """A file with lines, read by `from_table`."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "table.csv"
        path.write_text(text, encoding="utf-8")
        return bd.from_table(path, value, **options)


def _hours_of_a_day_with_two_offsets() -> bool:
    found = _table("time,dv\n2020-03-29T01:30+01:00,1\n2020-03-29T03:30+02:00,2\n")
    return bool(np.diff(found["time"].values)[0] == np.timedelta64(1, "h"))


def _months_of_a_frame() -> bool:
    frame = pd.DataFrame(
        {"time": pd.period_range("2020-01", periods=3, freq="M"), "dv": [1.0, 2.0, 3.0]}
    )
    return bool(bd.from_table(frame, "dv")["time"].values[1] == np.datetime64("2020-02-01"))


def _units_called_as_their_column() -> bool:
    found = _table("cycle,dv\n1,2\n2,3\n", time="cycle", units={"cycle": "cycle"})
    return found["time"].attrs["units"] == "cycle"


def _words_become_names() -> bool:
    text = "id,time,dv,ApgarInd\n1,0,1,>= 5\n2,0,2,< 5\n"
    found = _table(text, subject="id", covariates="ApgarInd")
    return all(str(name).isidentifier() for name in found) and "ApgarInd_ge_5" in found


def _doses(text: str, **options: Any) -> Any:
    return bd.dosing.doses(pd.read_csv(StringIO(text)), "gut", **options)


def _names_and_absent_units_of_doses() -> bool:
    """One dict of names and one of units serve data and doses."""
    names = {"clock": "time", "given": "amt"}
    given = _doses("clock,given\n0,5\n1,5\n", names=names, units={"weight": "kg", "conc": "mg/L"})
    return repr(given) == "<doses of one subject into gut, from time 0 on>"


TABLES = {
    "dates with the day first": lambda: _table("time,dv\n04.01.2015,1\n13.01.2015,2\n"),
    "dates with day or month first": lambda: _table("time,dv\n04/01/2015,1\n05/01/2015,2\n"),
    "dates as whole numbers": lambda: _table("time,dv\n20200130,1\n20200131,2\n20200201,3\n"),
    "months as whole numbers": lambda: _table("time,dv\n202012,1\n202101,2\n"),
    "a date that is not in the format": lambda: _table(
        "time,dv\n04.01.2015,1\n32.01.2015,2\n", date_format="%d.%m.%Y"
    ),
    "an offset from UTC in one row": lambda: _table(
        "time,dv\n2020-01-01T00:00Z,1\n2020-01-02T00:00,2\n"
    ),
    "offsets before and after a change of clocks": _hours_of_a_day_with_two_offsets,
    "months of pandas": _months_of_a_frame,
    "subjects 01 and 1": lambda: _table("id,time,dv\n01,0,1\n01,1,2\n1,0,3\n", subject="id"),
    "a comma of thousands or of decimals": lambda: _table('time,dv\n0,"1,500"\n1,"2,250"\n'),
    "a word of a covariate that is no name": _words_become_names,
    "names and units of doses that their table lacks": _names_and_absent_units_of_doses,
    "doses at dates": lambda: _doses("time,amt\n2004-02-29,1\n"),
    "a missing value that is not said to be one": lambda: bd.check(
        closed(), data(y=[2.0, -9999, 1, 1, 0.5, 0.3])
    ),
    "text for a missing value": lambda: _table("time,dv\n0,1\n1,n.d.\n"),
    "a missing value as a number": lambda: bool(
        np.isnan(_table("time,dv,u\n0,-9999,1\n1,2,1\n", forcings="u", missing=-9999)["dv"][0])
    ),
    "units called as their column": _units_called_as_their_column,
}

CASES = TABLES | {
    "times that fall": lambda: fit(to=data().isel(time=[0, 2, 1, 3])),
    "times at random": lambda: fit(to=data([3.0, 1.0, 2.0, 0.0, 5.0, 4.0])),
    "a time that is NaN": lambda: fit(to=data([0, 1, np.nan, 3, 4, 5])),
    "a time that is infinite": lambda: fit(to=data([0, 1, 2, 3, 4, np.inf])),
    "times that are dates": lambda: fit(to=data(np.datetime64("2020-01-01", "ns") + np.arange(6))),
    "times that are spans": lambda: fit(to=data(np.arange(6).astype("timedelta64[ns]"))),
    "times that are text": lambda: fit(to=data([f"day {i}" for i in range(6)])),
    "times that are complex": lambda: fit(to=data(np.arange(6) + 0j)),
    "times that are true or false": lambda: fit(to=data([False, True])),
    "no coordinate at all": lambda: fit(to=data().drop_vars("time")),
    "the coordinate under another name": lambda: fit(to=data().rename(time="hour")),
    "the time as a variable": lambda: fit(to=data().rename(time="row").assign(time=("row", TIMES))),
    "no rows": lambda: fit(to=data().isel(time=[])),
    "an empty dataset": lambda: fit(to=xr.Dataset()),
    "a data array": lambda: fit(to=data()["y"]),
    "a data frame": lambda: fit(to=pd.DataFrame({"time": TIMES, "y": TIMES})),
    "a dict of lists": lambda: fit(to={"time": [0, 1], "y": [1, 2]}),
    "None for data": lambda: bd.fit(model(), None),
    "a path for data": lambda: fit(to="data.nc"),
    "two dimensions where one is wanted": lambda: fit(to=data()[["y"]].expand_dims(site=2)),
    "a number that has no dimension": lambda: fit(to=data().assign(y=1.0)),
    "an observable along another coordinate": lambda: fit(to=data().assign(y=("site", np.ones(3)))),
    "an observable under another name": lambda: fit(to=data().rename(y="Y")),
    "an observable that is all missing": lambda: fit(to=data(y=np.full(6, np.nan))),
    "a datum that is infinite": lambda: fit(to=data(y=[1, 2, np.inf, 4, 5, 6])),
    "a fill value that was not decoded": lambda: fit(to=data(y=[1, 2, 1e20, 4, 5, 6])),
    "a fill value in a forcing": lambda: fit(
        model(forcings=("u",)), data(u=[1, 1, 1, 9.96921e36, 1, 1])
    ),
    "counts in units of their own": lambda: fit(
        model(noise=bd.PoissonNoise()), data(y=1e15 * np.array([20.0, 14, 9, 6, 4, 3]))
    ),
    "data far from all predictions": lambda: fit(closed(), data(y=2e15 * np.exp(-0.4 * TIMES))),
    "times that are periods": lambda: fit(
        to=data().assign_coords(time=pd.period_range("2020-01", periods=6, freq="M"))
    ),
    "times of a zone": lambda: fit(
        to=data().assign_coords(time=pd.date_range("2020-01-01", periods=6, tz="Asia/Tokyo"))
    ),
    "a correction over dates": _dates_do_where_numbers_do,
    "an observable that is text": lambda: fit(to=data(y=list("abcdef"))),
    "an observable that is objects": lambda: fit(
        to=data(y=np.array([1, 2, None, 4, 5, 6], object))
    ),
    "an observable that is true or false": lambda: fit(to=data(y=[True] * 6)),
    "an observable that is complex": lambda: fit(to=data(y=np.ones(6) + 1j)),
    "a gap in an observable": _a_gap_is_no_fault,
    "zero under log-normal noise": lambda: fit(
        model(noise=bd.LogNormalNoise(0.1)), data(y=[1.0, 2, 3, 0, 5, 6])
    ),
    "negative under log-normal noise": lambda: fit(
        model(noise=bd.LogNormalNoise(0.1)), data(y=[1, 2, 3, 4, -5, 6])
    ),
    "broken counts": lambda: fit(model(noise=bd.PoissonNoise()), data(y=[1, 2, 2.5, 3, 4, 5])),
    "negative counts": lambda: fit(model(noise=bd.PoissonNoise()), data(y=[1, 2, -1, 3, 4, 5])),
    "negative counts, over-dispersed": lambda: fit(
        model(noise=bd.NegativeBinomialNoise(1.0)), data(y=[1, 2, -1, 3, 4, 5])
    ),
    "data of another unit": lambda: fit(model(units={"y": "mol/L"})),
    "a unit of another dimension": lambda: fit(model(units={"y": "mg/s"})),
    "a unit with another case": lambda: bool(
        np.allclose(model(units={"y": "Mg/L"}).in_own_units(data())["y"], 1e-9 * data()["y"])
    ),
    "a unit that is no text": lambda: fit(
        model(units={"y": "mg/L"}), data().assign(y=data()["y"].assign_attrs(units=3))
    ),
    "data in thousandths": lambda: bd.check(closed(), data(y=2e3 * np.exp(-0.4 * TIMES))),
    "a forcing that is not in the data": lambda: fit(model(forcings=("rain",))),
    "a gap in a forcing": lambda: fit(model(forcings=("u",)), data(u=[1, 1, np.nan, 1, 1, 1])),
    "a forcing that is infinite": lambda: fit(
        model(forcings=("u",)), data(u=[1, 1, 1, np.inf, 1, 1])
    ),
    "a forcing that ends early": lambda: fit(
        model(forcings=("u",)), data(u=[1, 1, 1, 1, np.nan, np.nan])
    ),
    "a forcing that is text": lambda: fit(model(forcings=("u",)), data(u=list("abcdef"))),
    "a forcing over places": lambda: fit(
        model(forcings=("u",)), data().assign(u=("site", np.ones(3)))
    ),
    "a forcing that begins after the start": lambda: bd.check(
        model(forcings=("u",), start=-5.0), data()
    ),
    "the data before the start": lambda: fit(model(start=1.0)),
    "replicates": _replicates_count_as_data,
    "scores of replicates": _replicates_are_scored_row_by_row,
    "a report of replicates": _replicates_are_reported,
    "replicates under two forcings": lambda: fit(
        model(forcings=("u",)), data(REPLICATES, u=[1, 1, 2, 1, 1, 1])
    ),
    "replicates of a chain of rows": lambda: fit(
        model(of=bd.filtering.Kalman, diffusion={"y": 0.1}, initial_sd={}), data(REPLICATES)
    ),
    "a single row": lambda: bd.check(closed(), data([1.0])).level == "good",
    "places that fall": lambda: fit(
        model(of=bd.pde.PDE, field=_field(), initial={"y": 1.0}),
        xr.Dataset(
            {"y": (("time", "x"), np.ones((3, 3)))}, {"time": TIMES[:3], "x": [0.2, 0.1, 0.3]}
        ),
    ),
    "places outside the grid": lambda: fit(
        model(of=bd.pde.PDE, field=_field(), initial={"y": 1.0}),
        xr.Dataset(
            {"y": (("time", "x"), np.ones((3, 3)))}, {"time": TIMES[:3], "x": [0.2, 0.5, 3.0]}
        ),
    ),
    "a split at no place": lambda: bd.split(data()),
    "a split before all data": lambda: bd.split(data(), time=-1.0),
    "a split after all data": lambda: bd.split(data(), time=5.0),
    "a split at NaN": lambda: bd.split(data(), time=np.nan),
    "a split at a text": lambda: bd.split(data(), time="noon"),
    "a split along what is not there": lambda: bd.split(data(), depth=3.0),
    "standardise what is not there": lambda: bd.standardise(data(), "rain"),
    "standardise text": lambda: bd.standardise(data(u=list("abcdef")), "u"),
    "inputs of a forcing that is not there": lambda: bd.inputs(data(), forcings=["rain"]),
    "inputs by one name": lambda: list(bd.inputs(data(), forcings="u").forcings) == ["u"],
    "inputs by an unknown interpolation": lambda: bd.inputs(data(), interpolation={"u": "quintic"}),
    "inputs that start after the data": lambda: bd.inputs(data(), start=3.0),
    "segments from a variable that is not there": lambda: bd.equations.segment_states(
        data(), ("z",), (1.0, 2.0), 1.0
    ),
    "segments after the data": lambda: bd.equations.segment_states(data(), ("y",), (1.0, 9.0), 1.0),
    "an update at a time before the start": lambda: bd.update(
        model(), posterior(model()), data([-3.0, -2.0])
    ),
    "an update with nothing new": lambda: bd.update(
        model(), posterior(model()), later().assign(y=np.nan * later()["y"])
    ),
    "a prior that cannot have made the data": lambda: bd.check(
        closed(dist.LogNormal(5.0, 0.1)), data()
    ),
    "noise so wide that predictions overflow": lambda: bd.check(
        closed(noise=bd.LogNormalNoise(5000.0)), data()
    ),
    "data of two models": lambda: fit(
        bd.Model(bd.ODE(Decay(rate()), {"z": 1.0}), bd.NormalNoise(0.1))
    ),
}


def _field():
    grid = bd.pde.Grid(x=(0.0, 1.0, 8))
    return bd.pde.FiniteVolume(grid, diffusion=rate(), boundary={"x": bd.pde.Neumann(0.0)})
