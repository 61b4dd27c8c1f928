"""What is reported as uncertain changes with what makes it so: noise, prior, members."""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd

TIMES = np.linspace(-1.0, 1.0, 8)
ENGINES = {
    "NUTS": bd.NUTS(chains=2, warmup=100, draws=300),
    "DeepEnsemble": bd.DeepEnsemble(members=40, steps=800),
    "Laplace": bd.Laplace(steps=800, draws=500),
}


class Line(bd.Module):
    level: bd.Scalar
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + self.slope * t}


def variances(engine: str, noise: float = 0.3, prior: float = 0.15) -> xr.Dataset:
    """The parts of the variance at a time far beyond the data, whose residuals are as large as the noise.

    A bootstrap takes the noise from residuals, whatever the model says of it.
    """
    line = np.stack([np.ones(8), TIMES])
    rough = np.random.default_rng(0).normal(size=8)
    rough -= line.T @ np.linalg.lstsq(line.T, rough, rcond=None)[0]
    data = xr.Dataset({"y": ("time", 0.4 - 0.7 * TIMES + noise * rough / rough.std())}, {"time": TIMES})
    law = Line(dist.Normal(0.0, prior), dist.Normal(0.0, prior))
    model = bd.Model(bd.Algebraic(law), bd.NormalNoise(noise))
    post = bd.fit(model, data, ENGINES[engine], key=0, progress=False)
    return bd.decompose(bd.forecast(model, post, np.array([3.0]))).squeeze()


@pytest.mark.parametrize("engine", ENGINES)
def test_noise_and_prior_move_it(engine):
    before = variances(engine)
    doubled, dropped = variances(engine, noise=0.6), variances(engine, prior=1e3)
    assert float(before["aleatoric"]) == pytest.approx(0.09) and float(doubled["aleatoric"]) == pytest.approx(0.36)
    assert float(dropped["aleatoric"]) == pytest.approx(0.09)
    # By the formula of a normal posterior the ratios are 1.55 and 2.1.
    assert float(doubled["epistemic"]) > 1.3 * float(before["epistemic"])
    assert float(dropped["epistemic"]) > 1.2 * float(before["epistemic"])
