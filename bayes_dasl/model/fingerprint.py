"""Whether two models and their data have the same posterior."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.handlers import substitute
from numpyro.infer.util import log_density

from .._jax.fingerprints import fingerprint_of
from ..data.layer_inputs import Inputs
from ..random import paths


def posterior_fingerprint(
    model: Any, inputs: Inputs, observed: Mapping[str, Float[Array, "time ..."]]
) -> str:
    """SHA-256 of the traced log density of a model and data, and of where each random leaf may lie.

    It changes with any equation, prior, noise, known number, solver setting or datum.

    Raises:
        UnreadableError: where the model calls Python with something that cannot be read.
    """
    leaves = paths(model)

    def log_joint(values):
        return log_density(substitute(model, data=values), (inputs, observed), {}, {})[0]

    examples = {
        path: jax.ShapeDtypeStruct(leaf.shape, jnp.result_type(float))
        for path, leaf in leaves.items()
    }
    supports = {path: leaf.distribution.support for path, leaf in leaves.items()}
    return fingerprint_of(log_joint, examples, beside=supports)
