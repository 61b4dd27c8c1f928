"""What is reported as uncertain changes with what makes it so: noise and prior."""

import jax
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import Journal, ProgressBar, pose

TIMES = np.linspace(-1.0, 1.0, 40)
NOISE, BEYOND = 0.67, 3.0
ENGINES = {
    "NUTS": bd.NUTS(chains=2, warmup=100, draws=300),
    "DeepEnsemble": bd.DeepEnsemble(members=200, descent=bd.Descent(steps=800)),
    "Laplace": bd.engines.Laplace(draws=500, descent=bd.Descent(steps=800, patience=20)),
}


class Line(bd.Module):
    level: bd.Scalar
    slope: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.level + self.slope * t}


def posed(noise: float = NOISE, prior: float = 0.15) -> tuple[bd.Model, xr.Dataset]:
    """A line and data whose residuals are as large as the noise.

    A bootstrap takes the noise from residuals, whatever the model says of it, and needs enough of
    them: of eight data it sees too few to follow the formula.
    """
    line = np.stack([np.ones(TIMES.size), TIMES])
    rough = np.random.default_rng(0).normal(size=TIMES.size)
    rough -= line.T @ np.linalg.lstsq(line.T, rough, rcond=None)[0]
    data = xr.Dataset(
        {"y": ("time", 0.4 - 0.7 * TIMES + noise * rough / rough.std())}, {"time": TIMES}
    )
    law = Line(dist.Normal(0.0, prior), dist.Normal(0.0, prior))
    return bd.Model(bd.Algebraic(law), bd.NormalNoise(noise)), data


def epistemic(engine: str, **changed: float) -> float:
    """The variance of the line far beyond the data; level and slope are their own unconstrained
    numbers.
    """
    key, _ = jax.random.split(jax.random.key(0))
    found = ENGINES[engine].run(
        pose(*posed(**changed)), key=key, journal=Journal(), bar=ProgressBar(False)
    )
    return float((found.positions @ [1.0, BEYOND]).var(ddof=1))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_noise_and_prior_move_it(engine):
    before = epistemic(engine)
    # By the formula of a normal posterior the ratios are 1.48 and 2.37.
    assert epistemic(engine, noise=2 * NOISE) > 1.3 * before
    assert epistemic(engine, prior=1e3) > 1.2 * before


@pytest.mark.thorough
def test_it_is_what_is_reported():
    model, data = posed()
    post = bd.fit(model, data, ENGINES["Laplace"], key=0, progress=False)
    found = bd.decompose(bd.forecast(model, post, np.array([BEYOND]))).squeeze()
    assert float(found["aleatoric"]) == pytest.approx(NOISE**2)
    assert float(found["epistemic"]) == pytest.approx(epistemic("Laplace"), rel=1e-6)
