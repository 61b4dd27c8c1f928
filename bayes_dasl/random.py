"""Random leaves: distributions in place of numbers in a model, which is a pytree.

A leaf of the tree that is a NumPyro distribution is a *random leaf*. `sample` replaces all random
leaves by draws inside a NumPyro model, `realise` replaces them by given values. Both functions draw
or insert a `shared` leaf once, and a `dependent` leaf after its arguments.
"""

import dataclasses
import math
import operator
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, get_type_hints

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import numpyro
import numpyro.distributions as dist
from jax.core import Tracer
from jaxtyping import Array, Float

from ._jax.tree import (
    FrozenDict,
    argument_names,
    below,
    dotted,
    key_name,
    nodes_along,
    stated_units,
)
from ._statistics.describe_distributions import (
    describe_call,
    describe_value,
    name_of,
    of_a_prior,
    possible,
    same_support,
    support_of_draws,
)
from .errors import BayesDaslError, MismatchError, ModelError

type Scalar = float | Float[Array, ""] | dist.Distribution
"""A number, or the distribution that stands in its place."""

type Values = Mapping[str, Float[Array, "..."]]
"""Named arrays: states, forcings, rates of change, observables."""

type VectorField = Callable[[Any, Values, Values], Values]
"""`vector_field(t, y, u)`: the rate of change of each state, given time, states and forcings."""


# Number of draws from which the support of a derived number is estimated.
_TRIED = 1000


class Module(eqx.Module):
    """A frozen dataclass that is a pytree, whose fields may hold numbers or distributions.

    A field with the annotation `Scalar` must hold one number, or a distribution over one number.
    This is checked when the module is built.

    Raises:
        ModelError: if a field with the annotation `Scalar` holds anything else.
    """

    def __check_init__(self):
        for name in _scalar_fields(type(self)):
            check_scalar(getattr(self, name), f"{type(self).__name__}.{name}")


def field(*, units: str, **kwargs: Any) -> Any:
    """Return a dataclass field with units, which reports show and `bd.check` compares.

    For example, `birth: bd.Scalar = bd.field(units="1/year")` in a `bd.Module`.

    Args:
        units: the units as text, such as "1/year".
        kwargs: other arguments of `equinox.field`, such as `default`.

    Returns:
        The field.
    """
    return eqx.field(metadata={"units": units}, **kwargs)


def _scalar_fields(cls: type) -> list[str]:
    """Return the names of the fields of a class with the annotation `Scalar`."""
    try:
        hints = get_type_hints(cls)
    except NameError:  # a type imported for the type checker only
        return []
    return [f.name for f in dataclasses.fields(cls) if hints.get(f.name) is Scalar]


def check_scalar(value: Any, where: str) -> None:
    """Raise ModelError unless a value is one number or a distribution over one number.

    Args:
        value: the value.
        where: its name for the error message.
    """
    if is_random(value):
        if fault := of_a_prior(value):
            raise ModelError(f"{where} {fault}")
        shape = shape_of(value)
        if shape:
            raise ModelError(
                f"{where} must be a distribution over one number, but this {type(value).__name__} "
                f"has shape {shape}: give each number a field of its own, or annotate the field "
                "jax.Array in place of bd.Scalar"
            )
    elif not eqx.is_array_like(value) or jnp.ndim(value) or not _is_real(value):
        raise ModelError(
            f"{where} must be a number or a distribution over one number, not "
            f"{describe_value(value)}"
        )


def _is_real(value: Any) -> bool:
    """Whether a scalar is real and not NaN; NaN cannot be excluded for a traced scalar."""
    kind = jnp.result_type(value).kind
    return kind in "iuf" and (isinstance(value, Tracer) or not np.isnan(value))


def is_random(leaf: Any) -> bool:
    """Whether a leaf is a distribution, so that it is inferred."""
    return isinstance(leaf, dist.Distribution)


def is_function(value: Any) -> bool:
    """Whether a value is callable and no distribution, which would stand for a number."""
    return callable(value) and not is_random(value)


def shape_of(value: Any) -> tuple[int, ...]:
    """Return the shape of a number, an array or a random leaf."""
    if is_random(value):
        return value.batch_shape + value.event_shape
    return jnp.shape(value)


