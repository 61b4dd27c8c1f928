"""Whether the shares of science and network are found, where they have closed forms.

Run: `uv run python -m tests.studies.uncertainty.shares`

Formulas of one scientific number s and a network, at one time: a weight w and eight units of 16
more weights. All numbers are standard normal and independent, but for s and w, whose correlation is
given. Ten posteriors of 4000 independent draws each; the error is that of a share of the epistemic
variance. Writes the table of docs/measurements/uncertainty.md.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.prediction.datatree import draws_dataset
from bayes_dasl.prediction.posterior import signature

from .. import ROOT
from ..pages import table, write_section

UNITS, TIME, WAVE = 8, 1.0, 4.0
SEEDS, CORRELATIONS = range(10), (0.0, 0.8, -0.6)


class Weights(bd.Module):
    random_group: ClassVar[str] = "network"

    weight: bd.Scalar
    inner: Any
    outer: Any

    def units(self, t):
        return jnp.sum(self.outer * jnp.tanh(self.inner * t)) / jnp.sqrt(UNITS)


NODES, MASSES = np.polynomial.hermite_e.hermegauss(80)
OF_NETWORK = float(MASSES @ np.tanh(NODES * TIME) ** 2 / MASSES.sum())
"""The variance of the units."""


def wave_variance(frequency: float) -> float:
    """That of cos(frequency s)."""
    return (1 + np.exp(-2 * frequency**2)) / 2 - np.exp(-(frequency**2))


# So that without correlation the shares are those that regressions once missed.
BESIDE_WAVE = np.sqrt(wave_variance(WAVE) * (1 / 0.497 - 1))
BESIDE_UNITS = np.sqrt(OF_NETWORK * (1 / 0.526 - 1))


class Formula(bd.Module):
    parameter: bd.Scalar
    network: Weights

    def __call__(self, t, y, u):
        s, w = self.parameter, self.network.weight
        return {
            "wave": jnp.cos(WAVE * s) + BESIDE_WAVE * w,
            "units": BESIDE_UNITS * s + self.network.units(t),
            "sum": s + 2 * w,
            "product": s * w,
            "compensation": w - s**2,
        }


def shares(correlation: float) -> dict[str, tuple[float, float]]:
    """Those of science and network, of the formulas in which w is correlated with s."""
    c = correlation
    # E[cos(k s) | w] is a wave of w that is damped by exp(-k² (1 - c²) / 2).
    damped = np.exp(-(WAVE**2) * (1 - c**2)) * wave_variance(WAVE * c)
    waves, beside = wave_variance(WAVE), BESIDE_WAVE**2
    return {
        "wave": ((waves + beside * c**2) / (waves + beside), (damped + beside) / (waves + beside)),
        # What w tells of s the network tells too.
        "units": (0.474, 0.526 + 0.474 * c**2),
        "sum": ((1 + 2 * c) ** 2 / (5 + 4 * c), (2 + c) ** 2 / (5 + 4 * c)),
        "product": (2 * c**2 / (1 + c**2), 2 * c**2 / (1 + c**2)),
    }


def model() -> bd.Model:
    network = Weights(dist.Normal(), dist.Normal().expand((UNITS,)), dist.Normal().expand((UNITS,)))
    return bd.Model(bd.Algebraic(Formula(dist.Normal(), network)), bd.NormalNoise(0.1))


def numbers(
    seed: int, correlation: float = 0.0, draws: int = 1000
) -> tuple[np.ndarray, np.ndarray]:
    """Draws of s and w in four chains."""
    s, e = np.random.default_rng(seed).normal(size=(2, 4, draws))
    return s, correlation * s + np.sqrt(1 - correlation**2) * e


def forecast(of: bd.Model, s: np.ndarray, w: np.ndarray, seed: int = 1) -> xr.DataTree:
    """From a posterior with these draws `(chain, draw)`."""
    rng, under = np.random.default_rng([seed, 1]), "layer.function.network."
    leaves = {
        "layer.function.parameter": s,
        f"{under}weight": w,
        f"{under}inner": rng.normal(size=(*s.shape, UNITS)),
        f"{under}outer": rng.normal(size=(*s.shape, UNITS)),
    }
    groups = {
        "/": xr.Dataset(attrs={"signature": signature(of)}),
        "posterior": draws_dataset(of, leaves),
        "observed_data": xr.Dataset(
            {name: ("time", [0.0]) for name in of.observables}, {"time": [TIME]}
        ),
        "constant_data": xr.Dataset(coords={"time": [TIME]}, attrs={"start": 0.0}),
    }
    return bd.forecast(of, xr.DataTree.from_dict(groups), np.array([TIME]))


def rows() -> Iterator[list[object]]:
    formula = model()
    for correlation in CORRELATIONS:
        parts = [
            bd.decompose(forecast(formula, *numbers(seed, correlation), seed)).isel(time=0)
            for seed in SEEDS
        ]
        for name, truths in shares(correlation).items():
            of = xr.concat([p.sel(observable=name) for p in parts], "seed")
            for group, truth in zip(("science", "network"), truths, strict=True):
                found, least = (
                    of[part].values / of["epistemic"].values for part in (group, f"{group}_least")
                )
                yield [
                    name, correlation, group, f"{truth:.3f}", f"{np.nanmean(found):.3f}",
                    f"{np.nanmax(np.abs(found - truth)):.3f}", int((~of["split_known"]).sum()), f"{least.mean():.3f}",
                ]  # fmt: skip


if __name__ == "__main__":
    header = [
        "formula",
        "correlation",
        "group",
        "share",
        "found, mean",
        "largest error",
        "unknown",
        "at least, mean",
    ]
    text = table([header, *rows()])
    print(text)
    write_section(ROOT / "docs" / "measurements" / "uncertainty.md", "shares", text)
