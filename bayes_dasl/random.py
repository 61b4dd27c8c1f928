"""The core: a model is a pytree, and a distribution may stand wherever a number could.

A leaf that is a NumPyro distribution is a *random leaf*. `sample` replaces every random leaf by a
draw inside a NumPyro model, `realise` by a given draw; both are the same walk over the tree, which
draws what is `shared` once and what is `dependent` after what it depends on.
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


_TRIED = 1000  # draws that tell whether a number which is worked out of others is positive


class Module(eqx.Module):
    """A frozen dataclass that is a pytree; its fields may hold numbers or distributions.

    A field annotated `Scalar` must hold one number, or a distribution over one number: this is
    checked when the module is built.

    Raises:
        ModelError: if such a field holds an array or a distribution of another shape.
    """

    def __check_init__(self):
        for name in _scalar_fields(type(self)):
            check_scalar(getattr(self, name), f"{type(self).__name__}.{name}")


def field(*, units: str, **kwargs: Any) -> Any:
    """A dataclass field with units, which the parameter table of a report shows.

    `birth: bd.Scalar = bd.field(units="1/year")`

    Args:
        units: those of the number, as text, such as "1/year".
        kwargs: what else `equinox.field` takes, such as `default`.
    """
    return eqx.field(metadata={"units": units}, **kwargs)


def _scalar_fields(cls: type) -> list[str]:
    try:
        hints = get_type_hints(cls)
    except NameError:  # an annotation that is only known to the type checker
        return []
    return [f.name for f in dataclasses.fields(cls) if hints.get(f.name) is Scalar]


def check_scalar(value: Any, where: str) -> None:
    """Refuse anything that is not one number or a distribution over one number."""
    if is_random(value):
        if fault := of_a_prior(value):
            raise ModelError(f"{where} {fault}")
        shape = shape_of(value)
        if shape:
            raise ModelError(
                f"{where} must be a distribution over one number, but this {type(value).__name__} "
                "has shape "
                f"{shape}: give each number a field of its own, or annotate the field jax.Array in "
                "place of bd.Scalar"
            )
    elif not eqx.is_array_like(value) or jnp.ndim(value) or not _is_number(value):
        raise ModelError(
            f"{where} must be a number or a distribution over one number, not "
            f"{describe_value(value)}"
        )


def _is_number(value: Any) -> bool:
    """Whether a scalar is real and not NaN, as far as that is known before a program runs."""
    kind = jnp.result_type(value).kind
    return kind in "iuf" and (isinstance(value, Tracer) or not np.isnan(value))


def is_random(leaf: Any) -> bool:
    """Whether a leaf is inferred (a distribution) rather than known (a number)."""
    return isinstance(leaf, dist.Distribution)


def is_function(value: Any) -> bool:
    """Whether something is a function; a NumPyro distribution can be called too, but stands for a
    number.
    """
    return callable(value) and not is_random(value)


def shape_of(value: Any) -> tuple[int, ...]:
    """The shape of a number, an array or a random leaf."""
    return value.batch_shape + value.event_shape if is_random(value) else jnp.shape(value)


class Unknown(dist.Distribution):
    """A number that depends on others or stands in several places; arithmetic with it gives another
    one.
    """

    __array_ufunc__ = None  # else NumPy's arrays would do the arithmetic element by element

    __iter__ = None

    def __neg__(self) -> Any:
        return dependent(operator.neg, self)

    def __getitem__(self, index: Any) -> Any:
        return dependent(operator.getitem, self, index)


def _operators() -> None:
    for name in ("add", "sub", "mul", "truediv", "pow"):
        of = getattr(operator, name)
        setattr(Unknown, f"__{name}__", lambda self, other, of=of: dependent(of, self, other))
        setattr(Unknown, f"__r{name}__", lambda self, other, of=of: dependent(of, other, self))


_operators()


class Shared(Unknown):
    """One random leaf that stands in several places; `shared` makes it."""

    pytree_data_fields = ("unknown",)
    pytree_aux_fields = ("name",)

    def __init__(self, unknown: dist.Distribution, name: str):
        self.unknown, self.name = unknown, name
        super().__init__(unknown.batch_shape, unknown.event_shape)

    @property
    def support(self) -> Any:
        return self.unknown.support

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        return self.unknown.sample(key, sample_shape)

    def described(self) -> str:
        return self.name

    __repr__ = described


class Dependent(Unknown):
    """A random leaf that depends on others, or a number that is worked out of others; `dependent`
    makes it.

    Of its arguments, those named in `by_place` in this order and the others by name, its function
    makes the distribution that it is `drawn` from, or else the number itself.
    """

    pytree_data_fields = ("arguments",)
    pytree_aux_fields = ("function", "by_place", "drawn")

    def __init__(
        self, function: Callable[..., Any], arguments: Mapping[str, Any], by_place: tuple[str, ...]
    ):
        # JAX would sort a plain dictionary.
        self.function, self.arguments, self.by_place = function, OrderedDict(arguments), by_place
        example, other = self.example(0.1), self.example(0.3)
        self.drawn = is_random(example)
        if isinstance(example, Unknown) or not (self.drawn or eqx.is_array_like(example)):
            raise ModelError(
                f"{name_of(function)} must return a NumPyro distribution or a number, not "
                f"{example!r}"
            )
        if self.drawn and not same_support(example, other):
            raise ModelError(
                f"the bounds of this {type(example).__name__} depend on unknown numbers, which no "
                "coordinates follow: "
                "draw a share and move it there, as in low + width * bd.shared(dist.Uniform(0, 1), "
                "'share')"
            )
        super().__init__(
            *((example.batch_shape, example.event_shape) if self.drawn else (jnp.shape(example),))
        )

    def described(self) -> str:
        return describe_call(
            self.function, self.arguments.values(), self.example() if self.drawn else None
        )

    __repr__ = described

    def of(self, arguments: Mapping[str, Any]) -> Any:
        """What the function makes of arguments with numbers in place of random leaves."""
        by_name = {name: value for name, value in arguments.items() if name not in self.by_place}
        return self.function(*(arguments[name] for name in self.by_place), **by_name)

    def example(self, at: float = 0.1) -> Any:
        """What the function makes of numbers that its arguments may be."""
        with (
            jax.ensure_compile_time_eval()
        ):  # else what is known would not be so inside of a program
            return self.of(with_possible(self.arguments, at))

    @property
    def support(self) -> Any:
        if self.drawn:
            return self.example().support
        with jax.ensure_compile_time_eval():
            return support_of_draws(self.sample(jax.random.key(0), (_TRIED,)))

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        """Draws whose arguments are drawn with them."""

        def one(key):
            keys = iter(jax.random.split(key, 1 + len(paths(self.arguments))))
            found = self.of(_replace(self.arguments, lambda _, leaf: leaf.sample(next(keys))))
            return found.sample(next(keys)) if self.drawn else found

        drawn = jax.vmap(one)(jax.random.split(key, math.prod(sample_shape)))
        return drawn.reshape(*sample_shape, *drawn.shape[1:])


def shared(unknown: Any, name: str) -> Any:
    """One unknown number in several places, or one module with all of its unknown numbers.

    `rate = bd.shared(bd.between(0.1, 2.0), "rate")`: wherever `rate` stands, it is the same number,
    called `rate` in results. Arithmetic such as `2 * rate` or `1 - rate` gives a number that is
    worked out of it.

    Args:
        unknown: a distribution, what `dependent` returns, or a module with random leaves, such as a
            `bd.Network`.
        name: what it is called in results; a word, which no other shared number has.

    Returns:
        What may be put in several places.

    Raises:
        ModelError: for a name that is no word, or where nothing is unknown.

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
    if isinstance(leaf, Dependent) and not leaf.drawn:
        raise ModelError(
            f"'{name}' is worked out of other numbers: share these, and it is the same everywhere"
        )
    return leaf if isinstance(leaf, Shared) else Shared(leaf, name)


