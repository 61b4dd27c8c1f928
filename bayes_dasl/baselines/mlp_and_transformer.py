"""Baselines without equations: functions of index and forcings."""

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

from .._jax.keys import as_key
from .._jax.tree import FrozenDict
from ..data.datasets import checked_times
from ..data.layer_inputs import Inputs
from ..errors import DataError, ModelError
from ..layers import AbstractLayer, Algebraic, Prediction
from ..layers.layer import predict_rows
from ..model import Model, is_series
from ..networks import Network, fan_in
from ..networks.network import bayesian, realised, standardised
from ..populations import varying
from ..priors import between
from ..random import Module, Values
from ..unknown_functions import bases
from ..unknown_functions.basis import Basis
from ._seen import Placed, Seen

# Number of basis functions of each Gaussian process.
_FEATURES = 30
_TRAITS = ("latent_trait_1", "latent_trait_2")


def mlp(model: Model, data: xr.Dataset, *, width: int = 16, depth: int = 2) -> Model:
    """Build a multilayer perceptron from index and forcings to the observables at the same time.

    If the index only counts rows, it is no input. For a population, each group has two latent
    traits: inputs that are inferred together with the weights. Doses and covariates are no inputs.

    Args:
        model: the model whose observables, forcings and noise the baseline has.
        data: the training data.
        width: the number of units of each hidden layer.
        depth: the number of hidden layers.

    Returns:
        The baseline.

    Raises:
        ModelError: if observables are fields.
        DataError: if an observable has no data.
    """
    seen = Seen.of(model, data, members=True)
    scales = seen.scales
    traits = _TRAITS if seen.of_members else ()
    inputs = seen.inputs | dict.fromkeys(traits, (0.0, 1.0))
    sizes: Any = {"width": width, "depth": depth}
    network: Any = Network.mlp(inputs, tuple(scales), 1.0, prior=fan_in(2.0), **sizes)
    function = _WithTraits(network, _effects_of_groups(traits)) if traits else network
    return seen.with_layer(Algebraic(Placed(function, scales), **seen.like))


def gaussian_process(model: Model, data: xr.Dataset) -> Model:
    """Build a sum of Gaussian processes of the index and each forcing, for each observable.

    Each process has an unknown length scale and amplitude (`bd.bases.HilbertGP`). Groups of a
    population share the processes, and each group has its own constant offset. If the index only
    counts rows, it is left out. Outside the range of the rows, with or without observations, a
    process is constant.

    Args:
        model: the model whose observables, forcings and noise the baseline has.
        data: the training data, with rows up to the last time of a forecast.

    Returns:
        The baseline.

    Raises:
        ModelError: if observables are fields.
        DataError: if an observable has no data, or all inputs are constant.
    """
    # 1. The range of each input, and the range of length scales along the index: from two steps to
    #    half of the span. Shorter scales cannot be learned, longer ones resemble a trend.
    seen = Seen.of(model, data, members=True)
    begin, end = seen.span
    spacing = float(np.median(np.diff(np.unique(checked_times(seen.data, model.index)))))
    ranges: dict[str, tuple[float, float, tuple[float, float] | None]] = {}
    if not seen.counts_rows:
        ranges["t"] = begin, end, (min(2 * spacing, (end - begin) / 4), (end - begin) / 2)
    for name in model.layer.forcings:
        values = seen.data[name].values
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        ranges |= {name: (low, high, None)} if high > low else {}
    if not ranges:
        raise DataError(
            "neither the index nor a forcing tells the rows apart: there is nothing to be a "
            "function of"
        )
    # 2. One process per observable and input.
    parts: dict[str, dict[str, Basis]] = {}
    for name in seen.scales:
        parts[name] = {}
        for of, (low, high, lengths) in ranges.items():
            length = lengths and between(*lengths)
            amplitude = dist.HalfNormal(2.0)
            family = bases.HilbertGP(low, high, _FEATURES, length=length, amplitude=amplitude)
            # Levels are added up, so only the first process has one.
            level = 0.0 if parts[name] else dist.Normal(0.0, 1.0)
            parts[name][of] = Basis(family, of, name, level=level)
    # 3. The sums of the processes, with a level for each group.
    sums: Any = _Sums(parts)
    if seen.of_members:
        sums = _WithLevels(sums, _effects_of_groups(seen.scales))
    return seen.with_layer(Algebraic(Placed(sums, seen.scales), **seen.like))


