"""`population` and `varying`: parameters with one value for each member, or group of members."""

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
    """Membership of groups.

    Args:
        dim: the dimension of groups in results, such as "site".
        labels: the name of each group.
        of: the index of the group of each member.
    """

    dim: str
    labels: tuple[Any, ...]
    of: tuple[int, ...]

    @property
    def first(self) -> np.ndarray:
        """Index of the first member of each group."""
        return np.unique(self.of, return_index=True)[1]


class Varying(Unknown):
    """A parameter with one value for each member or group; `Each` expands it."""

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
        # Known positive numbers may stand where only positive parameters are allowed.
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
    """A parameter with one value for each member of a population.

    Args:
        one: the distribution of one member's value, which may depend on shared parameters
            (`dependent`, `shared`); or known numbers, `(member,)`, such as weights.
        by: the group of each member, such as `{"site": sites}` with `sites` `(member,)`: members of
            one group share one value. Groups are names or numbers, and a dimension of results.

    Returns:
        A parameter for a layer that is wrapped in `bd.Each`.

    Raises:
        ModelError: if `one` is neither a distribution of one value nor an array of numbers, if
            groups are neither names nor numbers, or if known numbers have groups.
    """
    if is_random(one):
        if one.batch_shape:
            raise ModelError(
                f"varying takes the distribution of one member, not one of shape {shape_of(one)}"
            )
        return Varying(one, None if by is None else _checked_groups(by))
    if by is not None:
        raise ModelError(
            "by= says of which members an unknown number is the same: known numbers are those of "
            "each"
        )
    numbers = np.asarray(one)
    if not numbers.ndim or numbers.dtype.kind not in "iuf":
        raise ModelError(f"varying takes a distribution, or an array of known numbers, not {one!r}")
    return Varying(jnp.asarray(numbers, float))


def _checked_groups(by: Any) -> Groups:
    """Groups from `by`.

    Raises:
        ModelError: if `by` is not a dict with the group of each member.
    """
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
    r"""A positive random effect: a value for each member, log-normal around the typical one.

    $\log \theta_i \sim N(\log \text{center} + \text{effect}_i, \text{spread})$

    Members share information as far as the data say that they are similar (partial pooling).

    Args:
        center: the typical value, in the units of the parameter: a number, or a distribution over
            positive numbers.
        spread: the scale of the random effect, a standard deviation of logarithms: 0.3 is about
            30 %.
        effect: a covariate effect on the logarithm, such as `slope * bd.varying(log_weight)`.
        by: the group of each member, as in `{"site": sites}`, for one value for each group. Such a
            population may be the `center` of another one, whose members lie around their group.

    Returns:
        A parameter for a layer that is wrapped in `bd.Each`.

    Raises:
        ModelError: if all arguments are known numbers, or groups are neither names nor numbers.

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
    """Whether a parameter varies between members, itself or through its arguments."""
    if isinstance(leaf, Varying):
        return True
    if isinstance(leaf, Shared):
        return varies(leaf.unknown)
    return isinstance(leaf, Dependent) and _holds_varying(leaf.arguments)


@dataclasses.dataclass(frozen=True)
class Over:
    """The units that have a value of their own: all members, or all groups.

    Args:
        members: number of members.
        groups: the groups; none for all members.
    """

    members: int
    groups: Groups | None = None

    @property
    def size(self) -> int:
        return self.members if self.groups is None else len(self.groups.labels)

    def of_each(self, values: Any, what: str) -> Any:
        """Known values of members (may be traced), or their common value for each group.

        Raises:
            ModelError: if their number differs from the members, or values differ within a group.
        """
        if len(values) != self.members:
            raise ModelError(f"there are {self.members} members, but {len(values)} {what}")
        if (groups := self.groups) is None:
            return values
        # A value of a group must not differ between its members.
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
    """Expand a parameter that varies to an array over members or groups.

    Raises:
        ModelError: if a group's value would depend on the value of single members.
    """
    # 1. A shared parameter keeps its name.
    if isinstance(leaf, Shared):
        if isinstance(leaf.unknown, Varying) and leaf.unknown.by is not None:
            return _gathered(leaf.unknown, over, leaf.name)
        return Shared(expanded(leaf.unknown, over), leaf.name)
    # 2. A dependent one is expanded through its arguments.
    if isinstance(leaf, Dependent):
        return _over_members(leaf, over)
    # 3. A varying one: by groups, as known numbers, or as independent draws.
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
    return _expanded_prior(leaf.one, over)


def _expanded_prior(one: Any, over: Over) -> Any:
    return _over_members(one, over) if isinstance(one, Dependent) else one.expand((over.size,))


def _gathered(leaf: Varying, over: Over, name: str = "") -> Dependent:
    """Values of groups, gathered to the members; `name` is the name if they are shared."""
    groups: Any = leaf.by
    # One draw for each group; each member takes the value of its own group.
    at = np.asarray(over.of_each(groups.of, f"values of '{groups.dim}'"))
    own = _expanded_prior(leaf.one, Over(over.members, groups))
    return Dependent(
        Gathered(groups, tuple(at.tolist())), {groups.dim: Shared(own, name) if name else own}, ()
    )


def _over_members(leaf: Dependent, over: Over) -> Dependent:
    # Arguments that vary become arrays over members; all others stay as they are.
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
    """Function that gathers the values of groups to members, or to smaller groups within them."""

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
        """Dimension and labels of the values of groups.

        Args:
            name: the argument that holds them.
            own: the dimension of the gathered values.

        Returns:
            The labels of the groups by their dimension.
        """
        return {self.groups.dim: self.groups.labels}


@dataclasses.dataclass(frozen=True)
class OverMembers:
    """A function of one member's parameters, applied to all members at once."""

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
        """Dimension of an argument: the members, if the argument varies.

        Args:
            name: the argument.
            own: the dimension of the members.

        Returns:
            The dimension, or an empty dict.
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
        # NumPyro's distributions take arrays of parameters; other functions need a `vmap`.
        if is_random(of(first)):
            return of(some)
        return jax.vmap(of)(some)
