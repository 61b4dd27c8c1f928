"""Verbs after a fit, given what they cannot use: forecasts, scores, verdicts, reports, files,
studies, keys.
"""

import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl._findings import Diagnosis
from bayes_dasl._jax.keys import as_key

from .given import (
    TIMES,
    Decay,
    closed,
    data,
    fit,
    fitted,
    forecast,
    later,
    model,
    posterior,
    rate,
    spoilt,
)


def _file(name: str, content: bytes) -> Path:
    path = Path(tempfile.mkdtemp()) / name
    path.write_bytes(content)
    return path


def _torn() -> Path:
    path = bd.save(fitted(), Path(tempfile.mkdtemp()) / "post.nc")
    path.write_bytes(path.read_bytes()[:1000])
    return path


def _keys_differ(*keys: Any) -> bool:
    return len(
        {tuple(np.asarray(jax.random.key_data(as_key(key))).tolist()) for key in keys}
    ) == len(keys)


def _scores_say_what_they_leave_out() -> bool:
    return "left out: 20 draws that are not finite" in str(
        bd.score(spoilt("predictions", slice(0, 10)), data())
    )


def _a_report_says_what_it_leaves_out() -> bool:
    return (
        "20 of 100 draws failed in the solver or are not finite"
        in bd.report(fitted(), spoilt("predictions", slice(0, 10)), data()).html
    )


def _one_time_is_scored() -> bool:
    fc = bd.forecast(closed(), fitted(), np.array([7.0]))
    return int(bd.score(fc, data([7.0])).loc["y", "n"]) == 1


def _about(subject: str, verdict: Diagnosis) -> Diagnosis:
    """Of a verdict the findings on one subject."""
    return Diagnosis(tuple(finding for finding in verdict.findings if finding.subject == subject))


def _study(**options: Any) -> bd.Study:
    return bd.Study(**{"name": "s", "model": closed(), "data": data(), "split": 3.0} | options)


def _bad_law(values, inputs):
    return values["z"]