def dependent(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Dependent:
    """An unknown number that depends on others: drawn from a distribution that they give, or worked
    out of them.

    `bd.dependent(dist.LogNormal, dist.Normal(0, 1), 0.3)` is a log-normal number whose location is
    unknown too, as deep as one likes; `bd.dependent(jnp.exp, k)` is the exponential of the unknown
    number `k`.

    Args:
        function: of numbers, either a distribution (a NumPyro class, or a function that returns one
            of always the same shape and bounds), or a number or array.
        args: its arguments: numbers, distributions, what `shared` and `dependent` return, or
            modules and dicts of them.
        kwargs: the same by name.

    Returns:
        What may be put in place of a number.

    Raises:
        ModelError: where nothing in the arguments is unknown, the function cannot be called with
            them, or returns neither.
    """
    if isinstance(function, eqx.Module):  # its own numbers may be unknown too
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
    except Exception as error:  # whatever a user's function may raise
        raise ModelError(
            f"{name_of(function)} cannot be worked out of {', '.join(arguments)}: "
            f"{type(error).__name__}: {error}"
        ) from error


class RandomLeaf(eqx.Module):
    """What is known of one random leaf without drawing it.

    `owners` are the classes from the root to it, `places` where it stands, `within` where numbers
    that are worked out of it do: none of both for what only priors depend on. Of the parts of its
    path the last `own` belong together. `dims` are the names and values of its first dimensions, if
    any.
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
        return shape_of(self.distribution)

    def given(self, values: Mapping[str, Array]) -> Any:
        """Its distribution, given the values of those that it depends on, by path."""
        leaf = self.distribution
        if not isinstance(leaf, Dependent):
            return leaf
        return leaf.of(_replace(leaf.arguments, lambda path, _: values[path], self.path))


def paths(tree: Any) -> dict[str, RandomLeaf]:
    """Every random leaf of a tree by its dotted path, in the order of the tree; none before what it
    depends on.

    A shared one has its name in place of a path.
    """
    found: dict[str, RandomLeaf] = {}
    for leaf in occurrences(tree):
        first = found.setdefault(leaf.path, leaf)
        if first is not leaf:
            within = tuple(dict.fromkeys(first.within + leaf.within))
            group = (
                "science" if leaf.group == "science" else first.group
            )  # it has a meaning wherever else it stands
            found[leaf.path] = dataclasses.replace(
                first, places=first.places + leaf.places, within=within, group=group
            )
    return found


def occurrences(tree: Any, inside: RandomLeaf | None = None) -> Iterator[RandomLeaf]:
    """All random leaves, those of the arguments of a dependent one before it, as often as they
    stand somewhere.
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
    group, owners, place = (
        inside.group if inside else "science",
        [inside.owners] if inside else [],
        dotted(path),
    )
    dims: dict[str, tuple[Any, ...]] = {}
    for depth, (node, _) in enumerate(_nodes(tree, path)):
        group = getattr(node, "random_group", group)
        if key_name(path[depth]) in getattr(node, "latent_fields", ()):
            group = "latent"
        if hasattr(node, "leaf_dims"):
            dims |= node.leaf_dims(tuple(map(key_name, path[depth:])))
        owners.append(type(node).__name__)
    units, whole = stated_units(tree, path), "/".join(owners)
    places, name, own, within = (place,), place, 1, ()
    if inside:
        places, name, own = (), below(inside.path, place), inside.own + len(path)
        # What a number of each member depends on may have one for each member too, or for each
        # group of them.
        of_argument = getattr(
            getattr(inside.distribution, "function", None), "dims_of", lambda name, own: {}
        )
        dims |= of_argument(key_name(path[0]), inside.dims)
        within = (
            () if getattr(inside.distribution, "drawn", True) else inside.places + inside.within
        )
    if isinstance(leaf, Shared):
        name, leaf, own = leaf.name, leaf.unknown, 1 + leaf.name.count(".")
    return RandomLeaf(name, leaf, group, units, whole, places, own, within, FrozenDict(dims))


def _nodes(tree: Any, path: tuple) -> list[tuple[Any, Any]]:
    try:
        return list(nodes_along(tree, path))
    except TypeError as error:
        raise ModelError(
            f"a distribution lies at {jtu.keystr(path)}, inside an object whose parts have no "
            "names (such as JAX's "
            "Partial): put it into a field of a bd.Module"
        ) from error


def _replace(
    tree: Any,
    value_of: Callable[[str, Any], Any],
    inside: str = "",
    known: dict[str, Any] | None = None,
) -> Any:
    """The tree with values in place of random leaves: of each path once, after those that it
    depends on.
    """
    known = {} if known is None else known

    def swap(path, leaf):
        if not is_random(leaf):
            return leaf
        name = below(inside, dotted(path))
        if isinstance(leaf, Shared):
            name, leaf = leaf.name, leaf.unknown
        if name not in known:
            if isinstance(leaf, Dependent):
                leaf = leaf.of(_replace(leaf.arguments, value_of, name, known))
            known[name] = value_of(name, leaf) if is_random(leaf) else leaf
        return known[name]

    return jtu.tree_map_with_path(swap, tree, is_leaf=is_random)


def sample(tree: Any) -> Any:
    """The tree with every random leaf drawn by `numpyro.sample`; the site's name is the leaf's
    path.
    """
    return _replace(tree, numpyro.sample)


def realise(tree: Any, draw: Mapping[str, Array]) -> Any:
    """The tree with every random leaf replaced by `draw[path]`.

    Raises:
        MismatchError: if the draw lacks a random leaf of the tree.
    """
    missing = [path for path in paths(tree) if path not in draw]
    if missing:
        raise MismatchError(
            f"the draw has no value for {', '.join(missing)}; it has {', '.join(draw)}"
        )
    return _replace(tree, lambda path, _: draw[path])


def with_possible(tree: Any, at: float = 0.1) -> Any:
    """The tree with some possible value for every random leaf, to find out shapes that do not
    depend on values.
    """
    return _replace(tree, lambda _, leaf: possible(leaf, at))
