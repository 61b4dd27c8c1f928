"""The series of the forecasting study: densities of all its models are finite, and its table says
what was found.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

from bayes_dasl.inference import pose
from tests.studies.forecasting import __main__ as command
from tests.studies.forecasting.attainable import covers_itself, expected
from tests.studies.forecasting.measure import SERIES, members
from tests.studies.forecasting.series import REAL, RIGHT, WRONG

SIMULATED = [name for name in SERIES if name not in REAL]


@pytest.mark.thorough
@pytest.mark.parametrize("name", SERIES)
def test_the_densities_of_all_members_are_finite(name, shared_file, monkeypatch):
    if name in REAL:
        monkeypatch.setenv("BAYES_DASL_DATA", str(shared_file("data/manifest.csv").parent))
    posed = SERIES[name](0)
    assert 0 < posed.test.sizes["time"] <= 2 * posed.known + 10
    for model in members(posed).values():
        problem = pose(model, posed.train)
        evaluated = jax.jit(
            lambda xs, p=problem: jax.lax.map(jax.value_and_grad(lambda x: p.log_density(x)), xs)
        )
        value, gradient = evaluated(problem.prior(6, key=jax.random.key(0)))
        assert jnp.isfinite(value).sum() >= 3
        assert jnp.isfinite(gradient).all()


def test_there_are_twelve_of_each_and_eight_are_real():
    assert (len(RIGHT), len(WRONG), len(REAL)) == (12, 12, 8)
    assert {*REAL} <= {*SERIES}


def test_a_ratio_is_the_geometric_mean_over_observables():
    assert command.ratio({"a": 2.0, "b": 0.5}, {"a": 1.0, "b": 1.0}) == pytest.approx(1.0)
    assert command.ratio({"a": 4.0}, {"a": 8.0}) == 0.5


def test_the_table_counts_series_that_keep_to_the_aims(tmp_path, monkeypatch):
    def row(series, ratio, cover):
        members = {"science": {"crps": {"x": 2.0}, "cover_90": 0.9}}
        members |= {
            n: {"crps": {"x": 2.0 * ratio}, "cover_90": cover}
            for n in ("hybrid", "noisy", "mixture")
        }
        members["mixture"] |= (
            {"cover_90_by_itself": [0.9, 0.9, 0.9, 1.0]} if series != "soil" else {}
        )
        weights = {"science": 0.5, "hybrid": 0.2, "noisy": 0.3}
        return {
            "series": series,
            "seed": 0,
            "method": "chosen",
            "members": members,
            "weights": weights,
            "code": "x",
        }

    other = {
        "series": "growth",
        "seed": 0,
        "method": "process",
        "members": {"it": {"crps": {"x": 6.0}, "cover_90": 1.0}},
    }
    failed = {"series": "soil", "seed": 1, "method": "ensemble", "failed": "stopped after 3 s"}
    held = [row("growth", 1.02, 0.9), row("soil", 1.2, 0.5), row("tumour", 0.7, 0.9), other, failed]
    monkeypatch.setattr(command, "held", lambda path: held)
    monkeypatch.setattr(command, "code_of", lambda *task: "x")
    said = command.tables()
    assert (
        "is right, the CRPS of the mixture is at most 1.03 of that of the science in 1 of 2 series"
        in said
    )
    assert (
        "is wrong, the CRPS of the mixture is at most 0.8 of that of the science in 1 of 1 series"
        in said
    )
    assert (
        "| right: `growth` | 1 | 2 (90%) | 0.50, 0.20, 0.30 | **1.02 (90%)** | 1.02 (90%) | 1.02 "
        "(90%) |" in said
    )
    assert (
        "it would be so in 0.8 of the 1 of which that is known." in said
    )  # three of four; of soil nobody knows
    assert "3.00 (100%)" in said
    assert "Not there: soil 1 ensemble: stopped after 3 s." in said
    assert np.char.count(said, "older than the code") == 1


class TestAttainable:
    def forecast(self, draws):
        dims = ("chain", "draw", "time")
        return xr.DataTree.from_dict(
            {"predictions": xr.Dataset({"x": (dims, draws)}, {"time": np.arange(20.0)})}
        )

    def test_data_that_hold_together_are_seldom_held_as_wanted(self):
        rng = np.random.default_rng(0)
        together = np.repeat(rng.normal(size=(1, 4000, 1)), 20, axis=-1)
        test = xr.Dataset({"x": ("time", np.r_[np.zeros(19), np.nan])}, {"time": np.arange(20.0)})
        held = {
            name: covers_itself(self.forecast(draws), test)
            for name, draws in (("together", together), ("apart", rng.normal(size=(1, 4000, 20))))
        }
        assert {*held["together"]} == {0.0, 1.0} and np.mean(held["together"]) == pytest.approx(
            0.9, abs=0.011
        )
        assert expected([held["together"]]) == 0.0
        # Of 19 independent data 17 or 18 are held with a probability of 0.57.
        assert expected([held["apart"]]) == pytest.approx(0.57, abs=0.03)
        assert expected([held["apart"]] * 3) > 0.75
