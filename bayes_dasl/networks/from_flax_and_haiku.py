"""`from_flax`, `from_haiku`: convert networks of other libraries to modules for `Network`."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import ModelError

type Arrays = dict[str, Array]


class Adapted(eqx.Module):
    """A network of another library, as an Equinox module with its arrays by dotted name.

    The output axis of an array is its first axis, as in Equinox, since priors of weights expect
    this. In the other libraries it is the last axis.

    Args:
        arrays: the arrays by dotted name, with the output axis last.
        apply: a function of the arrays by name and the input that returns the output.
    """

    arrays: Arrays
    apply: Callable[[Arrays, Array], Any] = eqx.field(static=True)

    def __init__(self, arrays: Mapping[str, Any], apply: Callable[[Arrays, Array], Any]):
        self.arrays = {
            name: jnp.moveaxis(jnp.asarray(value, float), -1, 0) for name, value in arrays.items()
        }
        self.apply = apply

    def __call__(self, x: Float[Array, " inputs"]) -> Any:
        return self.apply(
            {name: jnp.moveaxis(value, 0, -1) for name, value in self.arrays.items()}, x
        )


def from_flax(module: Any) -> Adapted:
    """Convert a Flax NNX module to a module for `Network`.

    Use it as `bd.Network(bd.networks.from_flax(module), inputs, outputs)`. The module must map a
    vector to a vector, and dropout must be deterministic.

    Args:
        module: the `flax.nnx.Module`. In a `Network` its `nnx.Param`s become random leaves, named
            as in the module, for example `arrays.hidden.kernel`.

    Returns:
        The module for `Network`.

    Raises:
        ModelError: if Flax is not installed, if `module` is no NNX module, or if it holds arrays
            that are no `nnx.Param`, as batch normalisation does.
    """
    try:
        from flax import nnx
    except ImportError as error:
        raise ModelError(
            "from_flax needs Flax, which is not installed: pip install flax"
        ) from error
    if not isinstance(module, nnx.Module):
        raise ModelError(f"from_flax takes a flax.nnx.Module, not {module!r}")
    definition, params, rest = nnx.split(module, nnx.Param, ...)
    kept = [leaf for leaf in jax.tree.leaves(rest) if eqx.is_inexact_array(leaf)]
    if kept:
        raise ModelError(
            f"{type(module).__name__} keeps numbers that are no nnx.Param, as batch normalisation "
            "does: what it says would depend on data that it saw before; leave these layers out"
        )
    held = {tuple(path): jnp.asarray(value) for path, value in _flat(nnx.to_pure_dict(params))}
    names = {".".join(map(str, path)): path for path in held}

    def apply(arrays: Arrays, x: Array) -> Any:
        # A copy, because NNX replaces arrays in place.
        state = jax.tree.map(lambda leaf: leaf, params)
        nested = _nested({names[name]: value for name, value in arrays.items()})
        nnx.replace_by_pure_dict(state, nested)
        return nnx.merge(definition, state, rest)(x)

    return Adapted({name: held[path] for name, path in names.items()}, apply)


def from_haiku(transformed: Any, params: Any) -> Adapted:
    """Convert a transformed Haiku function to a module for `Network`.

    The function must map a vector to a vector. It is called without a random key.

    Args:
        transformed: the result of `hk.transform(f)`.
        params: the result of `transformed.init`. In a `Network` its arrays become random leaves.
            For example, the array `w` of `mlp/~/linear_0` is named `arrays.mlp.linear_0.w`.

    Returns:
        The module for `Network`.

    Raises:
        ModelError: if the arguments are of another type, or the function has state.
    """
    apply_of: Any = getattr(transformed, "apply", None)
    taken = inspect.signature(apply_of).parameters if callable(apply_of) else {}
    if "state" in taken:
        raise ModelError(
            "from_haiku takes a function without state: hk.transform, not hk.transform_with_state"
        )
    if "params" not in taken or not isinstance(params, Mapping):
        raise ModelError(
            "from_haiku takes what hk.transform returned and the parameters that its init returned"
        )
    places = {
        f"{module.replace('/~/', '.').replace('/', '.')}.{name}": (module, name)
        for module, arrays in params.items()
        for name in arrays
    }
    no_key = (None,) if "rng" in taken else ()

    def apply(arrays: Arrays, x: Array) -> Any:
        return apply_of(
            _nested({places[name]: value for name, value in arrays.items()}), *no_key, x
        )

    return Adapted(
        {dotted: params[module][name] for dotted, (module, name) in places.items()}, apply
    )


def _flat(
    tree: Mapping[Any, Any], before: tuple[Any, ...] = ()
) -> list[tuple[tuple[Any, ...], Any]]:
    """List the leaves of nested dicts.

    Args:
        tree: the nested dicts.
        before: the keys from an outer dict to `tree`.

    Returns:
        Pairs of the path, a tuple of keys, and the leaf.
    """
    found = []
    for key, value in tree.items():
        path = (*before, key)
        found += _flat(value, path) if isinstance(value, Mapping) else [(path, value)]
    return found


def _nested(flat: Mapping[tuple[Any, ...], Any]) -> dict[Any, Any]:
    """Build nested dicts from leaves by path, the inverse of `_flat`."""
    tree: dict[Any, Any] = {}
    for path, value in flat.items():
        node = tree
        for key in path[:-1]:
            node = node.setdefault(key, {})
        node[path[-1]] = value
    return tree
