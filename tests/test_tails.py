"""Are draws without a variance told from those with one, whose tails are only long?"""

import numpy as np
import pytest
import xarray as xr
from scipy.special import ndtr
from test_coverage import autoregressive

from bayes_dasl._statistics import tail_index
from bayes_dasl.verdict.posterior_findings import posterior_findings

THIN = {
    "normal": lambda rng, size: rng.normal(size=size),
    "gamma": lambda rng, size: rng.gamma(2.0, size=size),
    "uniform": lambda rng, size: rng.random(size),
    "log-normal": lambda rng, size: rng.lognormal(0.0, 1.0, size),
    "Student's t of five": lambda rng, size: rng.standard_t(5, size),
}
HEAVY = {
    "half-Cauchy": lambda rng, size: np.abs(rng.standard_cauchy(size)),
    "its left": lambda rng, size: -np.abs(rng.standard_cauchy(size)),
    "its draws go on": lambda rng, size: np.abs(
        np.tan(np.pi * (ndtr(autoregressive(rng, size, 0.5)) - 0.5))
    ),
}


def findings(draws):
    """What is said of the tails of parameters `(chain, draw, parameter)`."""
    held = xr.Dataset({"k": (("chain", "draw", "i"), draws, {"group": "science"})})
    found = posterior_findings(xr.DataTree.from_dict({"posterior": held}), agreed=True)
    return [f for f in found if f.subject == "heavy tails"]


@pytest.mark.parametrize("draws", [100, 1000])
@pytest.mark.parametrize("tail", THIN)
def test_many_parameters_with_a_variance_are_left_alone(tail, draws):
    assert not findings(THIN[tail](np.random.default_rng(0), (4, draws, 50)))


@pytest.mark.parametrize("tail", HEAVY)
def test_a_parameter_without_a_variance_is_named(tail):
    rng = np.random.default_rng(0)
    found = [findings(HEAVY[tail](rng, (4, 1000))[..., None]) for _ in range(10)]
    assert sum(map(len, found)) >= 9
    [finding] = next(f for f in found if f)
    assert (
        finding.level == "warning"
        and "k (k-hat" in finding.message
        and "quantiles" in finding.remedy
    )


def test_the_tail_index_of_known_tails():
    """Of Pareto draws of shape 1/k, by four standard errors;
    of none where nothing can be fitted.
    """
    rng = np.random.default_rng(0)
    for k in (0.25, 0.5, 1.0):
        found, error = tail_index(rng.pareto(1 / k, size=(4, 5000)))
        assert abs(found - k) < 4 * error < 0.4
    assert (
        np.isnan(tail_index(np.ones((4, 1000)))).all()
        and np.isnan(tail_index(rng.normal(size=(4, 20)))).all()
    )
    assert np.isnan(tail_index(np.minimum(rng.random((4, 1000)), 0.1))).all()
