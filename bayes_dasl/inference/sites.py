"""Indices of random leaves in the flat vector, and transforms from real numbers to supports."""

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
"""Sites by path, in their order in the flat vector. JAX would sort the keys of a plain dict."""


class Site(eqx.Module):
    """The slice of the flat vector that belongs to a random leaf, and its transform.

    A leaf x whose prior has a location and a scale that depend on other leaves is non-centred. The
    flat vector then holds (x − location) / scale, which avoids funnels.

    Args:
        start: index of its first element in the flat vector.
        shape: shape of the constrained value.
        bijector: transform from unconstrained parameters to the support of the prior.
        standardised: the random leaf itself if it is non-centred, else None.
    """

    start: int
    shape: tuple[int, ...]
    bijector: Transform
    standardised: RandomLeaf | None = None

    @property
    def size(self) -> int:
        """Number of unconstrained parameters, such as two for a point of the simplex of three."""
        return math.prod(self.bijector.inverse_shape(self.shape))

    def value(
        self, position: Float[Array, " dimension"], values: Mapping[str, Array]
    ) -> tuple[Array, Array]:
        """Return the constrained value of the leaf, and log |det J| of its transform.

        Args:
            position: the flat vector, `(dimension,)`.
            values: constrained values by path, at least of the leaves on which this prior depends.
        """
        x = position[self.start : self.start + self.size].reshape(
            self.bijector.inverse_shape(self.shape)
        )
        log_det = jnp.zeros(())
        # 1. From standardised to unconstrained: x = location + scale · z.
        if (way := self.way(values)) is not None:
            x, z = way(x), x
            log_det = jnp.sum(way.log_abs_det_jacobian(z, x))
        # 2. From unconstrained to the support of the prior.
        value: Any = self.bijector(x)
        return value, log_det + jnp.sum(self.bijector.log_abs_det_jacobian(x, value))

    def flat(self, value: Array, values: Mapping[str, Array]) -> Float[Array, " size"]:
        """Return the elements of the flat vector, `(size,)`, for a constrained value of the leaf.

        Args:
            value: the constrained value.
            values: constrained values by path, at least of the leaves on which this prior depends.
        """
        x: Any = self.bijector.inv(value)
        way = self.way(values)
        return jnp.ravel(x if way is None else way.inv(x))

    def way(self, values: Mapping[str, Array]) -> Transform | None:
        """Return the transform x = location + scale · z of a non-centred leaf, else None.

        Here x is unconstrained and z its standardised element of the flat vector.

        Args:
            values: constrained values by path, at least of the leaves on which this prior depends.
        """
        return (
            None if self.standardised is None else _location_scale(self.standardised.given(values))
        )


def sites_of(leaves: Mapping[str, RandomLeaf]) -> tuple[Sites, int]:
    """Return the sites of random leaves by path, and the length of the flat vector.

    Args:
        leaves: random leaves by path, in the order of the flat vector.
    """
    sites, start = OrderedDict(), 0
    for path, leaf in leaves.items():
        prior = leaf.distribution
        non_centred = isinstance(prior, Dependent) and _location_scale(prior.example()) is not None
        standardised = leaf if non_centred else None
        sites[path] = Site(start, leaf.shape, bijector(prior.support), standardised)
        start += sites[path].size
    return sites, start


def constrained(
    sites: Sites, position: Float[Array, " dimension"]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Return the constrained value of each leaf, and log |det J| of its transform, both by path.

    Args:
        sites: sites by path.
        position: the flat vector, `(dimension,)`.
    """
    values, log_dets = {}, {}
    for path, site in sites.items():
        values[path], log_dets[path] = site.value(position, values)
    return values, log_dets


def unconstrained(sites: Sites, values: Mapping[str, Array]) -> Float[Array, " dimension"]:
    """Return the flat vector `(dimension,)` for constrained values.

    Args:
        sites: sites by path.
        values: constrained values of all leaves, by path.
    """
    return jnp.concatenate([site.flat(values[path], values) for path, site in sites.items()])


# Positive families with a scale or a rate parameter.
_SCALED = (dist.HalfNormal, dist.HalfCauchy, dist.Weibull)
_RATED = (dist.Exponential, dist.Gamma)


def _location_scale(prior: Any) -> Transform | None:
    """Return the transform x = location + scale · z of a prior to unconstrained x.

    For families without a location or scale it is None.
    """
    while isinstance(prior, (dist.Independent, dist.ExpandedDistribution)):
        prior = prior.base_dist
    located = {"loc", "scale"} <= prior.arg_constraints.keys() and prior.support is constraints.real
    if located or type(prior) is dist.LogNormal:
        return AffineTransform(prior.loc, prior.scale)
    if type(prior) is dist.MultivariateNormal:
        return LowerCholeskyAffine(prior.loc, jnp.asarray(prior.scale_tril))
    # The unconstrained parameter of a positive value is its logarithm, which a scale shifts.
    if type(prior) in _SCALED:
        return AffineTransform(jnp.log(prior.scale), 1.0)
    return AffineTransform(-jnp.log(prior.rate), 1.0) if type(prior) in _RATED else None


def labels(sites: Sites) -> list[str]:
    """Return a name for each unconstrained parameter, such as `path`, or `path[0]` in an array."""
    return [
        path if site.size == 1 else f"{path}[{i}]"
        for path, site in sites.items()
        for i in range(site.size)
    ]


class NormalCDF(ParameterFreeTransform):
    r"""The map $y = \Phi(x)$ from the real line to the unit interval.

    $\Phi$ is the standard normal distribution function. For a posterior at a bound, the tail of
    $x$ is normal; with a logistic function it would be exponential. One step size of NUTS then
    suits tail and centre.
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
    """Return NumPyro's transform from real numbers to a support.

    For an interval it is the normal distribution function instead, stretched to the bounds.
    """
    if isinstance(support, constraints.independent):
        return bijector(support.base_constraint)
    if not isinstance(support, constraints.interval) or support is constraints.circular:
        return biject_to(support)
    width = support.upper_bound - support.lower_bound
    return ComposeTransform(
        [NormalCDF(), AffineTransform(support.lower_bound, width, constraints.unit_interval)]
    )
