"""Posteriors whose draws are given rather than sampled,
for tests of forecasts with a known truth.
"""

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.fitting import data_groups
from bayes_dasl.prediction import draws_dataset, signature


class Levels(bd.Module):
    """A level of its own at each time 0, 1, …"""

    level: dist.Distribution

    def __call__(self, t, y, u):
        return {"y": self.level[t.astype(int)]}


def levels_model(times: int, noise: bd.noise.AbstractNoise) -> bd.Model:
    """The levels of so many times, each observed with noise."""
    return bd.Model(bd.Algebraic(Levels(dist.Normal(0.0, 1.0).expand([times]))), noise)


def at_times(values: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {"y": ("time", np.asarray(values, float))}, {"time": np.arange(float(len(values)))}
    )


def posterior(
    model: bd.Model, data: xr.Dataset, draws: dict[str, np.ndarray], *, chains: bool = True
) -> xr.DataTree:
    """As from `fit`, with these draws `(chain, draw, …)` by path; of chains, or of members of an
    ensemble.
    """
    groups = {"posterior": draws_dataset(model, draws)} | data_groups(
        model, data, float(data["time"][0])
    )
    tree = xr.DataTree.from_dict(groups)
    tree.attrs = {"signature": signature(model), "markov": int(chains), "key": 0}
    return tree