CASES = {
    # forecasts
    "a forecast of another model": lambda: bd.forecast(
        closed(noise=bd.NormalNoise(dist.HalfNormal(1.0))), fitted(), data()
    ),
    "a forecast of a like-named model": lambda: bd.forecast(model(), fitted(), data()),
    "a forecast from no posterior": lambda: bd.forecast(closed(), xr.DataTree(), data()),
    "a forecast from a dataset": lambda: bd.forecast(
        closed(), fitted()["posterior"].to_dataset(), data()
    ),
    "a forecast from a forecast": lambda: bd.forecast(closed(), forecast(), data()),
    "a forecast from None": lambda: bd.forecast(closed(), None, data()),
    "a forecast by a layer": lambda: bd.forecast(closed().layer, fitted(), data()),
    "a forecast before the start": lambda: bd.forecast(
        model(), posterior(model()), np.array([-1.0, 2.0])
    ),
    "forecast times that fall": lambda: bd.forecast(closed(), fitted(), np.array([2.0, 1.0])),
    "forecast times of two dimensions": lambda: bd.forecast(closed(), fitted(), np.ones((2, 2))),
    "forecast times that are NaN": lambda: bd.forecast(closed(), fitted(), np.array([1.0, np.nan])),
    "forecast times that are dates": lambda: bd.forecast(
        closed(), fitted(), np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]")
    ),
    "forecast times that are text": lambda: bd.forecast(closed(), fitted(), ["a", "b"]),
    "no forecast times": lambda: bd.forecast(closed(), fitted(), np.array([])),
    "one forecast time that is a number": lambda: bd.forecast(closed(), fitted(), 7.0),
    "a forecast without its forcing": lambda: bd.forecast(
        model(forcings=("u",)), posterior(model(forcings=("u",))), np.array([6.0, 7.0])
    ),
    "a forecast beyond its forcing": lambda: bd.forecast(
        model(forcings=("u",)),
        posterior(model(forcings=("u",))),
        later().assign(u=("time", [1.0, np.nan, np.nan])),
    ),
    "a forecast under a forcing of another unit": lambda: bool(
        np.allclose(
            model(forcings=("u",), units={"u": "mm"}).in_own_units(
                later().assign(u=("time", np.ones(3), {"units": "m"}))
            )["u"],
            1000.0,
        )
    ),
    "a forecast under a forcing of another dimension": lambda: bd.forecast(
        model(forcings=("u",), units={"u": "mm"}),
        posterior(model(forcings=("u",), units={"u": "mm"})),
        later().assign(u=("time", np.ones(3), {"units": "s"})),
    ),
    "a forecast with a dose before the start": lambda: bd.forecast(
        model(jumps=bd.Jump(-1.0, {"y": 1.0})), posterior(model()), data()
    ),
    "a forecast by a key of text": lambda: bd.forecast(closed(), fitted(), data(), key="a"),
    # scores and verdicts
    "scores of other observables": lambda: bd.score(forecast(), data().rename(y="z")),
    "scores of other times": lambda: bd.score(forecast(), data(TIMES + 0.5)),
    "scores of a posterior": lambda: bd.score(fitted(), data()),
    "scores of no forecast": lambda: bd.score(xr.DataTree(), data()),
    "scores by no data": lambda: bd.score(forecast(), None),
    "scores by a data array": lambda: bd.score(forecast(), data()["y"]),
    "scores by data that are text": lambda: bd.score(forecast(), data(y=list("abcdef"))),
    "scores of a single time": _one_time_is_scored,
    "scores of draws that are not finite": _scores_say_what_they_leave_out,
    "a report of draws that are not finite": _a_report_says_what_it_leaves_out,
    "a verdict on means that are infinite": lambda: _about(
        "finite y", bd.diagnose(fitted(), spoilt("conditional_mean", slice(0, 10)))
    ),
    "a verdict on predictions that are NaN": lambda: _about(
        "finite y", bd.diagnose(fitted(), spoilt("predictions", value=np.nan), data())
    ),
    "a verdict on no posterior": lambda: bd.diagnose(xr.DataTree()),
    "a verdict on a dataset": lambda: bd.diagnose(data()),
    "a verdict with a posterior for a forecast": lambda: bd.diagnose(fitted(), fitted()),
    "a verdict with competitors in a list": lambda: bd.diagnose(
        fitted(), forecast(), data(), competitors=[forecast()]
    ),
    "the PIT of other times": lambda: bd.scores.pit(forecast(), data(TIMES + 0.5)),
    "the PIT of a posterior": lambda: bd.scores.pit(fitted(), data()),
    "parts of an unknown observable": lambda: bd.decompose(forecast(), ["z"]),
    "parts of a posterior": lambda: bd.decompose(fitted()),
    "entropies of what is no count": lambda: bd.sensitivity.decompose_entropy(forecast()),
    "laws where there are none": lambda: bd.scores.consistency(fitted()),
    "a law that asks for an unknown value": lambda: fit(
        bd.Model(model().layer, bd.NormalNoise(0.1), constraints={"law": _bad_law})
    ),
    # reports
    "a report of no forecast": lambda: bd.report(fitted(), xr.DataTree()),
    "a report of no posterior": lambda: bd.report(xr.DataTree(), forecast()),
    "a report with a competitor's name taken": lambda: bd.report(
        fitted(), forecast(), data(), competitors={"climatology": forecast()}
    ),
    # figures
    "a figure of an unknown observable": lambda: bd.plots.plot_forecast(
        forecast(), None, None, "z"
    ),
    "a figure of a posterior as a forecast": lambda: bd.plots.plot_forecast(
        fitted(), None, None, "y"
    ),
    "a figure of the parts of an unknown observable": lambda: bd.plots.plot_decomposition(
        bd.decompose(forecast()), "z"
    ),
    # files
    "a file that is not there": lambda: bd.load("nowhere.nc"),
    "a folder for a file": lambda: bd.load(tempfile.mkdtemp()),
    "a file that is empty": lambda: bd.load(_file("a.nc", b"")),
    "a file that is text": lambda: bd.load(_file("a.nc", b"hello")),
    "a file that is torn": lambda: bd.load(_torn()),
    "a file in a folder that is not there": lambda: bd.save(
        fitted(), Path(tempfile.mkdtemp()) / "no" / "a.nc"
    ).is_file(),
    "a file over a folder": lambda: bd.save(fitted(), tempfile.mkdtemp()),
    "a file of a dict": lambda: bd.save({"a": 1}, Path(tempfile.mkdtemp()) / "a.nc"),
    "a checkpoint in a folder of other things": lambda: fit(checkpoint=Path(__file__).parent),
    "a checkpoint in a file": lambda: fit(checkpoint=_file("a", b"")),
    "a resume without a checkpoint": lambda: bd.resume(model(), data(), "nowhere"),
    # updates and revisions
    "an update of another model": lambda: bd.update(model(), fitted(), later()),
    "an update by what is known": lambda: bd.update(closed(), fitted(), data()),
    "an update by no data": lambda: bd.update(closed(), fitted(), None),
    "an update by a class": lambda: bd.update(closed(), fitted(), later(), engine=bd.NUTS),
    "a finer solver that is coarser": lambda: bd.updating.check_solver(
        model(), posterior(model()), factor=0.1
    ),
    "a finer solver by few draws": lambda: bd.updating.check_solver(
        model(), posterior(model()), draws=2
    ),
    "a solver of a closed form": lambda: bd.checking.choose_solver(closed(), data()),
    "stacking of no posterior": lambda: bd.weighting.stack(xr.DataTree()),
    "stacking without likelihoods": lambda: bd.weighting.stack(fitted()),
    # descriptions
    "a description of a number": lambda: bd.describe(3.0),
    "a check of a layer": lambda: bd.check(closed().layer, data()),
    "a check of None": lambda: bd.check(None, None),
    # studies
    "a study with a slash in its name": lambda: _study(name="a/b"),
    "a study without a name": lambda: _study(name=""),
    "a study named by a number": lambda: _study(name=3),
    "a study named like a device": lambda: _study(name="con"),
    "a study with two models of a name": lambda: _study(competitors={"model": closed()}),
    "a study with a baseline's name": lambda: _study(competitors={"persistence": closed()}),
    "a study with an empty side": lambda: _study(split=9.0),
    "a study of a layer": lambda: _study(model=closed().layer).refuse_bad_input(),
    "a study of no data": lambda: _study(data=None),
    "a study by a key that is no number": lambda: _study().run(
        tempfile.mkdtemp(), key=jax.random.key(0)
    ),
    # keys
    "a key that is text": lambda: as_key("seven"),
    "a key that is broken": lambda: as_key(1.5),
    "a key that is true": lambda: as_key(True),
    "a key that is None": lambda: as_key(None),
    "a key of several": lambda: as_key(jax.random.split(jax.random.key(0))),
    "a raw key of the wrong length": lambda: as_key(np.zeros(3, np.uint32)),
    "keys that are large": lambda: _keys_differ(
        0, 2**32, 2**32 + 1, 2**63, 2**64, 2**64 + 1, 10**40
    ),
    "keys that are negative": lambda: _keys_differ(0, -1, -2, -(2**63), -(2**70)),
    "keys of NumPy": lambda: bool(
        np.array_equal(
            jax.random.key_data(as_key(np.uint64(2**63))), jax.random.key_data(as_key(2**63))
        )
        and as_key(np.int32(7)) == as_key(7)
    ),
    "keys that are raw": lambda: bool(as_key(jax.random.PRNGKey(7)) == jax.random.key(7)),
    # calls
    "an unknown argument": lambda: bd.NUTS(chians=4),
    "a model without noise": lambda: bd.Model(model().layer),
    "an ODE without states": lambda: bd.ODE(Decay(rate())),
}