class Unknown(dist.Distribution):
    """A random leaf that can be used in arithmetic; operators return a `Dependent` leaf."""

    # Otherwise a NumPy array on the left would compute element by element.
    __array_ufunc__ = None
    # With `__getitem__` but without this line, iteration over a leaf would never end.
    __iter__ = None

    def __neg__(self) -> Any:
        return dependent(operator.neg, self)

    def __getitem__(self, index: Any) -> Any:
        return dependent(operator.getitem, self, index)


def _operators() -> None:
    """Define the arithmetic operators of `Unknown`, with the leaf on either side."""
    for name in ("add", "sub", "mul", "truediv", "pow"):
        of = getattr(operator, name)
        setattr(Unknown, f"__{name}__", lambda self, other, of=of: dependent(of, self, other))
        setattr(Unknown, f"__r{name}__", lambda self, other, of=of: dependent(of, other, self))


_operators()


class Shared(Unknown):
    """A random leaf that stands in several places of a model; made by `shared`.

    Args:
        unknown: the distribution.
        name: the name of the parameter in results.
    """

    pytree_data_fields = ("unknown",)
    pytree_aux_fields = ("name",)

    def __init__(self, unknown: dist.Distribution, name: str):
        self.unknown = unknown
        self.name = name
        super().__init__(unknown.batch_shape, unknown.event_shape)

    @property
    def support(self) -> Any:
        return self.unknown.support

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.unknown.sample(key, sample_shape)

    def described(self) -> str:
        """Return the text that stands for this leaf in descriptions of a model."""
        return self.name

    __repr__ = described