class _Sums(Module):
    """The sum of several functions for each output.

    `parts` holds the functions by output and input.
    """

    parts: dict[str, dict[str, Basis]]

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        found = {}
        for name, parts in self.parts.items():
            values = [part(t, y, u)[name] for part in parts.values()]
            found[name] = jnp.stack(values).sum(axis=0)
        return found


def _effects_of_groups(names: Iterable[str]) -> dict[str, Any]:
    """Return a standard normal random effect of each group, for each name."""
    return {name: varying(dist.Normal(0.0, 1.0)) for name in names}


class _WithTraits(Module):
    """A network with the latent traits of each group as additional inputs."""

    random_group: ClassVar[str] = "network"

    network: Network
    traits: dict[str, Any]

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        return self.network(t, y, {**u, **self.traits})


class _WithLevels(Module):
    """Functions that all groups share, plus a constant level for each group and output."""

    random_group: ClassVar[str] = "network"

    function: _Sums
    levels: dict[str, Any]

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        return {name: value + self.levels[name] for name, value in self.function(t, y, u).items()}


def transformer(
    model: Model,
    data: xr.Dataset,
    *,
    window: int = 16,
    width: int = 8,
    heads: int = 2,
    depth: int = 1,
) -> Model:
    """Build a transformer from the forcings in a window of times to the observables at its end.

    Args:
        model: the model whose observables, forcings and noise the baseline has.
        data: the training data, a series.
        window: the number of times in the window. Their distance is the median step of the data.
            Before the first time, forcings have their first value.
        width: the length of the vector that represents each time, a multiple of `heads`.
        heads: the number of attention heads.
        depth: the number of attention layers.

    Returns:
        The baseline.

    Raises:
        ModelError: if rows are no series, observables are fields, the model is a population, or
            sizes do not fit.
        DataError: if an observable has no data.

    Source: Vaswani et al. (2017), Attention is all you need; layer normalisation before each layer
    as in Xiong et al. (2020).
    """
    seen = Seen.of(model, data)
    if not is_series(model, data):
        raise ModelError(
            "a transformer over time needs a series: rows in any order have no times before them"
        )
    if width % heads or min(window, width, heads, depth) < 1:
        raise ModelError(
            f"the width {width} must be a multiple of the heads {heads}, and all sizes at least 1"
        )
    scales = seen.scales
    step = float(np.median(np.diff(np.unique(checked_times(seen.data, model.index)))))
    lags = tuple(step * number for number in range(window))
    # Only the shapes of the weights matter here: `bayesian` replaces the weights by priors.
    encoder = _Encoder(
        len(seen.inputs),
        len(scales),
        window,
        width,
        heads,
        depth,
        key=as_key(0),
    )
    network = _Attention(bayesian(encoder), seen.inputs, tuple(scales), lags)
    own = {"start": seen.span[0], "interpolation": model.layer.interpolation}
    return seen.with_layer(Windowed(Placed(network, scales), **seen.like, **own))


class _Block(eqx.Module):
    """A transformer block with normalised inputs.

    x ← x + attention(norm(x)), then x ← x + mlp(norm(x)), for x of shape (window, width)
    """

    attention: eqx.nn.MultiheadAttention
    network: eqx.nn.MLP

    def __call__(self, x):
        normed = _normed(x)
        x = x + self.attention(normed, normed, normed)
        return x + jax.vmap(self.network)(_normed(x))


def _normed(x):
    """Return the vector of each time, normalised to mean 0 and variance 1."""
    return jax.vmap(eqx.nn.LayerNorm(x.shape[-1], use_weight=False, use_bias=False))(x)


