"""`posterior_fingerprint`: equal for two models and data with the same posterior."""

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
    """Return the SHA-256 of the traced log density and the supports of all random leaves.

    It changes with any equation, prior, noise, known number, solver setting or datum.

    Args:
        model: the model.
        inputs: its inputs.
        observed: the data of each observable.

    Returns:
        The hash as text.

    Raises:
        UnreadableError: if the model calls Python with an object that cannot be read.
    """
    leaves = paths(model)

    def log_joint(values):
        return log_density(substitute(model, data=values), (inputs, observed), {}, {})[0]

    # Shapes suffice, because the density is traced and not evaluated.
    examples = {
        path: jax.ShapeDtypeStruct(leaf.shape, jnp.result_type(float))
        for path, leaf in leaves.items()
    }
    # The same density on another support is another posterior.
    supports = {path: leaf.distribution.support for path, leaf in leaves.items()}
    return fingerprint_of(log_joint, examples, beside=supports)
