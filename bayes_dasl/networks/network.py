"""Networks whose weights are random variables."""

import copy
import math
from collections.abc import Callable, Mapping
from numbers import Integral
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
from jaxtyping import Array, Float

from .._jax.keys import as_key
from .._jax.tree import FrozenDict, dotted, parts_inside
from ..errors import ModelError
from ..random import Module, Scalar, Values, is_random, shape_of
from .fourier import Fourier
from .weights import AbstractWeights, WeightPrior, fan_in

_REACH = 2.5  # widths of an input to either side of its middle that a figure shows
_FADED = 3.0  # widths from the middle at which what fades has half its size


class _Shaped(Module):
    """Weights of a basis as an array of a network."""

    weights: AbstractWeights
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self) -> Array:
        return self.weights().reshape(self.shape)


def _is_shaped(node: Any) -> bool:
    return isinstance(node, _Shaped)


def bayesian(
    module: Any, prior: WeightPrior | None = None, random: str | tuple[str, ...] = "all"
) -> Any:
    """The arrays of a module become random leaves, or those that are to be `random`;
    see `Network`.
    """
    prior = fan_in() if prior is None else prior
    arrays = [
        dotted(path)
        for path, leaf in jtu.tree_flatten_with_path(module, is_leaf=is_random)[0]
        if _is_weight(leaf)
    ]
    chosen = _chosen(module, arrays, random)

    def replaced(path: Any, leaf: Any) -> Any:
        name = dotted(path)
        if not _is_weight(leaf) or name not in chosen:
            return leaf
        # One object may be the prior of several arrays, each with numbers of its own.
        found = jax.tree.map(
            lambda x: copy.copy(x) if is_random(x) else x, prior(name, leaf), is_leaf=is_random
        )
        if isinstance(found, AbstractWeights):
            return _Shaped(found, leaf.shape)
        if not is_random(found) or shape_of(found) != leaf.shape:
            raise ModelError(
                f"the prior of '{name}' must be a distribution of shape {leaf.shape}, not {found!r}"
            )
        return found

    return jtu.tree_map_with_path(replaced, module, is_leaf=is_random)


def _is_weight(leaf: Any) -> bool:
    return eqx.is_inexact_array(leaf)


def _chosen(module: Any, arrays: list[str], random: str | tuple[str, ...]) -> list[str]:
    if random == "all":
        return arrays
    layers = linear_layers(module)
    wanted = (
        tuple(layers[-1:])
        if random == "last"
        else (random,)
        if isinstance(random, str)
        else tuple(random)
    )
    chosen = [name for name in arrays if any(name == w or name.startswith(f"{w}.") for w in wanted)]
    if not chosen or not all(any(n == w or n.startswith(f"{w}.") for n in arrays) for w in wanted):
        raise ModelError(
            f"random must be 'all', 'last' or some of {', '.join(layers or arrays)}, not {random!r}"
        )
    return chosen


