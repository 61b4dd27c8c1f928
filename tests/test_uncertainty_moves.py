"""What is reported as uncertain changes with what makes it so: noise and prior."""

import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd

TIMES = np.linspace(-1.0, 1.0, 40)
NOISE = 0.67
ENGINES = {
    "NUTS": bd.NUTS(chains=2, warmup=100, draws=300),
    "DeepEnsemble": bd.DeepEnsemble(members=200, descent=bd.Descent(steps=800)),
    "Laplace": bd.Laplace(draws=500, descent=bd.Descent(steps=800, patience=20)),
}


class Line(bd.Module):
    level: bd.Scalar
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + self.slope * t}


def variances(engine: str, noise: float = NOISE, prior: float = 0.15) -> xr.Dataset:
    """The parts of the variance at a time far beyond the data, whose residuals are as large as the noise.

    A bootstrap takes the noise from residuals, whatever the model says of it, and needs enough of them: of eight data
    it sees too few to follow the formula.
    """
    line = np.stack([np.ones(TIMES.size), TIMES])
    rough = np.random.default_rng(0).normal(size=TIMES.size)
    rough -= line.T @ np.linalg.lstsq(line.T, rough, rcond=None)[0]
    data = xr.Dataset({"y": ("time", 0.4 - 0.7 * TIMES + noise * rough / rough.std())}, {"time": TIMES})
    law = Line(dist.Normal(0.0, prior), dist.Normal(0.0, prior))
    model = bd.Model(bd.Algebraic(law), bd.NormalNoise(noise))
    post = bd.fit(model, data, ENGINES[engine], key=0, progress=False)
    return bd.decompose(bd.forecast(model, post, np.array([3.0]))).squeeze()


@pytest.mark.parametrize("engine", ENGINES)
def test_noise_and_prior_move_it(engine):
    before = variances(engine)
    doubled, dropped = variances(engine, noise=2 * NOISE), variances(engine, prior=1e3)
    for found, noise in ((before, NOISE), (doubled, 2 * NOISE), (dropped, NOISE)):
        assert float(found["aleatoric"]) == pytest.approx(noise**2)
    # By the formula of a normal posterior the ratios are 1.48 and 2.37.
    assert float(doubled["epistemic"]) > 1.3 * float(before["epistemic"])
    assert float(dropped["epistemic"]) > 1.2 * float(before["epistemic"])
