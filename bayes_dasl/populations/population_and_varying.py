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
    """The assignment of members to groups.

    Args:
        dim: the dimension of groups in results, such as "site".
        labels: the name of each group.
        of: for each member the position of its group in `labels`.
    """

    dim: str
    labels: tuple[Any, ...]
    of: tuple[int, ...]

    @property
    def first(self) -> np.ndarray:
        """The position of the first member of each group."""
        return np.unique(self.of, return_index=True)[1]


class Varying(Unknown):
    """A parameter with one value for each member or group, which `Each` expands to an array.

    Args:
        one: the distribution of one value, or known numbers, `(member,)`.
        by: the groups whose members share a value; None for one value for each member.
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
    """Return a parameter with one value for each member of a population.

    Args:
        one: the distribution of one member's value, which may depend on shared parameters
            (`bd.dependent`, `bd.shared`). Or known numbers, `(member,)`, such as body weights.
        by: the group of each member, such as `{"site": sites}`, where the array `sites` holds a
            name or number for each member. Members of one group then share one value. The key is
            the dimension of groups in results.

    Returns:
        A parameter for a layer that is wrapped in `bd.Each`.

    Raises:
        ModelError: if `one` is neither a distribution of one value nor an array of numbers. Also if
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
    """Convert the argument `by` of `varying` to groups.

    Raises:
        ModelError: if `by` is not a dict with one entry: an array with the group of each member.
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
    r"""Return a positive random effect: a log-normal value for each member of a population.

    $\log \theta_i \sim N(\log \text{center} + \text{effect}_i, \text{spread})$ for member i

    The more similar the members are according to the data, the more information they share (partial
    pooling).

    Args:
        center: the typical value, in the units of the parameter: a number, or a distribution over
            positive numbers.
        spread: the scale of the random effect, a standard deviation of logarithms. 0.3 is about
            30 % of the value.
        effect: a covariate effect on the logarithm, such as `slope * bd.varying(log_weight)`.
        by: the group of each member, as in `{"site": sites}`, for one value for each group. The
            result may be the `center` of another population, whose members vary around the value of
            their group.

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
    """Return the distribution of a random effect; the arguments are those of `population`."""
    return dist.LogNormal(jnp.log(center) + effect, spread)


def varies(leaf: Any) -> bool:
    """Whether a parameter varies between members, directly or because an argument of it varies."""
    if isinstance(leaf, Varying):
        return True
    if isinstance(leaf, Shared):
        return varies(leaf.unknown)
    return isinstance(leaf, Dependent) and _holds_varying(leaf.arguments)


@dataclasses.dataclass(frozen=True)
class Over:
    """The axis along which a parameter varies: the members, or groups of members.

    Args:
        members: the number of members.
        groups: the groups, each with one value. With None, each member has its own value.
    """

    members: int
    groups: Groups | None = None

    @property
    def size(self) -> int:
        """The number of members or groups."""
        return self.members if self.groups is None else len(self.groups.labels)

    def of_each(self, values: Any, what: str) -> Any:
        """Convert known values of members to values along this axis.

        Args:
            values: one value for each member. For members, JAX may trace them.
            what: the name of the values in error messages.

        Returns:
            The same values; for groups, the common value of the members of each group.

        Raises:
            ModelError: if the number of values differs from that of members, or if values differ
                within a group.
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
    """Expand a varying parameter to an array over members or groups.

    Args:
        leaf: the parameter: a `Varying`, or a `Shared` or `Dependent` that contains one.
        over: the members or groups.

    Raises:
        ModelError: if the value of a group would depend on values of single members.
    """
    # 1. A shared parameter keeps its name.
    if isinstance(leaf, Shared):
        if isinstance(leaf.unknown, Varying) and leaf.unknown.by is not None:
            return _gathered(leaf.unknown, over, leaf.name)
        return Shared(expanded(leaf.unknown, over), leaf.name)
    # 2. A dependent one is expanded through its arguments.
    if isinstance(leaf, Dependent):
        return _over_members(leaf, over)
    # 3. A `Varying`: values of groups, known numbers, or independent draws.
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
    """Return the joint prior of independent values, one for each member or group."""
    return _over_members(one, over) if isinstance(one, Dependent) else one.expand((over.size,))


def _gathered(leaf: Varying, over: Over, name: str = "") -> Dependent:
    """Return values of members, or of smaller groups, taken from values of groups.

    Args:
        leaf: the parameter with groups.
        over: the members, or smaller groups within the groups of `leaf`.
        name: the name of the parameter if it is shared; empty otherwise.
    """
    groups: Any = leaf.by
    # One draw for each group; each member takes the value of its own group.
    at = np.asarray(over.of_each(groups.of, f"values of '{groups.dim}'"))
    own = _expanded_prior(leaf.one, Over(over.members, groups))
    return Dependent(
        Gathered(groups, tuple(at.tolist())), {groups.dim: Shared(own, name) if name else own}, ()
    )


def _over_members(leaf: Dependent, over: Over) -> Dependent:
    """Expand a dependent parameter to members or groups."""
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
    """Whether any random leaf in a tree varies between members."""
    return any(map(varies, jax.tree.leaves(value, is_leaf=is_random)))


@dataclasses.dataclass(frozen=True)
class Gathered:
    """A function that takes the values of groups and returns values of their members.

    The members may themselves be smaller groups.

    Args:
        groups: the groups.
        at: for each member the position of its group.
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
        """Return the dimension of the argument, which holds the values of groups.

        Args:
            name: the name of the argument; not used.
            own: the dimension of the returned values of members; not used.

        Returns:
            The labels of the groups by the name of their dimension.
        """
        return {self.groups.dim: self.groups.labels}


@dataclasses.dataclass(frozen=True)
class OverMembers:
    """A function of one member's parameters, applied to all members at once.

    Args:
        of_one: the function for one member. It returns a number or a distribution.
        by_place: the names of the arguments that are passed by position.
        varied: the names of the arguments that vary, which are arrays over members.
        members: the number of members or groups.
    """

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
        """Return the dimension of an argument of the function.

        Args:
            name: the name of the argument.
            own: `{dimension: labels}` of the members or groups.

        Returns:
            The same if the argument varies, else an empty dict.
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
