"""Guides (variational families) for `SVI`, built from those of NumPyro."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
from jaxtyping import Array, Float
from numpyro.infer import autoguide, init_to_value

from ...inference.metric import lower_factor

GUIDES = ("laplace", "mean_field", "low_rank", "full_rank", "flow")

_FLOW_WIDTH = 32

type Parameters = Any  # a pytree of unconstrained arrays


@dataclasses.dataclass(frozen=True)
class Family:
    """A NumPyro guide for a vector z, as a function of its parameters.

    The unconstrained parameters of the model are x = mode + scale z.

    Args:
        initial: initial values of the guide's parameters.
        posterior: a function from parameters to the distribution of z.
        scale: the matrix that maps z to x − mode.
        closed: whether the density of the guide is cheap to evaluate at any point. If so, the
            gradient of the ELBO omits the score term.
    """

    initial: Parameters
    posterior: Callable[[Parameters], Any]
    scale: Float[np.ndarray, "dimension dimension"]
    closed: bool = True


def build_family(
    kind: str, root: Float[np.ndarray, "dimension dimension"], *, key: Array
) -> Family:
    """Return a guide whose initial distribution is close to the Laplace approximation.

    Args:
        kind: one of `GUIDES`.
        root: a matrix R with R Rᵀ equal to the covariance of the Laplace approximation. It
            determines `scale`, so that the initial guide for z is near a standard normal.
        key: random seed of the initial parameters.
    """
    dimension = len(root)
    covariance = root @ root.T
    dense = lower_factor(root)
    if kind == "laplace":
        return Family({}, lambda _: dist.Normal(jnp.zeros(dimension), 1.0).to_event(1), dense)
    if kind == "mean_field":
        # The diagonal normal closest to a normal has its conditional scales, not its marginal
        # ones: 1 / sqrt((Σ⁻¹)_ii).
        conditional = np.diag(1 / np.linalg.norm(np.linalg.inv(root), axis=0))
        return _numpyro_family(autoguide.AutoDiagonalNormal, conditional, key=key, init_scale=1.0)
    if kind == "low_rank":
        diagonal = np.diag(np.sqrt(np.diag(covariance)))
        family = _numpyro_family(
            autoguide.AutoLowRankMultivariateNormal, diagonal, key=key, init_scale=1.0
        )
        factor, rest = _factor_model(covariance, family.initial["auto_cov_factor"].shape[1])
        # NumPyro's covariance is D (F Fᵀ + 1) D, with D = softplus(auto_scale).
        started = {
            "auto_cov_factor": jnp.asarray(factor / rest[:, None]),
            "auto_scale": jnp.log(jnp.expm1(rest)),
        }
        return dataclasses.replace(family, initial=family.initial | started)
    if kind == "full_rank":
        return _numpyro_family(autoguide.AutoMultivariateNormal, dense, key=key, init_scale=1.0)
    width = max(_FLOW_WIDTH, dimension)
    family = _numpyro_family(autoguide.AutoIAFNormal, dense, key=key, hidden_dims=[width, width])
    # Small weights make the flow begin near the identity.
    initial = jax.tree.map(lambda w: 0.3 * w, family.initial)
    return dataclasses.replace(family, initial=initial, closed=False)


def _numpyro_family(guide_class: Any, scale: np.ndarray, *, key: Array, **options: Any) -> Family:
    """Return a NumPyro guide as a `Family`.

    Args:
        guide_class: a class of `numpyro.infer.autoguide`.
        scale: the matrix that maps z to x − mode.
        key: random seed of the initial parameters.
        options: further arguments of `guide_class`.
    """
    dimension = len(scale)

    def model():
        numpyro.sample("z", dist.ImproperUniform(dist.constraints.real_vector, (), (dimension,)))

    guide = guide_class(
        model, init_loc_fn=init_to_value(values={"z": jnp.zeros(dimension)}), **options
    )
    svi: Any = numpyro.infer.SVI(model, guide, optax.identity(), numpyro.infer.Trace_ELBO())
    initial = svi.optim.get_params(svi.init(key).optim_state)

    def posterior(parameters):
        fitted = guide.get_posterior(svi.constrain_fn(parameters))
        return fitted if fitted.event_dim else fitted.to_event(1)

    return Family(initial, posterior, scale)


def _factor_model(covariance: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Approximate a correlation matrix by F Fᵀ + diag(s²), with F of the given rank.

    Args:
        covariance: the covariance whose correlation matrix is approximated.
        rank: the number of columns of F.

    Returns:
        F, `(dimension, rank)`, and s, `(dimension,)`.
    """
    scale = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    noise = values[:-rank].mean() if rank < len(values) else values[0]
    loadings = vectors[:, -rank:] * np.sqrt(np.maximum(values[-rank:] - noise, 0.0))
    return loadings, np.sqrt(np.maximum(1.0 - (loadings**2).sum(1), 0.05))