class Dependent(Unknown):
    """A random leaf whose prior depends on others, or a number derived from others.

    It is made by `dependent`. The attribute `drawn` is True if the function returns a distribution,
    and False if it returns the derived number itself.

    Args:
        function: the function of the arguments.
        arguments: its arguments by name, which contain random leaves.
        by_place: the names of the arguments that are passed by position.
    """

    pytree_data_fields = ("arguments",)
    pytree_aux_fields = ("function", "by_place", "drawn")

    def __init__(
        self, function: Callable[..., Any], arguments: Mapping[str, Any], by_place: tuple[str, ...]
    ):
        # JAX sorts the keys of a plain dict, which would change the order of draws.
        self.function = function
        self.arguments = OrderedDict(arguments)
        self.by_place = by_place
        example = self.example(0.1)
        other = self.example(0.3)
        self.drawn = is_random(example)
        if isinstance(example, Unknown) or not (self.drawn or eqx.is_array_like(example)):
            raise ModelError(
                f"{name_of(function)} must return a NumPyro distribution or a number, not "
                f"{example!r}"
            )
        if self.drawn and not same_support(example, other):
            raise ModelError(
                f"the bounds of this {type(example).__name__} depend on unknown numbers, which no "
                "coordinates follow: draw a share and move it there, as in "
                "low + width * bd.shared(dist.Uniform(0, 1), 'share')"
            )
        if self.drawn:
            super().__init__(example.batch_shape, example.event_shape)
        else:
            super().__init__(jnp.shape(example))

    def described(self) -> str:
        """Return the text for this leaf in descriptions of a model, such as `exp(k)`."""
        example = self.example() if self.drawn else None
        return describe_call(self.function, self.arguments.values(), example)

    __repr__ = described

    def of(self, arguments: Mapping[str, Any]) -> Any:
        """Call the function.

        Args:
            arguments: the arguments by name, with numbers in place of random leaves.

        Returns:
            A distribution if `drawn`, else a number or an array.
        """
        by_name = {name: value for name, value in arguments.items() if name not in self.by_place}
        return self.function(*(arguments[name] for name in self.by_place), **by_name)

    def example(self, at: float = 0.1) -> Any:
        """Call the function with possible values of its arguments.

        Args:
            at: a number in (0, 1) that selects the values of the arguments.
        """
        # Compute the result now, even while JAX traces a program.
        with jax.ensure_compile_time_eval():
            return self.of(with_possible(self.arguments, at))

    @property
    def support(self) -> Any:
        if self.drawn:
            return self.example().support
        with jax.ensure_compile_time_eval():
            return support_of_draws(self.sample(jax.random.key(0), (_TRIED,)))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draw the arguments, then this leaf given the arguments."""

        def one(key):
            keys = iter(jax.random.split(key, 1 + len(paths(self.arguments))))
            found = self.of(_replace(self.arguments, lambda _, leaf: leaf.sample(next(keys))))
            if self.drawn:
                return found.sample(next(keys))
            return found

        drawn = jax.vmap(one)(jax.random.split(key, math.prod(sample_shape)))
        return drawn.reshape(*sample_shape, *drawn.shape[1:])


def shared(unknown: Any, name: str) -> Any:
    """Share one parameter, or one module with all of its parameters, between several places.

    After `rate = bd.shared(bd.between(0.1, 2.0), "rate")`, every `rate` in the model is the same
    parameter, named `rate` in results. Arithmetic such as `2 * rate` or `1 - rate` gives a number
    derived from it.

    Args:
        unknown: a distribution, a result of `dependent`, or a module with random leaves, such as a
            `bd.Network`.
        name: the name in results, an identifier that no other shared parameter has. The parameters
            of a module are named `name.path`.

    Returns:
        The leaf or module to put in several places.

    Raises:
        ModelError: if the name is no identifier, if nothing in `unknown` is random, or if it is a
            number derived from other parameters.

    Example:
        ```python
        rate = bd.shared(bd.between(0.1, 1.0), "rate")
        print(rate)
        ```
    """
    if not isinstance(name, str) or not name.isidentifier():
        raise ModelError(
            f"shared needs a name of letters, digits and underscores, such as 'rate', not {name!r}"
        )
    if not paths(unknown):
        raise ModelError(
            f"nothing in shared({unknown!r}, {name!r}) is unknown: a known number may stand "
            "anywhere"
        )
    if is_random(unknown):
        return _shared(unknown, name)
    return jtu.tree_map_with_path(
        lambda path, leaf: _shared(leaf, f"{name}.{dotted(path)}") if is_random(leaf) else leaf,
        unknown,
        is_leaf=is_random,
    )


def _shared(leaf: dist.Distribution, name: str) -> dist.Distribution:
    """Share one random leaf; a leaf that is shared already keeps its first name.

    Raises:
        ModelError: if the leaf is a derived number.
    """
    if isinstance(leaf, Dependent) and not leaf.drawn:
        raise ModelError(
            f"'{name}' is worked out of other numbers: share these, and it is the same everywhere"
        )
    if isinstance(leaf, Shared):
        return leaf
    return Shared(leaf, name)


def dependent(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Dependent:
    """Return a parameter whose prior depends on other parameters, or a number derived from them.

    For example, `bd.dependent(dist.LogNormal, dist.Normal(0, 1), 0.3)` is log-normal with a random
    location. Such priors may be nested. `bd.dependent(jnp.exp, k)` is the exponential of the
    parameter `k`.

    Args:
        function: a function of numbers. It returns a NumPyro distribution, always with the same
            shape and bounds, or a number or array.
        args: the arguments of the function: numbers, distributions, results of `bd.shared` and
            `bd.dependent`, or modules and dicts that contain these.
        kwargs: further arguments of the function by name.

    Returns:
        The leaf to put in place of a number.

    Raises:
        ModelError: if no argument is random, if an argument is given twice, or if the function
            fails or returns anything else.
    """
    # A module may hold random leaves itself, so it becomes an argument too.
    if isinstance(function, eqx.Module):
        return dependent(operator.call, function, *args, **kwargs)
    by_place = tuple(argument_names(function, len(args)))
    arguments = dict(zip(by_place, args, strict=True)) | kwargs
    if twice := kwargs.keys() & {*by_place}:
        raise ModelError(
            f"{name_of(function)} is given {', '.join(sorted(twice))} twice: by place and by name"
        )
    if not paths(arguments):
        raise ModelError(
            f"nothing that this {name_of(function)} depends on is unknown: write it as it is"
        )
    try:
        return Dependent(function, arguments, by_place)
    except BayesDaslError:
        raise
    except Exception as error:  # a user's function may raise anything
        raise ModelError(
            f"{name_of(function)} cannot be worked out of {', '.join(arguments)}: "
            f"{type(error).__name__}: {error}"
        ) from error


class RandomLeaf(eqx.Module):
    """The description of a random leaf of a tree, that is, of one parameter.

    Args:
        path: the dotted path, or the name of a shared leaf, which identifies it in results.
        distribution: the prior.
        group: "science", "network" or "latent".
        units: the stated units; empty if there are none.
        owners: the names of the classes from the root to the leaf, joined by `/`.
        places: the dotted paths where the leaf stands. Empty if it occurs only as an argument of
            other leaves.
        own: the smallest number of parts at the end of `path` that a short name must keep.
        within: the dotted paths of the numbers that are derived from the leaf.
        dims: the labels of the leading dimensions of its values, by the name of the dimension.
    """

    path: str = eqx.field(static=True)
    distribution: dist.Distribution
    group: str = eqx.field(static=True)
    units: str = eqx.field(static=True)
    owners: str = eqx.field(static=True)
    places: tuple[str, ...] = eqx.field(static=True)
    own: int = eqx.field(static=True, default=1)
    within: tuple[str, ...] = eqx.field(static=True, default=())
    dims: FrozenDict = eqx.field(static=True, default=FrozenDict())

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one draw."""
        return shape_of(self.distribution)

    def given(self, values: Mapping[str, Array]) -> Any:
        """Return the distribution of this leaf.

        Args:
            values: the values of other leaves by path, which replace the arguments of a dependent
                leaf.
        """
        leaf = self.distribution
        if not isinstance(leaf, Dependent):
            return leaf
        return leaf.of(_replace(leaf.arguments, lambda path, _: values[path], self.path))