class Network(Module):
    r"""A Bayesian network between named values.

    $g(x) = s\,u\,\mathrm{net}\!\left((x - m) / w\right)$, weights $\sim N(0, 1/\text{fan-in})$

    Take a smooth activation: a solver's error control does not like kinks. `Network.mlp` builds a
    module from names alone.

    Its random leaves form the group *network*; all others are *science*.

    Args:
        module: any Equinox module from a vector to a vector, for example `eqx.nn.MLP`, or what
            `from_flax` and `from_haiku` make of theirs; its arrays become random leaves.
        inputs: names of states, forcings or `"t"`: a mapping name → (location m, width w), in the
            units of the input, standardises them (see `standardise`), a tuple of names takes them
            as they are; of fields it is taken at every point.
        outputs: the names of what it returns, in the order of the module's outputs; a mapping name
            → unit u measures them in multiples of that, as of the rates that the science has (see
            `corrected`).
        scale: s, about the standard deviation of the outputs under the prior, in these units: keep
            it small for a correction, or give a distribution to learn it (weights are then drawn
            for a scale of one and multiplied by it).
        prior: the prior of each array: `fan_in()` unless given, `sparse(few)`, or a function of its
            name and value.
        random: which arrays are random: "all" of them, those of the "last" layer, or those of
            layers by name, such as `("layers.2",)`; the others stay what they are in `module`.
        fades: whether it goes to zero far from the middle of its inputs, where it has seen no data:
            with $1 / (1 + (r / 3)^8)$, of the root mean square r of the standardised inputs.

    Raises:
        ModelError: if the sizes of `module` do not match the names, for a prior of another shape,
            for an input whose location and width are no such pair, or for a known scale that is not
            positive.

    Source: Neal (1996) for the scale of weights; Sharma et al. (2023) for networks that are random
    in part.

    Example:
        ```python
        network = bd.Network.mlp({"y": (1.0, 0.5)}, ("y",), scale=0.1, width=4, depth=1)
        field = bd.Residual(Decay(bd.between(0.1, 1.0)), network)
        ```
    """

    random_group: ClassVar[str] = "network"

    module: Any
    inputs: Mapping[str, tuple[float, float]] = eqx.field(static=True)
    outputs: tuple[str, ...] = eqx.field(static=True)
    scale: Scalar = 1.0
    units: tuple[float, ...] = eqx.field(default=(), static=True)
    fades: bool = eqx.field(default=False, static=True)

    def __init__(
        self,
        module: Any,
        inputs: Mapping[str, tuple[float, float]] | tuple[str, ...],
        outputs: Mapping[str, float] | tuple[str, ...],
        scale: Scalar = 1.0,
        *,
        prior: WeightPrior | None = None,
        random: str | tuple[str, ...] = "all",
        fades: bool = False,
    ):
        self.inputs, self.outputs, self.scale = named_values(
            type(self).__name__, inputs, outputs, scale
        )
        self.units, self.fades = _units(outputs), fades
        _check_sizes(module, len(self.inputs), len(self.outputs))
        self.module = bayesian(module, prior, random)

    @classmethod
    def mlp(
        cls,
        inputs: Mapping[str, tuple[float, float]] | tuple[str, ...],
        outputs: Mapping[str, float] | tuple[str, ...],
        scale: Scalar = 1.0,
        *,
        width: int = 8,
        depth: int = 2,
        activation: Callable = jnp.tanh,
        key: int = 0,
        **more: Any,
    ) -> "Network":
        """A multilayer perceptron.

        Args:
            inputs: as for `Network`.
            outputs: the names of what it returns, or these with units, as for `Network`.
            scale: as for `Network`.
            width: units of each hidden layer.
            depth: hidden layers.
            activation: a function of one number, smooth at best.
            key: a whole number, from which the arrays are drawn that stay known.
            more: `prior`, `random` and `fades` of `Network`.

        Raises:
            ModelError: as for `Network`, and for a width or a depth that there cannot be.
        """
        if (
            not isinstance(width, Integral)
            or not isinstance(depth, Integral)
            or width < 1
            or depth < 0
        ):
            raise ModelError(
                f"width must be a whole number, at least 1, and depth at least 0: not {width!r}, "
                f"{depth!r}"
            )
        size = len(inputs), len(outputs)
        module = eqx.nn.MLP(*size, width, depth, activation, key=as_key(key))
        return cls(module, inputs, outputs, scale, **more)

    @classmethod
    def fourier(
        cls,
        inputs: Mapping[str, tuple[float, float]] | tuple[str, ...],
        outputs: Mapping[str, float] | tuple[str, ...],
        scale: Scalar = 1.0,
        *,
        size: int = 20,
        length: float = 2.0,
    ) -> "Network":
        """A smooth function by random Fourier features, nearly a Gaussian process, with a linear
        trend.

        It is linear in its random weights, so that it is easier to sample than a perceptron. Beyond
        the range of its inputs the trend goes on, and the uncertainty grows with the distance.

        Args:
            inputs: as for `Network`.
            outputs: as for `Network`.
            scale: as for `Network`.
            size: the number of features.
            length: the length over which the function changes, in standardised inputs; shorter
                lengths bend more.

        Raises:
            ModelError: as for `Network`, and for an impossible size or length.

        Source: Rahimi & Recht (2007), Random features for large-scale kernel machines.
        """
        if not isinstance(size, Integral) or size < 1 or not 0 < length < math.inf:
            raise ModelError(
                f"size must be a whole number from 1 on, and length positive: not {size!r}, "
                f"{length!r}"
            )
        module = Fourier(len(inputs), len(outputs), size, length)
        return cls(module, inputs, outputs, scale, prior=module.prior, random="last")

    @property
    def drawn_over(self) -> dict[str, tuple[float, float]]:
        """The range of each input that a figure of the function shows: 2.5 of its widths to either
        side.
        """
        return {
            name: (middle - _REACH * width, middle + _REACH * width)
            for name, (middle, width) in self.inputs.items()
        }

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        features = standardised(self.inputs, {"t": t, **u, **y})
        out = jnp.asarray(self.scale) * _pointwise(realised(self.module), features)
        if self.fades:
            square = jnp.mean(features**2, axis=-1, keepdims=True)
            out = out / (1 + (square / _FADED**2) ** 4)
        if self.units:
            with jax.ensure_compile_time_eval():
                units = jnp.asarray(self.units)
            out = out * units
        return {name: out[..., i] for i, name in enumerate(self.outputs)}


