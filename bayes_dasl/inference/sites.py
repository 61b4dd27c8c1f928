"""Where each random leaf lies in the flat vector, and the way from the real line to where it may lie."""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ParameterFreeTransform,
    Transform,
    biject_to,
)

from ..random import RandomLeaf

type Sites = OrderedDict[str, Site]
"""By path, in the order of the vector; JAX would sort a plain dictionary whenever a tree is mapped."""


class Site(eqx.Module):
    """Where one random leaf lies in the flat vector, and how it gets there."""

    start: int
    shape: tuple[int, ...]
    bijector: Transform

    @property
    def size(self) -> int:
        """Unconstrained numbers: a point of the simplex of three has two."""
        return math.prod(self.bijector.inverse_shape(self.shape))


def sites_of(leaves: Mapping[str, RandomLeaf]) -> tuple[Sites, int]:
    """The sites of random leaves by path, one after the other, and the length of the vector."""
    sites, start = OrderedDict(), 0
    for path, leaf in leaves.items():
        sites[path] = Site(start, leaf.shape, bijector(leaf.distribution.support))
        start += sites[path].size
    return sites, start


def constrained(sites: Sites, position: Float[Array, " dimension"]) -> tuple[dict[str, Array], Array]:
    """Named values of a flat position, and the log of the volume that the way there stretches."""
    values, log_jacobian = {}, jnp.zeros(())
    for path, site in sites.items():
        flat = position[site.start : site.start + site.size]
        x = flat.reshape(site.bijector.inverse_shape(site.shape))
        values[path] = site.bijector(x)
        log_jacobian += jnp.sum(site.bijector.log_abs_det_jacobian(x, values[path]))
    return values, log_jacobian


def unconstrained(sites: Sites, values: Mapping[str, Array]) -> Float[Array, " dimension"]:
    """The flat position of named values."""
    return jnp.concatenate([jnp.ravel(site.bijector.inv(values[path])) for path, site in sites.items()])


def labels(sites: Sites) -> list[str]:
    """A name for each coordinate."""
    return [path if site.size == 1 else f"{path}[{i}]" for path, site in sites.items() for i in range(site.size)]


class NormalCDF(ParameterFreeTransform):
    r"""$y = \Phi(x)$, from the real line to the unit interval.

    Where a posterior leans on a bound, the tail of x is that of a normal and not, as with a logistic function,
    exponential: NUTS gets through it with one step size.
    """

    domain: Any = constraints.real
    codomain: Any = constraints.unit_interval

    def __call__(self, x):
        limits = jnp.finfo(jnp.result_type(x, float))
        return jnp.clip(ndtr(x), limits.tiny, 1.0 - limits.eps)

    def _inverse(self, y):
        return ndtri(y)

    def log_abs_det_jacobian(self, x, y, intermediates=None):
        return norm.logpdf(x)


def bijector(support: Any) -> Transform:
    """NumPyro's transform to a support, but with the normal's distribution function for an interval."""
    if isinstance(support, constraints.independent):
        return bijector(support.base_constraint)
    if not isinstance(support, constraints.interval) or support is constraints.circular:
        return biject_to(support)
    width = support.upper_bound - support.lower_bound
    return ComposeTransform([NormalCDF(), AffineTransform(support.lower_bound, width, constraints.unit_interval)])
