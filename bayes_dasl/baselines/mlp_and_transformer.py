"""Baselines without equations: networks and processes from index and forcings to observables."""

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

_FEATURES = 30
_TRAITS = ("latent_trait_1", "latent_trait_2")


def mlp(model: Model, data: xr.Dataset, *, width: int = 16, depth: int = 2) -> Model:
    """A multilayer perceptron from the index and the forcings at a time to the observables at that
    time.

    An index of whole numbers without a unit, of rows that are no series, is no input. Members of a
    population have two latent traits each, inputs that are inferred with the weights; doses, and
    what the science knows of members, are no inputs.

    Args:
        model: that whose observables, forcings and noise it has.
        data: the training data.
        width: units of each hidden layer.
        depth: hidden layers.

    Raises:
        ModelError: for fields.
        DataError: for an observable that was not seen.
    """
    seen = Seen.of(model, data, members=True)
    scales, traits = seen.scales, _TRAITS if seen.of_members else ()
    inputs = seen.inputs | dict.fromkeys(traits, (0.0, 1.0))
    network: Any = Network.mlp(
        inputs, tuple(scales), 1.0, width=width, depth=depth, prior=fan_in(2.0)
    )
    function = _WithTraits(network, _of_each_member(traits)) if traits else network
    return seen.with_layer(Algebraic(Placed(function, scales), **seen.like))


def gaussian_process(model: Model, data: xr.Dataset) -> Model:
    """A sum of Gaussian processes, of the index and of each forcing, for each observable.

    Each has a length and an amplitude that are unknown (`bd.bases.HilbertGP`). Members of a
    population have the same processes, and a level of their own for each observable. An index that
    only counts rows is left out. Outside the range of the data, rows without observations included,
    a process stays what it was at the end.

    Args:
        model: that whose observables, forcings and noise it has.
        data: the training data, with rows up to the last time of a forecast.

    Raises:
        ModelError: for fields.
        DataError: for an observable that was not seen.
    """
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
    parts = {}
    for name in seen.scales:
        families = {
            of: bases.HilbertGP(
                low,
                high,
                _FEATURES,
                length=lengths and between(*lengths),
                amplitude=dist.HalfNormal(2.0),
            )
            for of, (low, high, lengths) in ranges.items()
        }
        levels = {of: 0.0 if i else dist.Normal(0.0, 1.0) for i, of in enumerate(families)}
        parts[name] = {
            of: Basis(family, of, name, level=levels[of]) for of, family in families.items()
        }
    sums = (
        _WithLevels(_Sums(parts), _of_each_member(seen.scales)) if seen.of_members else _Sums(parts)
    )
    return seen.with_layer(Algebraic(Placed(sums, seen.scales), **seen.like))


class _Sums(Module):
    """For each output the sum of some functions."""

    parts: dict[str, dict[str, Basis]]

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        each = {
            name: [part(t, y, u)[name] for part in parts.values()]
            for name, parts in self.parts.items()
        }
        return {name: jnp.stack(values).sum(axis=0) for name, values in each.items()}


def _of_each_member(names: Iterable[str]) -> dict[str, Any]:
    """A number for each name that every member has its own of, standard normal between them."""
    return {name: varying(dist.Normal(0.0, 1.0)) for name in names}


class _WithTraits(Module):
    """A network that has latent traits of each member as inputs, beside the forcings."""

    random_group: ClassVar[str] = "network"

    network: Network
    traits: dict[str, Any]

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        return self.network(t, y, {**u, **self.traits})


class _WithLevels(Module):
    """Functions that are the same for all members, but for a level of each."""

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
    """A transformer over time: an observable is told by attention over the forcings at the times
    before it.

    Args:
        model: that whose observables, forcings and noise it has.
        data: the training data, a series.
        window: how many times it looks at: that of the observable and those before it, a typical
            step of the data apart. Before the first time the forcings are what they are then.
        width: numbers that stand for each time, a multiple of `heads`.
        heads: of the attention.
        depth: layers of attention.

    Raises:
        ModelError: for rows that are no series, fields and populations, and sizes that do not fit.
        DataError: for an observable that was not seen.

    Source: Vaswani et al. (2017), Attention is all you need; the norm before each layer of Xiong et
    al. (2020).
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
    encoder = _Encoder(len(seen.inputs), len(scales), window, width, heads, depth, key=as_key(0))
    network = _Attention(
        bayesian(encoder), seen.inputs, tuple(scales), tuple(step * k for k in range(window))
    )
    return seen.with_layer(
        Windowed(
            Placed(network, scales),
            **seen.like,
            start=seen.span[0],
            interpolation=model.layer.interpolation,
        )
    )


class _Block(eqx.Module):
    """Attention, then a network for each time, each added to what was there."""

    attention: eqx.nn.MultiheadAttention
    network: eqx.nn.MLP

    def __call__(self, x):
        x = x + self._attended(_normed(x))
        return x + jax.vmap(self.network)(_normed(x))

    def _attended(self, x):
        return self.attention(x, x, x)


def _normed(x):
    return jax.vmap(eqx.nn.LayerNorm(x.shape[-1], use_weight=False, use_bias=False))(x)


class _Encoder(eqx.Module):
    """From what is known at each time of a window, the newest first,
    to the outputs at the newest.
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
        x = jax.vmap(self.embed)(x) + self.place
        for block in self.blocks:
            x = block(x)
        return self.read(_normed(x)[0])


class _Attention(Module):
    """An encoder whose weights are random, over what drives it at several lags."""

    random_group: ClassVar[str] = "network"

    encoder: Any
    inputs: Mapping[str, tuple[float, float]] = eqx.field(static=True, converter=FrozenDict)
    outputs: tuple[str, ...] = eqx.field(static=True)
    lags: tuple[float, ...] = eqx.field(static=True)

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        """The outputs at a time.

        Args:
            t: the times of the window, the newest first.
            y: nothing.
            u: the forcings at these times, by name.
        """
        out = realised(self.encoder)(standardised(self.inputs, {"t": t, **u}))
        return {name: out[i] for i, name in enumerate(self.outputs)}


class Windowed(AbstractLayer):
    """A function of the forcings at a time and at times before it.

    Args:
        function: a function `(t, y, u)` of `(lag,)` times, an empty dict, and the forcings then;
            its part `function` says at which `lags`.
        forcings: the data variables that it reads.
        units: those of forcings and outputs.
        index: the coordinate that the data run along.
        start: the first of its values, before which the forcings are what they are then.
        interpolation: which forcings are not linear between their data.
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
        return tuple(self.function.scales)

    @property
    def pointwise(self) -> bool:
        return True

    @property
    def trajectories(self) -> list:
        return []

    def __call__(self, inputs: Inputs) -> Prediction:
        lags = jnp.asarray(self.function.function.lags)

        def at(t):
            times = jnp.maximum(t - lags, inputs.start)
            forced = {name: jax.vmap(inputs.forcings[name])(times) for name in self.forcings}
            return self.function(times, {}, forced)

        return predict_rows(jax.vmap(at), inputs.times, True)
