"""A baseline whose scientific parameters are fixed."""

import jax.numpy as jnp
import jax.tree_util as jtu

from .._jax.keys import as_key
from .._jax.tree import dotted
from ..errors import ModelError
from ..model import Model
from ..priors import draw_prior
from ..random import RandomLeaf, is_random, paths, realise

_DRAWS = 4096


def fixed(model: Model) -> Model:
    """Fix each scientific parameter at the median of its prior.

    Initial states, noise and networks stay unknown. A parameter that both the equations and an
    initial state use is fixed in both. For a purely scientific model, the baseline then has the
    parameter values of the literature, if the priors are centred on these. For a hybrid, only the
    network is learned.

    Args:
        model: a model with scientific parameters in its layer.

    Returns:
        The baseline.

    Raises:
        ModelError: if there are no scientific parameters, or priors of remaining unknowns depend on
            them.
    """
    layer = model.layer
    # 1. Find the parameters to fix.
    leaves = paths(layer)
    known = {path for path, leaf in leaves.items() if leaf.group == "science" and not _stays(leaf)}
    if not known:
        raise ModelError("the layer has no unknown numbers of science: there is nothing to fix")
    # 2. Replace all distributions by medians of prior draws.
    drawn = draw_prior(layer, _DRAWS, key=as_key(0))
    middle = realise(layer, {path: jnp.median(values, axis=0) for path, values in drawn.items()})
    # 3. Use these medians only for the parameters to fix.
    others = [leaf for path, leaf in leaves.items() if path not in known]
    stays = {place for leaf in others for place in leaf.places + leaf.within}
    values = dict(jtu.tree_flatten_with_path(middle)[0])

    def chosen(path, leaf):
        return values[path] if is_random(leaf) and dotted(path) not in stays else leaf

    found = jtu.tree_map_with_path(chosen, layer, is_leaf=is_random)
    if left := known & {*paths(found)}:
        raise ModelError(
            f"what stays unknown depends on {', '.join(sorted(left))}, which cannot be fixed by "
            "itself"
        )
    return Model(
        found, model.noise, dict(model.constraints), model.cross_correlation, model.varied_noise
    )


def _stays(leaf: RandomLeaf) -> bool:
    """Whether a parameter occurs only in initial states or process noise, and so stays random."""
    places = leaf.places + leaf.within
    kept = {"initial", "process_noise"}
    return bool(places) and all(kept & {*place.split(".")} for place in places)
