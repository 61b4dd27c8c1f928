"""The problems of the mixing study: densities and probes are finite, and its rows and table say
what was found.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bayes_dasl.inference import pose
from tests.studies.mixing import __main__ as command
from tests.studies.mixing.case import along, around
from tests.studies.mixing.measure import LEVELS, covered, mixed
from tests.studies.mixing.problems import PROBLEMS

SIMULATED = 3
QUICK = ("implicit_law",)
REAL = {
    "argon": "molecular/virial_allAr.txt",
    "climate": "climate/igcc_annual_averages.csv",
    "channel": "fluid/HJ_Re550.prof",
}


def finite(case) -> bool:
    """Whether log density and gradient are numbers at three draws of the prior."""
    problem = pose(case.model, case.data)
    evaluated = jax.jit(lambda xs: jax.lax.map(jax.value_and_grad(problem.log_density), xs))
    value, gradient = evaluated(problem.prior(3, key=jax.random.key(0)))
    return bool(jnp.isfinite(value).all() and jnp.isfinite(gradient).all())


@pytest.mark.thorough(*(name for name in PROBLEMS if name not in QUICK))
@pytest.mark.parametrize("name", PROBLEMS)
def test_densities_gradients_and_probes_are_finite(name):
    case = PROBLEMS[name](SIMULATED)
    assert case.name == name
    assert finite(case)
    drawn, true = case.drawn(None), case.true()
    assert all(np.isfinite(values).all() for values in [*drawn.values(), *true.values()])
    assert all(drawn[n].shape == (1, 1000, *values.shape) for n, values in true.items())
    assert set(covered(case, drawn)) == {
        f"{where}_{level}" for where in ("near", "beyond") for level in LEVELS
    }


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "file"), REAL.items())
def test_what_was_measured_has_no_truth(name, file, shared_file, monkeypatch):
    folder = shared_file(f"data/{file}").parents[1]
    monkeypatch.setenv("BAYES_DASL_DATA", str(folder))
    case = PROBLEMS[name](0)
    assert case.true() == {}
    assert finite(case)


def test_places_lie_near_the_data_and_a_tenth_of_their_range_beyond():
    near, beyond = along("x", [0.0, 10.0], lowest=0.0)
    assert (near["x"].min(), near["x"].max()) == (0.0, 10.0)
    assert beyond["x"] == pytest.approx([10 + 1 / 3, 10 + 2 / 3, 11.0])
    turn = np.linspace(0, 2 * np.pi, 60)
    near, beyond = around({"x": np.cos(turn), "y": 3 * np.sin(turn)})
    assert near["x"].size == 20
    assert np.hypot(beyond["x"], beyond["y"] / 3) == pytest.approx(np.full(6, 1.2), abs=0.02)


def test_only_probes_that_mix_are_good():
    rng = np.random.default_rng(0)
    apart = rng.normal(size=(4, 500, 2)) + np.arange(4.0)[:, None, None]
    found = mixed({"still": np.ones((4, 500)), "fine": rng.normal(size=(4, 500)), "apart": apart})
    assert found["good"] == 0.25
    assert found["ess"][0] == 0


def test_a_table_has_a_line_for_each_problem_and_tells_fits_that_were_stopped(
    tmp_path, monkeypatch
):
    row = {
        "problem": "heat",
        "seed": 0,
        "seconds": 30,
        "good": 0.97,
        "rhat": 1.01,
        "ess": [390, 900],
        "leapfrogs": 12.0,
    }
    row |= {
        "divergences": 1,
        "near_90": 0.9,
        "near_95": 0.95,
        "beyond_90": 0.8,
        "beyond_95": 0.9,
        "verdict": "warning",
    }
    row |= {"findings": ["warning, divergences: 1 of 4000"], "load": 1.0}
    stopped = {"problem": "heat", "seed": 1, "failed": "stopped after 60 s", "seconds": 60}
    line = dict(zip(command.HEADER, command._line("heat", [row, stopped]), strict=True))
    assert line["data sets"] == 2
    assert line["with ≥ 95 % of probes good"] == 1
    assert line["seconds, median (most)"] == "30 (30)"
    assert line["else"] == "stopped after 60 s (1); warning, divergences (1)"
    other = row | {"seed": 2, "near_90": 0.7, "good": 0.5}
    line = dict(zip(command.HEADER, command._line("heat", [row, other]), strict=True))
    assert line["near the data: in 90 %"] == "80.0 ± 10.0 %"  # the error is over data sets
    said = command._over_all([row, other, stopped])
    assert said.startswith("1 of 3 fits have 95 % of their probes good. Of 2 simulated data sets")
    assert "at 80.0 ± 10.0 % and 95.0 ± 0.0 % of the places near" in said
