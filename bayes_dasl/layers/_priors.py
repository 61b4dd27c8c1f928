"""Checks of the priors of a model: proper, continuous, and one object for each random leaf."""

import dataclasses
import inspect
from collections.abc import Iterator, Mapping
from typing import Any

import equinox as eqx
import jax.tree_util as jtu
import numpy as np
import numpyro.distributions as dist
from jax.core import Tracer

from .._jax.tree import Path, child, dotted, key_name, nodes_along
from .._statistics.describe_distributions import bounds, of_a_prior
from ..errors import ModelError
from ..random import Dependent, RandomLeaf, Shared, is_random, occurrences


def check_priors(tree: Any) -> None:
    """Refuse invalid priors, and one distribution object in two places of a model.

    Args:
        tree: a model, or a part of one.

    Raises:
        ModelError: if a prior is invalid, or if one object stands in two places without
            `bd.shared`. The message names the leaf and a remedy.
    """
    held: dict[str, RandomLeaf] = {}
    for leaf in occurrences(tree):
        for fault in _prior_faults(leaf.distribution):
            raise ModelError(f"'{leaf.path}' {fault}")
        other = held.setdefault(leaf.path, leaf)
        # A traced comparison cannot be decided here. It was decided when the model was built.
        same = other is leaf or eqx.tree_equal(other.distribution, leaf.distribution)
        if not isinstance(same, Tracer) and not same:
            raise ModelError(
                f"'{leaf.path}' is the name of two unknown numbers with different priors: call "
                "bd.shared once, and put "
                "what it returns everywhere"
            )
    _refuse_one_object_in_two_places(tree)
    _refuse_unshared(held)
    _refuse_other_groups(held)


def _refuse_other_groups(leaves: Mapping[str, RandomLeaf]) -> None:
    """Raise ModelError if two leaves have a dimension of the same name but different labels.

    Results have one dimension for each name, such as `site`, so its labels must agree.

    Args:
        leaves: the random leaves of a model by path.
    """
    known: dict[str, Any] = {}
    for dim, labels in (of_leaf for leaf in leaves.values() for of_leaf in leaf.dims.items()):
        if known.setdefault(dim, labels) != labels:
            raise ModelError(
                f"'{dim}' are {', '.join(map(str, known[dim]))} in one place and "
                f"{', '.join(map(str, labels))} in "
                "another: give groups that are not the same different names"
            )


def _prior_faults(distribution: dist.Distribution) -> Iterator[str]:
    """Yield a message for each reason why a distribution cannot be a prior."""
    # Check a dependent prior with example values of its arguments.
    of = distribution.example() if isinstance(distribution, Dependent) else distribution
    for part in _nested_distributions(of):
        kind = type(part).__name__
        if fault := of_a_prior(part):
            yield fault
        if isinstance(part, dist.Delta):
            yield "has the distribution Delta, which is a known number: write the number itself"
        if isinstance(part, dist.MaskedDistribution):
            yield (
                "has a masked distribution, which counts for nothing where it is masked: write it "
                "without its mask"
            )
        if isinstance(part, (dist.ImproperUniform, dist.Unit)):
            yield (
                f"has the distribution {kind}, which cannot be drawn from: take a proper one, such "
                "as a wide Normal"
            )
    if unbound := getattr(distribution, "unbound", ""):
        yield unbound
        return
    kind = type(of).__name__
    if of.is_discrete:
        yield f"has the discrete distribution {kind}: only continuous ones can be inferred"
    sides = bounds(of.support)
    if sides.get("lower", -np.inf) >= sides.get("upper", np.inf):
        yield (
            f"has the distribution {kind} from {sides['lower']:g} to {sides['upper']:g}: the "
            "latter must be larger"
        )


def _nested_distributions(distribution: Any) -> Iterator[Any]:
    """Yield a distribution and its nested base distributions, the outermost first."""
    while is_random(distribution):
        yield distribution
        distribution = getattr(distribution, "base_dist", None)


def _refuse_unshared(leaves: Mapping[str, RandomLeaf]) -> None:
    """Raise ModelError if one distribution object has two names: it would be two parameters.

    Args:
        leaves: the random leaves of a model by path.
    """
    named: dict[int, str] = {}
    for path, leaf in leaves.items():
        other = named.setdefault(id(leaf.distribution), path)
        if other != path and not all(name in leaves[name].places for name in (other, path)):
            raise ModelError(
                f"'{other}' and '{path}' are one {type(leaf.distribution).__name__} object, of "
                "which two separate "
                "unknowns would be made: put what one call of bd.shared(…, name) returns in both "
                "places if it is one "
                "number, or write it twice if these are two"
            )


def _refuse_one_object_in_two_places(tree: Any) -> None:
    """Raise ModelError if one distribution object stands in two places without `bd.shared`.

    Default values of classes may stand in several places.
    """
    held: dict[int, Path] = {}
    for path, leaf in jtu.tree_flatten_with_path(tree, is_leaf=is_random)[0]:
        if (
            not is_random(leaf)
            or isinstance(leaf, Shared)
            or (isinstance(leaf, Dependent) and not leaf.drawn)
        ):
            continue
        first = held.setdefault(id(leaf), path)
        if first is not path and not (_by_default(tree, first) and _by_default(tree, path)):
            raise ModelError(_one_object_message(tree, first, path))


def _by_default(tree: Any, path: Path) -> bool:
    """Whether a value belongs to the default value of a field or argument of its class.

    Args:
        tree: the tree that holds the value.
        path: the path of the value.
    """
    return any(
        child(node, key) is default
        for node, key in nodes_along(tree, path)
        for default in _defaults(node, key)
    )


def _defaults(node: Any, key: Any) -> list[Any]:
    """Return the default of the field `key` of a dataclass, and all defaults of its `__init__`."""
    if not dataclasses.is_dataclass(node):
        return []
    of_fields = [f.default for f in dataclasses.fields(node) if f.name == key_name(key)]
    return of_fields + [
        p.default for p in inspect.signature(type(node).__init__).parameters.values()
    ]


def _one_object_message(tree: Any, one: Path, other: Path) -> str:
    """Return the message about one object at two paths.

    The message names the largest part of the tree that stands at both places.

    Args:
        tree: the model.
        one: the path of a leaf.
        other: another path of the same leaf.
    """
    # Go from both leaves towards the root as long as the nodes are the same object.
    ones, others = ([node for node, _ in nodes_along(tree, path)] for path in (one, other))
    shared, kind = 0, "distribution"
    for a, b, key, same in zip(
        reversed(ones[1:]), reversed(others[1:]), reversed(one), reversed(other), strict=False
    ):
        if a is not b or key != same:
            break
        shared, kind = shared + 1, type(a).__name__
    names = [dotted(path[: len(path) - shared]) for path in (one, other)]
    of_noise = all(name.startswith("noise.") for name in names)
    return (
        f"'{names[0]}' and '{names[1]}' are one {kind} object, of which two separate unknowns "
        "would be made: write it "
        "twice, an object for each place, if these are meant; put what one call of bd.shared(…, "
        "name) returns in both "
        "places if it is one unknown"
        + ("; one noise for all observables is bd.Model(layer, noise)" if of_noise else "")
    )
