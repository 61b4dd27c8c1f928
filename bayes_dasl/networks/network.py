"""`Network`: neural networks whose weights are random leaves."""

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

# Range of an input in figures, in widths on either side of its location.
_REACH = 2.5
# Root mean square of the standardised inputs at which a network that fades has half its size.
_FADED = 3.0


class _Shaped(Module):
    """Weights with a shrinkage prior that stand for an array of a network.

    Args:
        weights: the prior, which holds random leaves.
        shape: the shape of the array.
    """

    weights: AbstractWeights
    shape: tuple[int, ...] = eqx.field(static=True)

    def __call__(self) -> Array:
        return self.weights().reshape(self.shape)


def _is_shaped(node: Any) -> bool:
    return isinstance(node, _Shaped)


def bayesian(
    module: Any, prior: WeightPrior | None = None, random: str | tuple[str, ...] = "all"
) -> Any:
    """Replace arrays of a module by random leaves.

    Args:
        module: an Equinox module.
        prior: the prior of each array, as for `Network`; by default `fan_in()`.
        random: the arrays to replace, as for `Network`.

    Returns:
        The module with distributions in place of arrays.

    Raises:
        ModelError: if `random` names no array, or a prior has another shape than its array.
    """
    prior = fan_in() if prior is None else prior
    arrays = [
        dotted(path)
        for path, leaf in jtu.tree_flatten_with_path(module, is_leaf=is_random)[0]
        if _is_weight(leaf)
    ]
    chosen = _random_arrays(module, arrays, random)

    def replaced(path: Any, leaf: Any) -> Any:
        name = dotted(path)
        if not _is_weight(leaf) or name not in chosen:
            return leaf
        # Copy priors, since one prior object in several places is refused as unintended sharing.
        copied = lambda x: copy.copy(x) if is_random(x) else x  # noqa: E731
        found = jax.tree.map(copied, prior(name, leaf), is_leaf=is_random)
        if isinstance(found, AbstractWeights):
            return _Shaped(found, leaf.shape)
        if not is_random(found) or shape_of(found) != leaf.shape:
            raise ModelError(
                f"the prior of '{name}' must be a distribution of shape {leaf.shape}, not {found!r}"
            )
        return found

    return jtu.tree_map_with_path(replaced, module, is_leaf=is_random)


def _is_weight(leaf: Any) -> bool:
    """Whether a leaf is an array of weights or biases."""
    return eqx.is_inexact_array(leaf)


def _random_arrays(module: Any, arrays: list[str], random: str | tuple[str, ...]) -> list[str]:
    """Return the names of the arrays that become random.

    Args:
        module: the module.
        arrays: the dotted names of all its arrays of weights and biases.
        random: as for `Network`.

    Raises:
        ModelError: if a name in `random` matches no array.
    """
    if random == "all":
        return arrays
    layers = linear_layers(module)
    wanted = (random,) if isinstance(random, str) else tuple(random)
    if random == "last":
        wanted = tuple(layers[-1:])
    # A name stands for an array, or for all arrays of a layer.
    of_each = {w: [n for n in arrays if n == w or n.startswith(f"{w}.")] for w in wanted}
    chosen = [n for n in arrays if any(n in names for names in of_each.values())]
    if not chosen or not all(of_each.values()):
        raise ModelError(
            f"random must be 'all', 'last' or some of {', '.join(layers or arrays)}, not {random!r}"
        )
    return chosen


