"""The hidden units of networks, and the weights that lead from them to the next layer."""

import numpy as np
from jaxtyping import Int
from numpyro.distributions.transforms import IdentityTransform

from ...errors import ModelError
from ...networks.network import linear_layers, networks
from ...random import paths
from ..problem import Problem


def hidden_units(problem: Problem) -> Int[np.ndarray, " dimension"]:
    """Return the number of the hidden unit from which each weight leads, `(dimension,)`.

    The hidden units of all networks are numbered from 0. Parameters that are not such weights have
    −1.

    Args:
        problem: the posterior.

    Raises:
        ModelError: if there are no hidden units, or if their weights have a horseshoe prior or a
            support without zero.
    """
    unit = np.full(problem.dimension, -1)
    number = 0
    names = {place: path for path, leaf in paths(problem.model).items() for place in leaf.places}
    for where, network in networks(problem.model):
        # Inputs of all layers but the first are hidden units.
        for path in linear_layers(network)[1:]:
            weight = f"{where}.{path}.weight"
            site = problem.sites.get(names.get(weight, weight))
            # A horseshoe has random leaves inside of a weight.
            horseshoe = any(place.startswith(f"{weight}.") for place in names)
            if horseshoe or not (site is None or isinstance(site.bijector, IdentityTransform)):
                raise ModelError(
                    f"MCDropout makes weights zero, which the prior of '{weight}' forbids: take "
                    "fan_in"
                )
            # A known weight has no site, and its units always stay.
            if site is not None:
                outputs, inputs = site.shape
                own = slice(site.start, site.start + site.size)
                unit[own] = number + np.tile(np.arange(inputs), outputs)
                number += inputs
    if not number:
        raise ModelError(
            "MCDropout needs a bd.Network with a hidden layer (eqx.nn.Linear) whose weights are "
            "random"
        )
    return unit
