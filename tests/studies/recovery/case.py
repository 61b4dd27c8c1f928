"""What a case of the suite is: a model, a truth, and data that the truth makes."""

import dataclasses
import time
from collections.abc import Mapping

import numpy as np
import xarray as xr

import bayes_dasl as bd
from bayes_dasl._statistics.convergence import rhat
from bayes_dasl.layers import AbstractLayer

from ..provenance import fingerprint

REPLICATES = 50


@dataclasses.dataclass(frozen=True)
class Case:
    """`truth` predicts the data without noise, at the index, places and forcings of `template`.

    `judged` are the scientific parameters by their path in the model, with their true values;
    `noise` is the standard deviation of the noise of each observable.
    """

    name: str
    kind: str
    model: bd.Model
    truth: AbstractLayer
    template: xr.Dataset
    noise: Mapping[str, float]
    judged: Mapping[str, float]
    engine: bd.NUTS = dataclasses.field(default_factory=lambda: bd.NUTS(chains=2, draws=500))

    def predicted(self) -> dict[str, np.ndarray]:
        """The data without noise."""
        given = bd.inputs(
            self.template,
            forcings=self.truth.forcings,
            interpolation=self.truth.interpolation,
            index=self.truth.index,
            start=getattr(self.truth, "start", None),
            places=dict.fromkeys(d for dims in self.truth.dims.values() for d in dims),
        )
        prediction = self.truth(given)
        assert bool(prediction.ok), self.name
        return {name: np.asarray(prediction.values[name]) for name in self.noise}

    def data(self, replicate: int) -> xr.Dataset:
        """A data set: the truth, and noise of its own."""
        rng = np.random.default_rng([replicate, sum(map(ord, self.name))])
        dims = {name: (self.truth.index, *self.truth.dims.get(name, ())) for name in self.noise}
        noisy = {
            name: (dims[name], value + self.noise[name] * rng.normal(size=value.shape))
            for name, value in self.predicted().items()
        }
        return self.template.assign(noisy)

    def blank(self) -> xr.Dataset:
        """A data set of zeros, for which nothing is solved."""
        dims = {name: (self.truth.index, *self.truth.dims.get(name, ())) for name in self.noise}
        return self.template.assign(
            {n: (d, np.zeros([self.template.sizes[i] for i in d])) for n, d in dims.items()}
        )


def code(case: Case) -> str:
    """The fingerprint of what makes a row of a case."""
    return fingerprint(bd.fit, case.engine, case.model)


def fit(case: Case, replicate: int) -> dict:
    """Which 90 % intervals cover, and how well the chains mixed."""
    began = time.perf_counter()
    post = bd.fit(case.model, case.data(replicate), case.engine, progress=False, key=replicate)
    by_path = {v.attrs["path"]: v for v in post["posterior"].data_vars.values()}
    covered, highest = {}, 1.0
    for path, truth in case.judged.items():
        draws = by_path[path].values
        low, high = np.quantile(draws, [0.05, 0.95])
        covered[path] = bool(low <= truth <= high)
        highest = max(highest, float(rhat(draws[..., None]).max()))
    return {
        "case": case.name,
        "replicate": replicate,
        "covered": covered,
        "rhat": round(highest, 4),
        "seconds": round(time.perf_counter() - began, 1),
    }
