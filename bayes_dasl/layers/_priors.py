"""What may stand for a number: priors that can be inferred, each an object of its own."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import Any

import jax.tree_util as jtu
import numpy as np
import numpyro.distributions as dist

from .._jax.tree import Path, child, dotted, key_name, nodes_along
from ..errors import ModelError
from ..random import bounds, is_random, of_a_prior, paths


def check_priors(tree: Any) -> None:
    """Refuse distributions that are no priors of a number, and one object in two places.

    Raises: ModelError that names the random leaf and says what to write instead.
    """
    for path, leaf in paths(tree).items():
        for fault in _faults(leaf.distribution):
            raise ModelError(f"'{path}' {fault}")
    _refuse_one_object_in_two_places(tree)


def _faults(distribution: dist.Distribution) -> Iterator[str]:
    for part in _inside(distribution):
        kind = type(part).__name__
        if fault := of_a_prior(part):
            yield fault
        if isinstance(part, dist.Delta):
            yield "has the distribution Delta, which is a known number: write the number itself"
        if isinstance(part, dist.MaskedDistribution):
            yield "has a masked distribution, which counts for nothing where it is masked: write it without its mask"
        if isinstance(part, (dist.ImproperUniform, dist.Unit)):
            yield f"has the distribution {kind}, which cannot be drawn from: take a proper one, such as a wide Normal"
    kind = type(distribution).__name__
    if distribution.is_discrete:
        yield f"has the discrete distribution {kind}: only continuous ones can be inferred"
    sides = bounds(distribution.support)
    if sides.get("lower", -np.inf) >= sides.get("upper", np.inf):
        yield f"has the distribution {kind} from {sides['lower']:g} to {sides['upper']:g}: the latter must be larger"


def _inside(distribution: Any) -> Iterator[Any]:
    """A distribution and those that it is made from, one inside the other."""
    while is_random(distribution):
        yield distribution
        distribution = getattr(distribution, "base_dist", None)


def _refuse_one_object_in_two_places(tree: Any) -> None:
    held: dict[int, Path] = {}
    for path, leaf in jtu.tree_flatten_with_path(tree, is_leaf=is_random)[0]:
        if not is_random(leaf):
            continue
        first = held.setdefault(id(leaf), path)
        if first is not path and not (_by_default(tree, first) and _by_default(tree, path)):
            raise ModelError(_told(tree, first, path))


def _by_default(tree: Any, path: Path) -> bool:
    """Whether nobody wrote down what lies there: it, or what it lies in, is the default of a class."""
    return any(child(node, key) is default for node, key in nodes_along(tree, path) for default in _defaults(node, key))


def _defaults(node: Any, key: Any) -> list[Any]:
    if not dataclasses.is_dataclass(node):
        return []
    of_fields = [f.default for f in dataclasses.fields(node) if f.name == key_name(key)]
    return of_fields + [p.default for p in inspect.signature(type(node).__init__).parameters.values()]


def _told(tree: Any, one: Path, other: Path) -> str:
    """Names the largest part that both places share."""
    ones, others = ([node for node, _ in nodes_along(tree, path)] for path in (one, other))
    shared, kind = 0, "distribution"
    for a, b, key, same in zip(reversed(ones[1:]), reversed(others[1:]), reversed(one), reversed(other), strict=False):
        if a is not b or key != same:
            break
        shared, kind = shared + 1, type(a).__name__
    names = [dotted(path[: len(path) - shared]) for path in (one, other)]
    of_noise = all(name.startswith("noise.") for name in names)
    return (
        f"'{names[0]}' and '{names[1]}' are one {kind} object, of which two separate unknowns would be made: write it "
        "twice, an object for each place, if these are meant; one unknown number in two places is not available yet"
        + ("; one noise for all observables is bd.Model(layer, noise)" if of_noise else "")
    )