class Network(Module):
    r"""A Bayesian neural network: a function of named inputs with named outputs.

    $g(x) = s\,u\,\mathrm{net}\!\left((x - m) / w\right)$, weights $\sim N(0, 1/\text{fan-in})$

    x are the inputs, m and w their locations and widths, net is the module, u the units of the
    outputs and s the scale.

    `Network.mlp` builds a multilayer perceptron from the names alone. Use a smooth activation,
    since kinks slow down the error control of a solver. The random leaves of networks form the
    group *network*; all other random leaves form the group *science*.

    Args:
        module: an Equinox module that maps a vector to a vector, such as `eqx.nn.MLP`, or the
            result of `from_flax` or `from_haiku`. Its arrays become random leaves.
        inputs: the names of the inputs: states, forcings or `"t"`. A dict `{name: (m, w)}`, in the
            units of the input, standardises them (see `bd.standardise`). A tuple of names leaves
            them unchanged. If inputs are arrays over points in space, the network is evaluated at
            each point.
        outputs: the names of the outputs, in the order of the module. A dict `{name: u}` multiplies
            each output by a unit, such as the typical rate of the science (see `bd.corrected`).
        scale: s, about the prior standard deviation of the outputs divided by u. Use a small number
            for a correction, or a distribution to infer s.
        prior: the prior of each array: `fan_in()` by default, `sparse(few)`, or a function of the
            name and the value of the array.
        random: the arrays that become random: "all", those of the "last" layer, or those of named
            layers, such as `("layers.2",)`. All other arrays keep their values.
        fades: whether the network tends to zero far from its data. It is then multiplied by
            $1 / (1 + (r / 3)^8)$, with r the root mean square of the standardised inputs.

    Raises:
        ModelError: if the sizes of `module` differ from the numbers of names, or if a prior has
            another shape than its array. Also if an input has no valid location and width, or if a
            known scale is not positive.

    Source: Neal (1996) for the scale of weights; Sharma et al. (2023) for partially random
    networks.

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
        self.units = _output_units(outputs)
        self.fades = fades
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
        """Return a multilayer perceptron.

        Args:
            inputs: as for `Network`.
            outputs: as for `Network`.
            scale: as for `Network`.
            width: the number of units of each hidden layer.
            depth: the number of hidden layers.
            activation: the function of one number after each hidden layer, preferably smooth.
            key: the random seed of the arrays, for arrays that do not become random leaves.
            more: the arguments `prior`, `random` and `fades` of `Network`.

        Returns:
            The network.

        Raises:
            ModelError: as for `Network`, or if width or depth is no whole number or too small.
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
        """Return a network of random Fourier features, which are about a Gaussian process.

        The function is smooth and includes a linear trend. It is linear in its random weights, so
        that their posterior is easier to sample than that of a perceptron. Outside the range of the
        data the trend continues, and the uncertainty grows with the distance.

        Args:
            inputs: as for `Network`.
            outputs: as for `Network`.
            scale: as for `Network`.
            size: the number of features.
            length: the length over which the function changes, in units of standardised inputs. A
                shorter length gives a more variable function.

        Returns:
            The network.

        Raises:
            ModelError: as for `Network`, or if size or length is not positive.

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
        """The range (low, high) of each input in figures, by name.

        It is 2.5 widths on either side of the location.
        """
        return {
            name: (middle - _REACH * width, middle + _REACH * width)
            for name, (middle, width) in self.inputs.items()
        }

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        features = standardised(self.inputs, {"t": t, **u, **y})
        out = jnp.asarray(self.scale) * _pointwise(realised(self.module), features)
        # Far from the data the network vanishes like r^-8.
        if self.fades:
            square = jnp.mean(features**2, axis=-1, keepdims=True)
            out = out / (1 + (square / _FADED**2) ** 4)
        # As arrays, not Python numbers, units are no part of the compiled program.
        if self.units:
            with jax.ensure_compile_time_eval():
                units = jnp.asarray(self.units)
            out = out * units
        return {name: out[..., i] for i, name in enumerate(self.outputs)}


def linear_layers(tree: Any) -> list[str]:
    """List the dotted paths of the `eqx.nn.Linear` layers in a tree, in order."""
    is_linear = lambda node: isinstance(node, eqx.nn.Linear)  # noqa: E731
    return [path for path, _ in parts_inside(tree, is_linear)]


def networks(tree: Any) -> list[tuple[str, Network]]:
    """List the dotted path and the object of each `Network` in a tree."""
    return parts_inside(tree, lambda node: isinstance(node, Network))


def _pointwise(module: Any, features: Float[Array, "... inputs"]) -> Float[Array, "... outputs"]:
    """Apply a module to the last axis of an array, at every point of its other axes."""
    for _ in range(features.ndim - 1):
        module = jax.vmap(module)
    return module(features)


type Standardising = Mapping[str, tuple[float, float]]


def named_values(
    kind: str, inputs: Any, outputs: Any, scale: Any
) -> tuple[Standardising, tuple[str, ...], Any]:
    """Validate the arguments `inputs`, `outputs` and `scale` of a network.

    Args:
        kind: the name of the network's class, for error messages.
        inputs: as for `Network`.
        outputs: as for `Network`.
        scale: as for `Network`.

    Returns:
        The pair (location, width) of each input by name, the names of the outputs, and the scale.
        Without standardisation the pair is (0, 1).

    Raises:
        ModelError: if names are one text in place of a tuple, or if two outputs have one name. Also
            if an input has no valid location and width, or if a known scale is not positive.
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
    """Return the standardised inputs of a network as one array.

    Args:
        inputs: the pair (location, width) of each input, by name.
        known: the values of all states, forcings and the time, by name.

    Returns:
        The standardised inputs, stacked along the last axis.

    Raises:
        ModelError: if `known` lacks an input.
    """
    missing = [name for name in inputs if name not in known]
    if missing:
        raise ModelError(f"network input {', '.join(missing)} is none of {', '.join(known)}")
    features = jnp.stack(
        jnp.broadcast_arrays(*(jnp.asarray(known[name]) for name in inputs)), axis=-1
    )
    # As arrays, not Python numbers, they are no part of the compiled program.
    with jax.ensure_compile_time_eval():
        location, width = jnp.asarray(list(inputs.values())).T
    return (features - location) / width


