"""Simulation-based calibration of fit and forecast together: ranks of the truth are uniform.

Slow: `uv run pytest -m slow`.
"""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from scipy import stats

import bayes_dasl as bd
from bayes_dasl.prediction import draws_of, push
from bayes_dasl.priors import draw_prior

REPLICATES = 24
TIMES = np.linspace(0.0, 4.0, 12)


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


def model(noise_scale):
    return bd.Model(
        bd.ODE(Decay(rate=bd.between(0.1, 2.0)), {"y": bd.between(2.0, 20.0)}),
        bd.LogNormalNoise(scale=noise_scale),
    )


@pytest.mark.slow
def test_ranks_of_the_truth_are_uniform():
    generator = model(dist.LogNormal(-1.5, 0.3))
    times = xr.Dataset(coords={"time": TIMES})
    truths = draw_prior(generator, REPLICATES, key=jax.random.key(0))
    truths = {path: np.asarray(v) for path, v in truths.items()}
    made = push(generator, generator.inputs(times), truths, key=jax.random.key(1)).predictions["y"]
    ranks, pits, narrow = [], [], []
    for i, y in enumerate(made):
        data = xr.Dataset({"y": ("time", y)}, {"time": TIMES})
        train, test = bd.split(data, time=2.5)
        post = bd.fit(generator, train, bd.NUTS(chains=4, warmup=150, draws=250), key=i)
        draws = draws_of(generator, post)
        ranks += [float((draws[path] < truths[path][i]).mean()) for path in truths]
        fc = bd.forecast(generator, post, test, key=i)
        future = fc["predictions"]["y"].values.reshape(-1, test.sizes["time"])
        pits.append(float((future[:, -1] < test["y"].values[-1]).mean()))
        centre = np.median(future[:, -1])  # a forecast half as wide must be found out
        narrow.append(
            float((centre + 0.3 * (future[:, -1] - centre) < test["y"].values[-1]).mean())
        )
    assert stats.kstest(ranks, "uniform").pvalue > 0.001
    assert stats.kstest(pits, "uniform").pvalue > 0.001
    assert stats.kstest(narrow, "uniform").pvalue < 0.05