def paths(tree: Any) -> dict[str, RandomLeaf]:
    """Return the descriptions of all random leaves of a tree, by dotted path.

    A shared leaf occurs once, with its name as path. The order is that of the tree, but arguments
    of a dependent leaf come before the leaf.
    """
    found: dict[str, RandomLeaf] = {}
    for leaf in occurrences(tree):
        first = found.setdefault(leaf.path, leaf)
        if first is not leaf:
            within = tuple(dict.fromkeys(first.within + leaf.within))
            # A parameter that is scientific in one place has a meaning in all places.
            group = "science" if leaf.group == "science" else first.group
            found[leaf.path] = dataclasses.replace(
                first, places=first.places + leaf.places, within=within, group=group
            )
    return found


def occurrences(tree: Any, inside: RandomLeaf | None = None) -> Iterator[RandomLeaf]:
    """Yield a description for each place of each random leaf in a tree.

    So a shared leaf is yielded several times. Arguments of a dependent leaf come before the leaf.

    Args:
        tree: the tree, or the arguments of a dependent leaf.
        inside: the dependent leaf whose arguments `tree` holds; None for a whole tree.
    """
    for path, leaf in jtu.tree_flatten_with_path(tree, is_leaf=is_random)[0]:
        if is_random(leaf):
            found = _describe(tree, path, leaf, inside)
            if isinstance(found.distribution, Dependent):
                yield from occurrences(found.distribution.arguments, found)
            if not isinstance(found.distribution, Dependent) or found.distribution.drawn:
                yield found