def realised(module: Any) -> Any:
    """Replace the `_Shaped` weights in a module, whose leaves have numbers, by their arrays."""
    return jax.tree.map(
        lambda node: node() if _is_shaped(node) else node, module, is_leaf=_is_shaped
    )


def _output_units(outputs: Any) -> tuple[float, ...]:
    """Return the unit of each output; empty if outputs are a tuple of names.

    Raises:
        ModelError: if a unit is not positive.
    """
    if not isinstance(outputs, Mapping):
        return ()
    for name, unit in outputs.items():
        if not (isinstance(unit, float | int) and 0 < unit < math.inf):
            raise ModelError(
                f"the unit of the network output '{name}' must be a positive number, not {unit!r}"
            )
    return tuple(map(float, outputs.values()))


def _standardising(name: str, pair: Any) -> tuple[float, float]:
    """Validate the pair (location, width) of an input and return it as floats.

    Raises:
        ModelError: if the pair is invalid.
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
    """Raise ModelError unless a module maps a vector of `inputs` numbers to one of `outputs`."""
    try:
        shape = jax.eval_shape(
            module, jax.ShapeDtypeStruct((inputs,), jnp.result_type(float))
        ).shape
    except (TypeError, ValueError, RuntimeError) as error:
        is_dropout = lambda node: isinstance(node, eqx.nn.Dropout)  # noqa: E731
        drops = any(map(is_dropout, jax.tree.leaves(module, is_leaf=is_dropout)))
        dropout = "; leave dropout layers out: the engine bd.engines.MCDropout needs none"
        hint = dropout if drops else ""
        raise ModelError(
            f"the network does not take a vector of {inputs} inputs: {error}{hint}"
        ) from error
    if shape != (outputs,):
        raise ModelError(
            f"the network returns shape {shape}, but {outputs} outputs are named: want ({outputs},)"
        )
