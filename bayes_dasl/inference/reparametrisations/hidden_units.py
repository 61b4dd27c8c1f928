"""Hidden units of networks, and the weights that they feed."""

import numpy as np
from jaxtyping import Int
from numpyro.distributions.transforms import IdentityTransform

from ...errors import ModelError
from ...networks.network import linear_layers, networks
from ...random import paths
from ..problem import Problem


def hidden_units(problem: Problem) -> Int[np.ndarray, " dimension"]:
    """For each coordinate the hidden unit that its weight is fed by; −1 for all that is no such
    weight.

    Raises:
        ModelError: where there is no hidden unit, or weights cannot be zero or lie under a
            horseshoe.
    """
    unit, number = np.full(problem.dimension, -1), 0
    names = {place: path for path, leaf in paths(problem.model).items() for place in leaf.places}
    for where, network in networks(problem.model):
        for path in linear_layers(network)[1:]:
            weight = f"{where}.{path}.weight"
            site = problem.sites.get(names.get(weight, weight))
            if any(place.startswith(f"{weight}.") for place in names) or not (
                site is None or isinstance(site.bijector, IdentityTransform)
            ):
                raise ModelError(
                    f"MCDropout makes weights zero, which the prior of '{weight}' forbids: take "
                    "fan_in"
                )
            if site is not None:
                outputs, inputs = site.shape
                unit[site.start : site.start + site.size] = number + np.tile(
                    np.arange(inputs), outputs
                )
                number += inputs
    if not number:
        raise ModelError(
            "MCDropout needs a bd.Network with a hidden layer (eqx.nn.Linear) whose weights are "
            "random"
        )
    return unit
