"""Which posteriors are said to lean on a bound of the prior: those that data push there, by draws
in closed form.
"""

import json

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from bayes_dasl.verdict.posterior_findings import posterior_findings

DRAWS, PRIOR_DRAWS = 2000, 500


def leaning(draws, prior, bounds):
    """The subjects of what is said of parameters with these draws `(draw,)`, prior draws and
    bounds.
    """

    def group(values):
        dims = {
            n: ("chain", "draw", *(f"{n}_dim_{i}" for i in range(np.ndim(v) - 1)))
            for n, v in values.items()
        }
        return xr.Dataset(
            {n: (dims[n], np.asarray(v)[None], {"group": "science"}) for n, v in values.items()}
        )

    tree = xr.DataTree.from_dict({"posterior": group(draws), "prior": group(prior)})
    tree.attrs["bounds"] = json.dumps(bounds)
    return [f.subject for f in posterior_findings(tree, agreed=True) if "bound of" in f.subject]


def uniform(truths, sd, rng):
    """Numbers between 0 and 1 that are measured to within `sd`: their posteriors are truncated
    normals.
    """
    truths = np.atleast_1d(truths)
    measured = truths + sd * rng.normal(size=truths.size)
    names = [f"p{i}" for i in range(truths.size)]
    draws = {
        name: stats.truncnorm.rvs(-m / sd, (1 - m) / sd, m, sd, size=DRAWS, random_state=rng)
        for name, m in zip(names, measured, strict=True)
    }
    prior = {name: rng.uniform(size=PRIOR_DRAWS) for name in names}
    return leaning(draws, prior, {name: {"lower": 0.0, "upper": 1.0} for name in names})


# One of each kind by default: data that say much or nothing of one, of few and of many numbers.
ASKED = {(1, 0.05), (1, 10.0), (5, 0.1), (30, 0.01)}


@pytest.mark.thorough("1-0.05", "1-10.0", "30-0.01")
@pytest.mark.parametrize(
    ("number", "sd"),
    [
        pytest.param(number, sd, marks=() if (number, sd) in ASKED else pytest.mark.slow)
        for number in (1, 5, 30)
        for sd in (0.01, 0.05, 0.1, 0.3, 10.0)
    ],
)
def test_sound_fits_are_hardly_ever_told_to_widen_their_prior(number, sd):
    """Truths from the prior, near a bound too. With R above 5 m of m bounds, where a normal of sd s
    tells the truth, at most 0.36 / 5 of fits: the largest of s E[max(z - x, 0)] where the hazard
    h(x) of a normal is 5 m s.
    """
    rng = np.random.default_rng(0)
    fits = 200 if number == 1 else 40
    told = sum(bool(uniform(rng.uniform(size=number), sd, rng)) for _ in range(fits))
    most = 0.36 / 5 * fits
    assert told <= most + 3 * np.sqrt(most)


@pytest.mark.parametrize(
    ("truth", "sd", "side"), [(1.1, 0.03, "upper"), (1.5, 0.1, "upper"), (-2.0, 0.3, "lower")]
)
def test_truths_beyond_a_bound_are_found(truth, sd, side):
    rng = np.random.default_rng(0)
    found = [uniform(truth, sd, rng) for _ in range(20)]
    assert sum(each == [f"{side} bound of p0"] for each in found) >= 18, found


def test_one_truth_beyond_a_bound_is_found_among_twenty_parameters():
    rng = np.random.default_rng(0)
    truths = np.append(np.linspace(0.2, 0.8, 19), 2.0)
    assert "upper bound of p19" in uniform(truths, 0.05, rng)


def test_each_number_of_an_array_has_bounds_of_its_own():
    """The second leans on its upper bound of 2; the first, in the middle of its own, is far below
    that.
    """
    rng = np.random.default_rng(0)
    draws = np.stack([rng.normal(0.5, 0.05, DRAWS), 2.0 - rng.exponential(0.01, DRAWS)], axis=1)
    prior = rng.uniform(size=(PRIOR_DRAWS, 2)) * [1.0, 2.0]
    bounds = {"p": {"lower": 0.0, "upper": [1.0, 2.0]}}
    assert leaning({"p": draws}, {"p": prior}, bounds) == ["upper bound of p"]
    assert leaning({"p": draws[:, [0, 0]] * [1.0, 2.0]}, {"p": prior}, bounds) == []


def test_a_long_tail_does_not_make_a_bound_near():
    """Its standard deviation is far larger than the distance of the mode from the bound."""
    rng = np.random.default_rng(0)
    draws = {"x": 1.0 + rng.lognormal(0.0, 2.0, DRAWS)}
    assert (np.abs(draws["x"] - 1) < 0.25 * draws["x"].std()).mean() > 0.5
    prior = {"x": 1.0 + rng.lognormal(0.0, 3.0, PRIOR_DRAWS)}
    assert leaning(draws, prior, {"x": {"lower": 1.0}}) == []


def test_what_the_data_do_not_speak_of_leans_on_nothing():
    rng = np.random.default_rng(0)
    draws, prior = ({"x": rng.uniform(size=n)} for n in (DRAWS, PRIOR_DRAWS))
    assert leaning(draws, prior, {"x": {"lower": 0.0, "upper": 1.0}}) == []