def linear_layers(tree: Any) -> list[str]:
    """The dotted paths of the linear layers inside a tree, in their order."""
    is_linear = lambda node: isinstance(node, eqx.nn.Linear)  # noqa: E731
    return [path for path, _ in parts_inside(tree, is_linear)]


def networks(tree: Any) -> list[tuple[str, Network]]:
    """The networks inside a tree, with their dotted paths."""
    return parts_inside(tree, lambda node: isinstance(node, Network))


def _pointwise(module: Any, features: Float[Array, "... inputs"]) -> Float[Array, "... outputs"]:
    """The module at every point of a field."""
    for _ in range(features.ndim - 1):
        module = jax.vmap(module)
    return module(features)


type Standardising = Mapping[str, tuple[float, float]]


def named_values(
    kind: str, inputs: Any, outputs: Any, scale: Any
) -> tuple[Standardising, tuple[str, ...], Any]:
    """The inputs with a location and a width each, the names of the outputs, and their scale, as a
    network keeps them.

    Raises:
        ModelError: for a name in place of several, two outputs of one name, a pair that
            standardises nothing, or a scale that is not positive.
    """
    if isinstance(inputs, str) or isinstance(outputs, str):
        raise ModelError("inputs and outputs must be tuples of names, such as ('hare', 'lynx')")
    if len({*outputs}) < len(tuple(outputs)):
        raise ModelError(f"two outputs have one name, in {tuple(outputs)!r}: give each its own")
    if isinstance(scale, float | int) and not 0 < scale < math.inf:
        raise ModelError(
            f"{kind}.scale must be a positive number, or a distribution, not {scale!r}"
        )
    named = (
        inputs.items() if isinstance(inputs, Mapping) else ((name, (0.0, 1.0)) for name in inputs)
    )
    return (
        FrozenDict((name, _standardising(name, pair)) for name, pair in named),
        tuple(outputs),
        scale,
    )


def standardised(inputs: Standardising, known: Mapping[str, Any]) -> Float[Array, "... inputs"]:
    """The inputs of a network, of what is known by name.

    Raises:
        ModelError: for an input that is not known.
    """
    missing = [name for name in inputs if name not in known]
    if missing:
        raise ModelError(f"network input {', '.join(missing)} is none of {', '.join(known)}")
    features = jnp.stack(
        jnp.broadcast_arrays(*(jnp.asarray(known[name]) for name in inputs)), axis=-1
    )
    # Arrays, not numbers: compiled programs take them as arguments, and serve other data too.
    with jax.ensure_compile_time_eval():
        location, width = jnp.asarray(list(inputs.values())).T
    return (features - location) / width


def realised(module: Any) -> Any:
    """A module whose weights are arrays, made of those of a basis where a prior gave it these."""
    return jax.tree.map(
        lambda node: node() if _is_shaped(node) else node, module, is_leaf=_is_shaped
    )


def _units(outputs: Any) -> tuple[float, ...]:
    """Raise ModelError unless each unit is a positive number."""
    if not isinstance(outputs, Mapping):
        return ()
    for name, unit in outputs.items():
        if not (isinstance(unit, float | int) and 0 < unit < math.inf):
            raise ModelError(
                f"the unit of the network output '{name}' must be a positive number, not {unit!r}"
            )
    return tuple(map(float, outputs.values()))


def _standardising(name: str, pair: Any) -> tuple[float, float]:
    """Raise ModelError unless a pair is a location and a width by which an input can be
    standardised.
    """
    try:
        location, width = map(float, pair)
    except (TypeError, ValueError):
        location = width = math.nan
    if not (math.isfinite(location) and 0 < width < math.inf):
        raise ModelError(
            f"network input '{name}' needs a pair (location, width), the width positive, not "
            f"{pair!r}"
        )
    return location, width


def _check_sizes(module: Any, inputs: int, outputs: int) -> None:
    try:
        shape = jax.eval_shape(
            module, jax.ShapeDtypeStruct((inputs,), jnp.result_type(float))
        ).shape
    except (TypeError, ValueError, RuntimeError) as error:
        is_dropout = lambda node: isinstance(node, eqx.nn.Dropout)  # noqa: E731
        drops = any(map(is_dropout, jax.tree.leaves(module, is_leaf=is_dropout)))
        hint = (
            "; leave dropout layers out: the engine bd.engines.MCDropout needs none"
            if drops
            else ""
        )
        raise ModelError(
            f"the network does not take a vector of {inputs} inputs: {error}{hint}"
        ) from error
    if shape != (outputs,):
        raise ModelError(
            f"the network returns shape {shape}, but {outputs} outputs are named: want ({outputs},)"
        )
