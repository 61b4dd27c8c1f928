"""Does the verdict find a prior that the data contradict, and leave sound populations alone?"""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.prediction import draws_dataset
from bayes_dasl.verdict.adequacy import adequacy_findings
from tests.studies.false_alarms import prior_alarms

RNG = np.random.default_rng(0)
STANDARD = RNG.normal(size=500)


def judged(prior, at, **attributes):
    """Findings on a parameter `x` with these prior draws `(draw, …)`, told to be close to `at`."""
    drawn = np.asarray(at) + 1e-4 * np.random.default_rng(1).normal(size=(200, *np.shape(at)))
    attributes = {"group": "science"} | attributes

    def named(values):
        return xr.Dataset(
            {"x": (("chain", "draw", "member")[: 1 + values.ndim], values[None], attributes)}
        )

    post = xr.DataTree.from_dict({"posterior": named(drawn), "prior": named(np.asarray(prior))})
    return list(adequacy_findings(post, None, None, {}))


def test_a_contradiction_is_told_in_standard_deviations():
    (found,) = judged(3.0 + 0.5 * STANDARD, 8.0)
    assert (found.level, found.subject) == ("bad", "prior of x")
    assert "lies around 8, 10 standard deviations from" in found.message  # (8 - 3) / 0.5
    assert not judged(3.0 + 0.5 * STANDARD, 4.2)


@pytest.mark.parametrize("factor", [np.exp(3.5), np.exp(-3.5)])
def test_a_positive_parameter_is_judged_by_its_logarithm(factor):
    """Seven standard deviations are as far below as above; on the raw scale those below do not
    show.
    """
    (found,) = judged(np.exp(0.5 * STANDARD), factor, lower=0.0)
    assert "7 standard deviations of its logarithm from" in found.message
    assert not judged(np.exp(0.5 * STANDARD), np.exp(1.75), lower=0.0)


def test_a_bound_that_the_prior_favours_is_no_contradiction():
    """A small scale of noise under a half-normal prior,
    and a share near the end of a uniform one.
    """
    assert not judged(np.abs(STANDARD), 1e-3, lower=0.0)
    assert not judged(RNG.uniform(size=500), 0.999, lower=0.0, upper=1.0)
    assert judged(np.abs(STANDARD), 50.0, lower=0.0)
    assert judged(RNG.beta(20, 20, size=500), 0.999, lower=0.0, upper=1.0)


def test_many_parameters_are_judged_together():
    """One of two thousand lies 4.4 standard deviations out in every fiftieth sound fit; alone it
    would be odd.
    """
    prior = RNG.normal(size=(500, 2000))
    prior[:, 0] = np.clip(STANDARD, -3.0, 3.0)
    at = np.zeros(2000)
    at[0] = 4.4
    assert not judged(prior, at)
    assert judged(prior[:, 0], 4.4)


def test_pooled_members_are_judged_by_what_they_are_drawn_given():
    assert judged(np.exp(0.5 * RNG.normal(size=(500, 3))), [1.0, 1.0, 300.0], lower=0.0)
    assert not judged(
        np.exp(0.5 * RNG.normal(size=(500, 3))), [1.0, 1.0, 300.0], lower=0.0, pooled=1
    )


@pytest.mark.parametrize("pooled", [True, False])
def test_sound_populations_are_left_alone(pooled):
    """At most 1 of 1000 sound fits is blamed; the raw scale, member by member, blamed 4 of 100."""
    assert prior_alarms(pooled=pooled, replicates=100) <= 0.01


class Amplitude(bd.Module):
    amp: bd.Scalar
    shift: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.amp + self.shift * t}


def test_results_say_which_members_are_pooled_and_where_numbers_lie():
    typical = bd.shared(dist.LogNormal(0.0, 1.0), "typical")
    function = Amplitude(
        bd.population(typical, dist.HalfNormal(0.5)), bd.varying(dist.Uniform(-1.0, 2.0))
    )
    model = bd.Model(bd.Each(bd.Algebraic(function), [0, 1]), bd.NormalNoise(0.1))
    draws = {path: np.ones((1, 1, *leaf.shape)) for path, leaf in bd.random.paths(model).items()}
    held = draws_dataset(model, draws)
    assert {n: v.attrs["pooled"] for n, v in held.data_vars.items()} == {
        "amp": 1,
        "typical": 0,
        "amp.spread": 0,
        "shift": 0,
    }
    assert (
        held["amp"].attrs["lower"] == held["typical"].attrs["lower"] == 0.0
        and "upper" not in held["amp"].attrs
    )
    assert (held["shift"].attrs["lower"], held["shift"].attrs["upper"]) == (-1.0, 2.0)
