"""From the real line to where a parameter may lie."""

from typing import Any

import jax.numpy as jnp
from jax.scipy.special import ndtr, ndtri
from jax.scipy.stats import norm
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    AffineTransform,
    ComposeTransform,
    ParameterFreeTransform,
    Transform,
    biject_to,
)


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
