"""Guides of variational inference: families of distributions of one vector, by NumPyro."""

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
    """A NumPyro guide of one vector z with x = mode + scale z, as a distribution that depends on
    parameters.

    `closed`: its density at any point is cheap, so that the ELBO's gradient can leave the
    parameters' own share out.
    """

    initial: Parameters
    posterior: Callable[[Parameters], Any]
    scale: Float[np.ndarray, "dimension dimension"]
    closed: bool = True


def build_family(
    kind: str, root: Float[np.ndarray, "dimension dimension"], *, key: Array
) -> Family:
    """The guide in coordinates in which the Laplace approximation, of covariance R Rᵀ, is about
    standard normal.
    """
    dimension, covariance = len(root), root @ root.T
    diagonal, dense = np.diag(np.sqrt(np.diag(covariance))), lower_factor(root)
    if kind == "laplace":
        return Family({}, lambda _: dist.Normal(jnp.zeros(dimension), 1.0).to_event(1), dense)
    if kind == "mean_field":
        # The diagonal normal closest to a normal has its conditional scales, not its marginal ones.
        conditional = np.diag(1 / np.linalg.norm(np.linalg.inv(root), axis=0))
        return _numpyro_family(
            autoguide.AutoDiagonalNormal, conditional, {"init_scale": 1.0}, key=key
        )
    if kind == "low_rank":
        family = _numpyro_family(
            autoguide.AutoLowRankMultivariateNormal, diagonal, {"init_scale": 1.0}, key=key
        )
        factor, rest = _factors(covariance, family.initial["auto_cov_factor"].shape[1])
        # NumPyro's factor is in units of the remaining scale, and softplus makes that positive.
        started = {
            "auto_cov_factor": jnp.asarray(factor / rest[:, None]),
            "auto_scale": jnp.log(jnp.expm1(rest)),
        }
        return dataclasses.replace(family, initial=family.initial | started)
    if kind == "full_rank":
        return _numpyro_family(
            autoguide.AutoMultivariateNormal, dense, {"init_scale": 1.0}, key=key
        )
    width = max(_FLOW_WIDTH, dimension)
    family = _numpyro_family(
        autoguide.AutoIAFNormal, dense, {"hidden_dims": [width, width]}, key=key
    )
    # Small weights make the flow begin near the identity.
    return dataclasses.replace(
        family, initial=jax.tree.map(lambda w: 0.3 * w, family.initial), closed=False
    )


def _numpyro_family(
    guide_class: Any, scale: np.ndarray, options: dict[str, Any], *, key: Array
) -> Family:
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


def _factors(covariance: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """Loadings `(dimension, rank)` of the correlation matrix on its main axes, and the scales that
    remain.
    """
    scale = np.sqrt(np.diag(covariance))
    values, vectors = np.linalg.eigh(covariance / np.outer(scale, scale))
    noise = values[:-rank].mean() if rank < len(values) else values[0]
    loadings = vectors[:, -rank:] * np.sqrt(np.maximum(values[-rank:] - noise, 0.0))
    return loadings, np.sqrt(np.maximum(1.0 - (loadings**2).sum(1), 0.05))
