"""Where each random leaf lies in the flat vector, and the way from the real line to where it may
lie.
"""

import math
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jax.scipy.special import ndtr, ndtri
from jax.scipy.stats import norm
from jaxtyping import Array, Float
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    LowerCholeskyAffine,
    ParameterFreeTransform,
    Transform,
    biject_to,
)

from ..random import Dependent, RandomLeaf

type Sites = OrderedDict[str, Site]
"""By path, in the order of the vector; JAX would sort a plain dictionary whenever a tree is mapped.
"""


class Site(eqx.Module):
    """Where one random leaf lies in the flat vector, and how it gets there.

    One whose prior has a location and a scale that depend on other leaves is there in units of
    these (non-centring), so that no scale near zero makes a funnel; it is given as `standardised`.
    """

    start: int
    shape: tuple[int, ...]
    bijector: Transform
    standardised: RandomLeaf | None = None

    @property
    def size(self) -> int:
        """Unconstrained numbers: a point of the simplex of three has two."""
        return math.prod(self.bijector.inverse_shape(self.shape))

    def value(
        self, position: Float[Array, " dimension"], values: Mapping[str, Array]
    ) -> tuple[Array, Array]:
        """Return the value of the leaf, given those that it depends on, and log |det J|."""
        x = position[self.start : self.start + self.size].reshape(
            self.bijector.inverse_shape(self.shape)
        )
        log_det = jnp.zeros(())
        if (way := self.way(values)) is not None:
            x, z = way(x), x
            log_det = jnp.sum(way.log_abs_det_jacobian(z, x))
        value: Any = self.bijector(x)
        return value, log_det + jnp.sum(self.bijector.log_abs_det_jacobian(x, value))

    def flat(self, value: Array, values: Mapping[str, Array]) -> Float[Array, " size"]:
        """Where it lies in the flat vector, from its value and those that it depends on."""
        x: Any = self.bijector.inv(value)
        way = self.way(values)
        return jnp.ravel(x if way is None else way.inv(x))

    def way(self, values: Mapping[str, Array]) -> Transform | None:
        """The way from standardised numbers to unconstrained ones, given those that it depends on,
        if there is one.
        """
        return (
            None if self.standardised is None else _from_standard(self.standardised.given(values))
        )


def sites_of(leaves: Mapping[str, RandomLeaf]) -> tuple[Sites, int]:
    """The sites of random leaves by path, one after the other, and the length of the vector."""
    sites, start = OrderedDict(), 0
    for path, leaf in leaves.items():
        prior = leaf.distribution
        standardised = (
            leaf
            if isinstance(prior, Dependent) and _from_standard(prior.example()) is not None
            else None
        )
        sites[path] = Site(start, leaf.shape, bijector(prior.support), standardised)
        start += sites[path].size
    return sites, start


def constrained(
    sites: Sites, position: Float[Array, " dimension"]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the named values of a flat position, and log |det J| of each."""
    values, log_dets = {}, {}
    for path, site in sites.items():
        values[path], log_dets[path] = site.value(position, values)
    return values, log_dets


def unconstrained(sites: Sites, values: Mapping[str, Array]) -> Float[Array, " dimension"]:
    """The flat position of named values."""
    return jnp.concatenate([site.flat(values[path], values) for path, site in sites.items()])


_SCALED = (dist.HalfNormal, dist.HalfCauchy, dist.Weibull)
_RATED = (dist.Exponential, dist.Gamma)


def _from_standard(prior: Any) -> Transform | None:
    """The way from units of a prior's location and scale to its unconstrained numbers; none of
    other families.
    """
    while isinstance(prior, (dist.Independent, dist.ExpandedDistribution)):
        prior = prior.base_dist
    located = {"loc", "scale"} <= prior.arg_constraints.keys() and prior.support is constraints.real
    if located or type(prior) is dist.LogNormal:
        return AffineTransform(prior.loc, prior.scale)
    if type(prior) is dist.MultivariateNormal:
        return LowerCholeskyAffine(prior.loc, jnp.asarray(prior.scale_tril))
    # Of what is positive the unconstrained number is the logarithm, whose location is that of the
    # scale.
    if type(prior) in _SCALED:
        return AffineTransform(jnp.log(prior.scale), 1.0)
    return AffineTransform(-jnp.log(prior.rate), 1.0) if type(prior) in _RATED else None


def labels(sites: Sites) -> list[str]:
    """A name for each coordinate."""
    return [
        path if site.size == 1 else f"{path}[{i}]"
        for path, site in sites.items()
        for i in range(site.size)
    ]


class NormalCDF(ParameterFreeTransform):
    r"""$y = \Phi(x)$, from the real line to the unit interval.

    Where a posterior leans on a bound, the tail of x is that of a normal and not, as with a
    logistic function,
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
    """NumPyro's transform to a support, but with the normal's distribution function for an
    interval.
    """
    if isinstance(support, constraints.independent):
        return bijector(support.base_constraint)
    if not isinstance(support, constraints.interval) or support is constraints.circular:
        return biject_to(support)
    width = support.upper_bound - support.lower_bound
    return ComposeTransform(
        [NormalCDF(), AffineTransform(support.lower_bound, width, constraints.unit_interval)]
    )
