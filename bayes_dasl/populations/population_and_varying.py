"""Numbers of which each member of a population has its own, or each group of members."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

from .._statistics.describe_distributions import describe_distribution
from ..errors import ModelError
from ..random import Dependent, Scalar, Shared, Unknown, dependent, is_random, shape_of


@dataclasses.dataclass(frozen=True)
class Groups:
    """Which group each member belongs to.

    Args:
        dim: what groups are, such as "site": the dimension that they form in results.
        labels: what they are called, each once.
        of: of each member, which of these its own is.
    """

    dim: str
    labels: tuple[Any, ...]
    of: tuple[int, ...]

    @property
    def first(self) -> np.ndarray:
        """Of each group the first member."""
        return np.unique(self.of, return_index=True)[1]


class Varying(Unknown):
    """A number of which each member of a population has its own, or each group of them; `Each`
    names the members.
    """

    pytree_data_fields = ("one",)
    pytree_aux_fields = ("by",)

    def __init__(self, one: Any, by: Groups | None = None):
        self.one, self.by = one, by
        known = not is_random(one)
        super().__init__(
            *(((), np.shape(one)[1:]) if known else (one.batch_shape, one.event_shape))
        )

    unbound = (
        "is one number for each member of a population: wrap the layer that holds it in "
        "bd.Each(layer, members)"
    )

    @property
    def support(self) -> Any:
        if is_random(self.one):
            return self.one.support
        low, high = float(np.min(self.one)), float(np.max(self.one))
        return dist.constraints.interval(low, high) if low > 0 else dist.constraints.real

    def sample(self, key: Any, sample_shape: tuple[int, ...] = ()) -> Any:
        if is_random(self.one):
            return self.one.sample(key, sample_shape)
        return jax.random.choice(key, jnp.asarray(self.one, float), sample_shape)

    def described(self) -> str:
        known = "known numbers"
        each = f"each {self.by.dim}" if self.by else "each"
        return f"{describe_distribution(self.one) if is_random(self.one) else known} for {each}"


def varying(one: Any, by: Mapping[str, Any] | None = None) -> Any:
    """A number of which each member of a population has its own, in place of a number.

    Args:
        one: the distribution of each one's number, given what `dependent` and `shared` say is
            common to all; or an array of known numbers, `(member,)`, such as doses or weights.
        by: of each member its group, `(member,)`, by what groups are, such as `{"site": sites}`:
            members of one group then have one number together. Groups are numbers or names, and a
            dimension of results.

    Returns:
        What may stand in a layer that is wrapped in `bd.Each`.

    Raises:
        ModelError: for what is neither, or a distribution over several numbers that are not one
            event; for groups that are no numbers or names, or of known numbers, which need none.
    """
    if is_random(one):
        if one.batch_shape:
            raise ModelError(
                f"varying takes the distribution of one member, not one of shape {shape_of(one)}"
            )
        return Varying(one, None if by is None else _groups(by))
    if by is not None:
        raise ModelError(
            "by= says of which members an unknown number is the same: known numbers are those of "
            "each"
        )
    numbers = np.asarray(one)
    if not numbers.ndim or numbers.dtype.kind not in "iuf":
        raise ModelError(f"varying takes a distribution, or an array of known numbers, not {one!r}")
    return Varying(jnp.asarray(numbers, float))


def _groups(by: Any) -> Groups:
    """Raise ModelError for what does not say of each member its group."""
    if not isinstance(by, Mapping) or len(by) != 1 or not str(next(iter(by))).isidentifier():
        raise ModelError(
            f"by must say what groups are and of each member its own, as in by={{'site': sites}}: "
            f"{by!r}"
        )
    ((dim, given),) = by.items()
    labels = np.asarray(given)
    if (
        labels.ndim != 1
        or labels.dtype.kind not in "iufUOT"
        or (labels.dtype.kind == "f" and np.isnan(labels).any())
    ):
        raise ModelError(f"by='{dim}' must have a number or name for each member, not {given!r}")
    labels, of = np.unique(labels, return_inverse=True)
    return Groups(str(dim), tuple(labels.tolist()), tuple(of.tolist()))


def population(
    center: Scalar, spread: Scalar, effect: Any = 0.0, *, by: Mapping[str, Any] | None = None
) -> Any:
    r"""A positive number of which each member of a population has its own: log-normal around what
    is typical.

    $\log \theta_i \sim N(\log \text{center} + \text{effect}_i, \text{spread})$

    Members inform each other as far as the data say that they are alike (partial pooling).

    Args:
        center: what is typical, in the units of the number: known, or a distribution over positive
            numbers.
        spread: the standard deviation of the logarithm between members: 0.3 is about 30 %.
        effect: what is known to change the logarithm, such as `slope * bd.varying(log_weight)`.
        by: of each member its group, by what groups are, as in `{"site": sites}`: there is then one
            number for each group. As the `center` of another population it is what is typical of
            the members of a group.

    Returns:
        What may stand in a layer that is wrapped in `bd.Each`.

    Raises:
        ModelError: where all of these are known, or for groups that are no numbers or names.

    Example:
        ```python
        rate = bd.population(bd.between(0.1, 1.0), dist.HalfNormal(0.3))
        layer = bd.Each(bd.ODE(Decay(rate), {"y": 2.0}), ["a", "b", "c"])
        ```
    """
    return varying(dependent(log_normal_around, center, spread, effect), by)


def log_normal_around(center: Any, spread: Any, effect: Any) -> dist.Distribution:
    return dist.LogNormal(jnp.log(center) + effect, spread)


def varies(leaf: Any) -> bool:
    """Whether a number differs between members, itself or by what it depends on."""
    if isinstance(leaf, Varying):
        return True
    if isinstance(leaf, Shared):
        return varies(leaf.unknown)
    return isinstance(leaf, Dependent) and _holds_varying(leaf.arguments)


@dataclasses.dataclass(frozen=True)
class Over:
    """What a number is made of: all members, or one of each group, which stands for the others.

    Args:
        members: how many there are in all.
        groups: the groups; none for all members.
    """

    members: int
    groups: Groups | None = None

    @property
    def size(self) -> int:
        return self.members if self.groups is None else len(self.groups.labels)

    def of_each(self, values: Any, what: str) -> Any:
        """What is known of each member, which may be traced, or of each group.

        Raises:
            ModelError: for as many as there are not, or members of one group of which it differs.
        """
        if len(values) != self.members:
            raise ModelError(f"there are {self.members} members, but {len(values)} {what}")
        if (groups := self.groups) is None:
            return values
        values = np.asarray(values)
        own = values[groups.first]
        for at in np.flatnonzero(
            np.any((own[np.asarray(groups.of)] != values).reshape(len(values), -1), axis=1)
        )[:1]:
            raise ModelError(
                f"the number of each {groups.dim} depends on {what}, which differ within "
                f"{groups.dim} "
                f"{groups.labels[groups.of[at]]}"
            )
        return own


def expanded(leaf: Any, over: Over) -> Any:
    """A number of each member, or of each group, as an array of all."""
    if isinstance(leaf, Shared):
        if isinstance(leaf.unknown, Varying) and leaf.unknown.by is not None:
            return _gathered(leaf.unknown, over, leaf.name)
        return Shared(expanded(leaf.unknown, over), leaf.name)
    if isinstance(leaf, Dependent):
        return _over_members(leaf, over)
    if leaf.by is not None:
        return _gathered(leaf, over)
    if not is_random(leaf.one):
        return jnp.asarray(over.of_each(leaf.one, "known numbers of one that varies"))
    if over.groups is not None:
        raise ModelError(
            f"a number of each {over.groups.dim} cannot depend on one of each member: that of a "
            "member lies around "
            "that of its group, as in bd.population(bd.population(…, by=…), spread)"
        )
    return _drawn(leaf.one, over)


def _drawn(one: Any, over: Over) -> Any:
    return _over_members(one, over) if isinstance(one, Dependent) else one.expand((over.size,))


def _gathered(leaf: Varying, over: Over, name: str = "") -> Dependent:
    """A number of each group, under the name that it is shared by, where each member of the group
    stands.
    """
    groups: Any = leaf.by
    at = np.asarray(over.of_each(groups.of, f"values of '{groups.dim}'"))
    own = _drawn(leaf.one, Over(over.members, groups))
    return Dependent(
        Gathered(groups, tuple(at.tolist())), {groups.dim: Shared(own, name) if name else own}, ()
    )


def _over_members(leaf: Dependent, over: Over) -> Dependent:
    varied = tuple(name for name, value in leaf.arguments.items() if _holds_varying(value))
    arguments = {
        name: jax.tree.map(
            lambda part: expanded(part, over) if varies(part) else part, value, is_leaf=is_random
        )
        for name, value in leaf.arguments.items()
    }
    return Dependent(OverMembers(leaf.function, leaf.by_place, varied, over.size), arguments, ())


def _holds_varying(value: Any) -> bool:
    return any(map(varies, jax.tree.leaves(value, is_leaf=is_random)))


@dataclasses.dataclass(frozen=True)
class Gathered:
    """The numbers of groups where each member stands,
    or each group of others that lies within one.
    """

    groups: Groups
    at: tuple[int, ...]

    @property
    def __name__(self) -> str:
        return f"by_{self.groups.dim}"

    def __call__(self, **own: Any) -> Any:
        return own[self.groups.dim][jnp.asarray(self.at)]

    def dims_of(
        self, name: str, own: Mapping[str, tuple[Any, ...]]
    ) -> Mapping[str, tuple[Any, ...]]:
        """The dimension of the numbers of groups.

        Args:
            name: the argument that they are.
            own: the dimension of what is gathered.
        """
        return {self.groups.dim: self.groups.labels}


@dataclasses.dataclass(frozen=True)
class OverMembers:
    """A function of the numbers of one member, for all of them at once."""

    of_one: Callable[..., Any]
    by_place: tuple[str, ...]
    varied: tuple[str, ...]
    members: int

    @property
    def __name__(self) -> str:
        return getattr(self.of_one, "__name__", type(self.of_one).__name__)

    def dims_of(
        self, name: str, own: Mapping[str, tuple[Any, ...]]
    ) -> Mapping[str, tuple[Any, ...]]:
        """The dimension of an argument: that of the members if it varies with them.

        Args:
            name: the argument.
            own: the dimension of the members.
        """
        return own if name in self.varied else {}

    def __call__(self, **arguments: Any) -> Any:
        def of(varied):
            values = arguments | varied
            by_name = {name: value for name, value in values.items() if name not in self.by_place}
            return self.of_one(*(values[name] for name in self.by_place), **by_name)

        some = {name: arguments[name] for name in self.varied}
        if not some:
            found = of({})
            return (
                found.expand((self.members,))
                if is_random(found)
                else jnp.broadcast_to(found, (self.members,))
            )
        first = jax.tree.map(lambda v: v[0], some)
        if is_random(of(first)):
            return of(some)  # NumPyro's distributions take arrays of arguments
        return jax.vmap(of)(some)
