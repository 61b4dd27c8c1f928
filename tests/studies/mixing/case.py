"""What a problem of the table is: a hybrid, data, and where its unknown functions are looked at.

Data of most problems are simulated: science, noise and unknown functions are drawn from the priors,
the functions as Gaussian processes by random Fourier features, which owe nothing to the basis of
the model. Of such data sets 95 % of 95 % intervals hold the truth, if only draws are those of the
posterior. Where a network is the unknown function the truth is a law of its own.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.layers import AbstractLayer

NEAR, BEYOND, REACH = 20, 6, 0.1
"""Places near the data, beyond them, and how far beyond, in ranges of the data."""

_FEATURES = 400

type Places = dict[str, np.ndarray]
type Noise = Callable[[np.random.Generator, np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Unknown:
    """An unknown function, and the places where it is looked at.

    `of` finds it in a layer, as a function `(t, y, u)`; `near` and `beyond` are its inputs by name.
    """

    of: Callable[[Any], Callable[..., Any]]
    outputs: tuple[str, ...]
    near: Places
    beyond: Places

    def values(self, layer: Any, places: Places) -> jax.Array:
        """What it returns at places, one output after the other."""
        function = self.of(layer)
        each = jax.vmap(lambda given: dict(function(given.get("t", 0.0), given, {})))
        found = each({name: jnp.asarray(values) for name, values in places.items()})
        return jnp.concatenate([found[name] for name in self.outputs])


@dataclasses.dataclass(frozen=True)
class Case:
    """A hybrid and one data set; `truth` is the layer that made the data, None where nature did.

    `science` gives the scientific numbers of a layer by name.
    """

    name: str
    seed: int
    model: bd.Model
    data: xr.Dataset
    unknown: Mapping[str, Unknown]
    science: Callable[[Any], dict[str, Any]]
    truth: Any = None

    def probes(self, layer: Any) -> dict[str, Any]:
        """The values of the unknown functions near the data and beyond,
        and the scientific numbers.
        """
        found = {}
        for name, function in self.unknown.items():
            found[f"{name} near"] = function.values(layer, function.near)
            found[f"{name} beyond"] = function.values(layer, function.beyond)
        return found | {
            f"science {name}": jnp.asarray(value) for name, value in self.science(layer).items()
        }

    def drawn(self, post: xr.DataTree | None) -> dict[str, np.ndarray]:
        """The probes of each draw, `(chain, draw, …)`; of the prior without a posterior."""
        found = bd.evaluate(self.model, post, lambda model: self.probes(model.layer))
        return {str(name): found[name].values for name in found.data_vars}

    def true(self) -> dict[str, np.ndarray]:
        """The true values of the unknown functions; nothing where nobody knows them."""
        if self.truth is None:
            return {}
        return {
            f"{name} {where}": np.asarray(function.values(self.truth, getattr(function, where)))
            for name, function in self.unknown.items()
            for where in ("near", "beyond")
        }


class Drawn(bd.Module):
    """A draw of a Gaussian process in the place of a `bd.Basis`: random Fourier features of its
    kernel.
    """

    input: str = eqx.field(static=True)
    output: str = eqx.field(static=True)
    positive: bool = eqx.field(static=True)
    level: float
    frequencies: jax.Array
    phases: jax.Array
    weights: jax.Array

    def __call__(self, t, y, u):
        x = jnp.asarray({"t": t, **u, **y}[self.input])
        f = jnp.cos(x[..., None] * self.frequencies + self.phases) @ self.weights
        return {self.output: self.level + (jnp.exp(f) if self.positive else f)}


def drawn_function(basis: bd.Basis, rng: np.random.Generator) -> Drawn:
    """A function from the prior that a basis with a squared exponential kernel stands for."""
    length, amplitude = (
        sampled(prior, rng) for prior in (basis.family.length, basis.family.amplitude)
    )
    weights = amplitude * np.sqrt(2 / _FEATURES) * rng.normal(size=_FEATURES)
    frequencies, phases = rng.normal(size=_FEATURES) / length, rng.uniform(0, 2 * np.pi, _FEATURES)
    (name,) = basis.input
    parts = (jnp.asarray(part) for part in (frequencies, phases, weights))
    return Drawn(name, basis.output, basis.positive, float(basis.level), *parts)


def sampled(prior: Any, rng: np.random.Generator) -> float:
    return float(prior.sample(jax.random.key(int(rng.integers(2**31)))))


def simulated(
    build: Callable[..., AbstractLayer],
    priors: Mapping[str, Any],
    bases: Mapping[str, bd.Basis],
    template: xr.Dataset,
    noise: Noise,
    rng: np.random.Generator,
) -> tuple[xr.Dataset, AbstractLayer]:
    """Data whose science and functions come from the priors, and the layer that made them.

    `build` makes a layer of the numbers and the functions by name.
    """
    numbers = {name: sampled(prior, rng) for name, prior in priors.items()}
    truth = build(**numbers, **{name: drawn_function(basis, rng) for name, basis in bases.items()})
    return observed(truth, template, noise, rng), truth


def observed(
    truth: AbstractLayer, template: xr.Dataset, noise: Noise, rng: np.random.Generator
) -> xr.Dataset:
    """What a layer predicts, with noise."""
    clean = predicted(truth, template)
    dims = {name: (truth.index, *truth.dims.get(name, ())) for name in clean}
    units = getattr(truth, "units", {})
    noisy = {
        n: (dims[n], noise(rng, v), {"units": units[n]} if n in units else {})
        for n, v in clean.items()
    }
    return template.assign(noisy)


def predicted(layer: AbstractLayer, template: xr.Dataset) -> dict[str, np.ndarray]:
    """What a layer without unknowns predicts at the index, places and forcings of a dataset."""
    given = bd.inputs(
        template,
        forcings=layer.forcings,
        interpolation=layer.interpolation,
        index=layer.index,
        start=getattr(layer, "start", None),
        places=dict.fromkeys(d for dims in layer.dims.values() for d in dims),
    )
    prediction = eqx.filter_jit(layer)(given)
    if not bool(prediction.ok):
        raise ValueError("the solver does not get through the truth")
    return {name: np.asarray(values) for name, values in prediction.values.items()}


def normal(scale: float) -> Noise:
    return lambda rng, values: values + scale * rng.normal(size=values.shape)


def log_normal(scale: float) -> Noise:
    return lambda rng, values: values * np.exp(scale * rng.normal(size=values.shape))


def correlated(scale: float, correlation: float) -> Noise:
    """An AR(1) with a standard deviation."""

    def noise(rng, values):
        varies = scale * rng.normal(size=values.shape)
        for i in range(1, len(varies)):
            varies[i] = correlation * varies[i - 1] + np.sqrt(1 - correlation**2) * varies[i]
        return values + varies

    return noise


def along(
    name: str, values: Any, lowest: float = -np.inf, highest: float = np.inf
) -> tuple[Places, Places]:
    """Places of one input over the range of its values, and a tenth of it beyond both ends where
    that has a meaning.
    """
    low, high = float(np.min(values)), float(np.max(values))
    steps = REACH * (high - low) * np.arange(1, BEYOND // 2 + 1) / (BEYOND // 2)
    outside = np.concatenate([low - steps[::-1], high + steps])
    return {name: np.linspace(low, high, NEAR)}, {
        name: outside[(outside >= lowest) & (outside <= highest)]
    }


def around(points: Mapping[str, Any]) -> tuple[Places, Places]:
    """Some of the points of a cloud or a trajectory, and places as far as a tenth of its range away
    from its middle.
    """
    cloud = np.stack([np.asarray(values) for values in points.values()], 1)
    near = cloud[np.linspace(0, len(cloud) - 1, NEAR).round().astype(int)]
    unit, middle = np.ptp(cloud, axis=0), cloud.mean(0)
    away = (cloud - middle) / unit
    distance = np.sqrt((away**2).sum(1))
    far = [
        part[np.argmax(distance[part])] for part in np.array_split(np.arange(len(cloud)), BEYOND)
    ]
    outside = cloud[far] + REACH * unit * away[far] / distance[far, None]
    return dict(zip(points, near.T, strict=True)), dict(zip(points, outside.T, strict=True))


def real_file(name: str) -> Path:
    """A file of the folder that `BAYES_DASL_DATA` names.

    Raises: SystemExit if it is not there.
    """
    path = Path(os.environ.get("BAYES_DASL_DATA", "")) / name
    if not path.is_file():
        raise SystemExit(
            f"{name} is not in the folder that BAYES_DASL_DATA names; data sets from 1 on are "
            "simulated"
        )
    return path