class _Encoder(eqx.Module):
    """A transformer from the inputs in a window, newest time first, to outputs at the newest time.

    Args:
        inputs: the number of inputs at each time.
        outputs: the number of outputs.
        window: the number of times in the window.
        width: the length of the vector that represents each time.
        heads: the number of attention heads.
        depth: the number of blocks.
        key: random seed of the weights.
    """

    embed: eqx.nn.Linear
    place: jax.Array
    blocks: list[_Block]
    read: eqx.nn.Linear

    def __init__(
        self,
        inputs: int,
        outputs: int,
        window: int,
        width: int,
        heads: int,
        depth: int,
        *,
        key: Any,
    ):
        keys = iter(jax.random.split(key, 3 + 2 * depth))
        self.embed = eqx.nn.Linear(inputs, width, key=next(keys))
        self.place = jax.random.normal(next(keys), (window, width))
        self.blocks = [
            _Block(
                eqx.nn.MultiheadAttention(heads, width, key=next(keys)),
                eqx.nn.MLP(width, width, 2 * width, 1, jax.nn.gelu, key=next(keys)),
            )
            for _ in range(depth)
        ]
        self.read = eqx.nn.Linear(width, outputs, key=next(keys))

    def __call__(self, x):
        # Attention ignores order, so a separate vector is added for each position in the window.
        x = jax.vmap(self.embed)(x) + self.place
        for block in self.blocks:
            x = block(x)
        return self.read(_normed(x)[0])


class _Attention(Module):
    """An encoder with random weights, applied to the inputs at several lags.

    Args:
        encoder: the encoder, with priors instead of weights.
        inputs: location and width of each input.
        outputs: the names of the outputs.
        lags: the time lags of the window, increasing from 0.
    """

    random_group: ClassVar[str] = "network"

    encoder: Any
    inputs: Mapping[str, tuple[float, float]] = eqx.field(static=True, converter=FrozenDict)
    outputs: tuple[str, ...] = eqx.field(static=True)
    lags: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        """Return the outputs at the newest time.

        Args:
            t: the times of the window, the newest first.
            y: unused.
            u: the forcings at these times, by name.

        Returns:
            The standardised outputs by name.
        """
        out = realised(self.encoder)(standardised(self.inputs, {"t": t, **u}))
        return {name: out[i] for i, name in enumerate(self.outputs)}


class Windowed(AbstractLayer):
    """A layer that applies a function to the forcings at a time and at earlier times.

    Args:
        function: a function `(t, y, u)`. Its t is an array of times, one for each lag, y is an
            empty dict, and u holds the forcings at these times. It is a `Placed` whose inner
            function has the attribute `lags`.
        forcings: the names of the forcings that the function uses.
        units: units of forcings and outputs.
        index: the name of the index of the data.
        start: the first time; before it forcings have their first value.
        interpolation: the interpolation of forcings that are not interpolated linearly, by name.
    """

    function: Placed
    forcings: tuple[str, ...] = eqx.field(static=True, kw_only=True)
    units: Mapping[str, str] = eqx.field(static=True, converter=FrozenDict, kw_only=True)
    index: str = eqx.field(default="time", static=True, kw_only=True)
    start: float = eqx.field(static=True, kw_only=True)
    interpolation: Mapping[str, str] = eqx.field(
        default=FrozenDict(), static=True, converter=FrozenDict, kw_only=True
    )

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs."""
        return tuple(self.function.scales)

    @property
    def pointwise(self) -> bool:
        """Whether a prediction at one time does not depend on other predictions: always true."""
        return True

    @property
    def trajectories(self) -> list:
        """Trajectories of states: none."""
        return []

    def __call__(self, inputs: Inputs) -> Prediction:
        lags = jnp.asarray(self.function.function.lags)

        def at(t):
            # Before the first time, forcings have their first value.
            times = jnp.maximum(t - lags, inputs.start)
            forced = {name: jax.vmap(inputs.forcings[name])(times) for name in self.forcings}
            return self.function(times, {}, forced)

        return predict_rows(jax.vmap(at), inputs.times, True)