def _describe(
    tree: Any, path: tuple, leaf: dist.Distribution, inside: RandomLeaf | None
) -> RandomLeaf:
    """Return the description of one leaf.

    Args:
        tree: the tree, or the arguments of a dependent leaf.
        path: the JAX key path of the leaf in `tree`.
        leaf: the leaf.
        inside: the dependent leaf whose arguments `tree` holds; None for a whole tree.
    """
    # 1. Group, classes and dimensions, from the nodes between root and leaf.
    group = inside.group if inside else "science"
    owners = [inside.owners] if inside else []
    place = dotted(path)
    dims: dict[str, tuple[Any, ...]] = {}
    for depth, (node, _) in enumerate(_nodes(tree, path)):
        group = getattr(node, "random_group", group)
        if key_name(path[depth]) in getattr(node, "latent_fields", ()):
            group = "latent"
        if hasattr(node, "__leaf_dims__"):
            dims |= node.__leaf_dims__(tuple(map(key_name, path[depth:])))
        owners.append(type(node).__name__)
    units = stated_units(tree, path)
    whole = "/".join(owners)
    places = (place,)
    name = place
    own = 1
    within = ()
    # 2. An argument has no place of its own. If the outer leaf is a derived number, the places of
    # that number go into `within`.
    if inside:
        outer: Any = inside.distribution
        places = ()
        name = below(inside.path, place)
        own = inside.own + len(path)
        # Arguments of a random effect may also differ between members, or between their groups.
        if hasattr(outer.function, "dims_of"):
            dims |= outer.function.dims_of(key_name(path[0]), inside.dims)
        if not outer.drawn:
            within = inside.places + inside.within
    # 3. A shared leaf has its name in place of a path.
    if isinstance(leaf, Shared):
        name, leaf, own = leaf.name, leaf.unknown, 1 + leaf.name.count(".")
    return RandomLeaf(name, leaf, group, units, whole, places, own, within, FrozenDict(dims))


def _nodes(tree: Any, path: tuple) -> list[tuple[Any, Any]]:
    """Return pairs (node, key of its child) from the root of a tree to a leaf.

    Raises:
        ModelError: if the path leads through an object whose parts have no names.
    """
    try:
        return list(nodes_along(tree, path))
    except TypeError as error:
        raise ModelError(
            f"a distribution lies at {jtu.keystr(path)}, inside an object whose parts have no "
            "names (such as JAX's Partial): put it into a field of a bd.Module"
        ) from error


def _replace(
    tree: Any,
    value_of: Callable[[str, Any], Any],
    inside: str = "",
    known: dict[str, Any] | None = None,
) -> Any:
    """Replace all random leaves of a tree by values.

    Args:
        tree: the tree, or the arguments of a dependent leaf.
        value_of: a function (path, distribution) that returns the value of a leaf. It is called
            once for each path, and for arguments before the leaf that depends on them.
        inside: the path of the dependent leaf whose arguments `tree` holds; empty for a whole tree.
        known: the values found so far, by path, so that a shared leaf has one value.

    Returns:
        The tree with values.
    """
    known = {} if known is None else known

    def swap(path, leaf):
        if not is_random(leaf):
            return leaf
        name = below(inside, dotted(path))
        if isinstance(leaf, Shared):
            name = leaf.name
            leaf = leaf.unknown
        if name not in known:
            # Arguments first; then the leaf is a plain distribution, or a derived number.
            if isinstance(leaf, Dependent):
                leaf = leaf.of(_replace(leaf.arguments, value_of, name, known))
            known[name] = value_of(name, leaf) if is_random(leaf) else leaf
        return known[name]

    return jtu.tree_map_with_path(swap, tree, is_leaf=is_random)


def sample(tree: Any) -> Any:
    """Replace all random leaves of a tree by draws from `numpyro.sample`.

    The name of each sample site is the path of the leaf.
    """
    return _replace(tree, numpyro.sample)


def realise(tree: Any, draw: Mapping[str, Array]) -> Any:
    """Replace all random leaves of a tree by given values, such as a posterior draw.

    Args:
        tree: a tree with random leaves.
        draw: the value of each random leaf, by path.

    Returns:
        The tree without random leaves.

    Raises:
        MismatchError: if a value is missing.
    """
    missing = [path for path in paths(tree) if path not in draw]
    if missing:
        raise MismatchError(
            f"the draw has no value for {', '.join(missing)}; it has {', '.join(draw)}"
        )
    return _replace(tree, lambda path, _: draw[path])


def with_possible(tree: Any, at: float = 0.1) -> Any:
    """Replace all random leaves of a tree by possible values, to learn shapes and names.

    Args:
        tree: a tree with random leaves.
        at: a number in (0, 1) that selects the values. Different numbers mostly give different
            values.
    """
    return _replace(tree, lambda _, leaf: possible(leaf, at))
