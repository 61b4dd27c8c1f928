"""From a table of doses and concentrations to the forecast of other doses."""

from types import SimpleNamespace

import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

import bayes_dasl as bd

pytestmark = pytest.mark.thorough

TABLE = """id,time (h),amt (mg),conc (mg/L),weight (kg)
1,0,320,.,52
1,1,.,7.66,52
1,3,.,11.21,52
1,8,.,9.69,52
1,24,.,2.38,52
2,0,320,.,58
2,1,.,9.27,58
2,3,.,14.14,58
2,8,.,7.00,58
2,24,.,1.34,58
3,0,320,.,64
3,1,.,6.45,64
3,3,.,5.02,64
3,8,.,5.81,64
3,24,.,1.70,64
4,0,320,.,71
4,1,.,6.22,71
4,3,.,10.28,71
4,8,.,5.89,71
4,24,.,1.27,71
5,0,320,.,77
5,1,.,4.26,77
5,3,.,6.98,77
5,8,.,3.46,77
5,24,.,0.71,77
6,0,320,.,80
6,1,.,7.05,80
6,3,.,8.12,80
6,8,.,4.80,80
6,24,.,1.70,80
7,0,320,.,85
7,1,.,8.53,85
7,3,.,7.28,85
7,8,.,8.28,85
7,24,.,1.61,85
8,0,320,.,92
8,1,.,5.30,92
8,3,.,8.79,92
8,8,.,6.57,92
8,24,.,1.38,92
"""


def model_under(doses, weights):
    """Eight people, each with a clearance that grows with the weight to the power of 3/4."""
    bigger = bd.varying(np.log(weights / 70.0))
    layer = bd.dosing.Compartments(
        clearance=bd.population(bd.between(1.0, 10.0), dist.HalfNormal(0.5), effect=0.75 * bigger),
        volume=bd.between(10.0, 100.0),
        absorption=bd.between(0.3, 4.0),
        doses=doses,
        units={"conc": "mg/L"},
    )
    noise = {"conc": bd.LogNormalNoise(bd.between(0.05, 0.5))}
    return bd.Model(bd.Each(layer, doses.members), noise)


@pytest.fixture(scope="module")
def pharmacokinetics(tmp_path_factory):
    """Data, fit, the forecast of a person's curve, and of person 3 under a tablet twice a day."""
    folder = tmp_path_factory.mktemp("pk")
    (folder / "study.csv").write_text(TABLE)
    data = bd.from_table(folder / "study.csv", "conc", subject="id", covariates="weight")
    weights = data["weight"].values
    model = model_under(bd.dosing.doses(folder / "study.csv", into="depot", subject="id"), weights)
    post = bd.fit(model, data, bd.NUTS(chains=2, draws=1000), key=0, progress=False)
    fitted = bd.forecast(model, post, np.arange(1.0, 24.5, 0.5))

    plan = pd.DataFrame({"id": data["subject"], "time": 0.0, "amt": 320.0, "addl": 6, "ii": 12.0})
    times = xr.Dataset(coords={"time": np.linspace(0.5, 84.0, 168), "subject": [3.0]})
    planned = model_under(bd.dosing.doses(plan, into="depot", subject="id"), weights)
    ahead = bd.forecast(planned, post, times, what_if=True)
    trough = ahead["conditional_mean"]["conc"].sel(subject=3.0, time=84.0)
    return SimpleNamespace(
        folder=folder, data=data, model=model, post=post, fitted=fitted, trough=trough
    )


def test_the_table_becomes_data(pharmacokinetics):
    data = pharmacokinetics.data
    assert data["conc"].dims == ("time", "subject") and dict(data.sizes) == {
        "time": 4,
        "subject": 8,
    }
    assert data["conc"].attrs["units"] == "mg/L" and data["time"].attrs["units"] == "h"


def test_clearances_are_those_of_the_areas(pharmacokinetics):
    """Dose over area under the curve, by trapezoids and an exponential tail, as far as noise of 25
    % lets.
    """
    data, post = pharmacokinetics.data, pharmacokinetics.post
    found = post["posterior"]["clearance"].median(("chain", "draw")).values
    t = data["time"].values
    by_area = []
    for c in data["conc"].values.T:
        rate = np.log(c[2] / c[3]) / (t[3] - t[2])
        area = np.trapezoid([0, *c[:3]], [0, *t[:3]]) + (c[2] - c[3]) / rate + c[3] / rate
        by_area.append(320.0 / area)
    assert np.median(found / by_area) == pytest.approx(1.0, abs=0.15)
    assert np.corrcoef(found, by_area)[0, 1] > 0.6


def test_the_forecast_is_that_of_repeated_doses(pharmacokinetics):
    """What each of eight doses leaves, by the formula at typical draws."""
    post = pharmacokinetics.post["posterior"]
    ka, volume = post["absorption"], post["volume"]
    k = post["clearance"].isel(subject=2) / volume
    since = 84.0 - 12.0 * np.arange(7)
    left = sum(320 / volume * ka / (ka - k) * (np.exp(-k * s) - np.exp(-ka * s)) for s in since)
    mean = left * np.exp(post["scale"] ** 2 / 2)  # of log-normal noise
    trough = pharmacokinetics.trough
    assert float(trough.median()) == pytest.approx(float(mean.median()), rel=1e-6)


def test_one_person_is_described_judged_and_drawn(pharmacokinetics):
    found = pharmacokinetics
    assert "clearance ~ " in str(bd.describe(found.model))
    assert bd.diagnose(found.post, found.fitted).model is not None
    person = {"subject": 3.0}
    figure = bd.plots.plot_forecast(found.fitted.sel(person), found.data.sel(person), None, "conc")
    figure.savefig(found.folder / "person-3.png")
    assert (found.folder / "person-3.png").stat().st_size > 1000
