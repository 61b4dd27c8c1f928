"""Science whose numbers are known beforehand."""

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
    """The same model with science that does not learn: each of its numbers is the median of its
    prior.

    Of a model of science alone that is science as the literature has it, of a hybrid one whose
    network adapts and whose science does not. States at the start, noise, and what is learned
    beside the science stay unknown; a number that stands in the equations and in the start is fixed
    in both.

    Args:
        model: a model with unknown numbers of the group "science" in its layer.

    Raises:
        ModelError: if there are none, or if what stays unknown depends on them.
    """
    layer = model.layer
    leaves = paths(layer)
    known = {path for path, leaf in leaves.items() if leaf.group == "science" and not _stays(leaf)}
    if not known:
        raise ModelError("the layer has no unknown numbers of science: there is nothing to fix")
    drawn = draw_prior(layer, _DRAWS, key=as_key(0))
    middle = realise(layer, {path: jnp.median(values, axis=0) for path, values in drawn.items()})
    stays = {
        place
        for path, leaf in leaves.items()
        if path not in known
        for place in leaf.places + leaf.within
    }
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
    """Whether a number is one of the start or of process noise alone, wherever it stands or is made
    use of.
    """
    places = leaf.places + leaf.within
    return bool(places) and all(
        {"initial", "process_noise"} & {*place.split(".")} for place in places
    )
