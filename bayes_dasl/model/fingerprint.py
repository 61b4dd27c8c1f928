"""`posterior_fingerprint`: a hash that is equal for models and data with the same posterior."""

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
    """Return the SHA-256 hash of the log posterior density of a model and its data.

    JAX traces the log density, and the hash is that of the traced program and of the supports of
    all random leaves. It changes with any equation, prior, noise, known number, solver setting or
    datum.

    Args:
        model: the model.
        inputs: its inputs for the data.
        observed: the data of each observable, `(time, …)`, NaN where missing.

    Returns:
        The hash as 64 hexadecimal digits.

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
