"""Take new observations into a posterior: by importance weights where they are enough, else by a new fit."""

import os

import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from .._jax.devices import prepare
from ..errors import DataError
from ..inference import NUTS, AbstractEngine, check_engine, fit
from ..model import Model
from .conditioning import CONDITIONED, conditioned, new_members
from .taking_in import taken_in


def update(
    model: Model,
    post: xr.DataTree,
    new_data: xr.Dataset,
    *,
    engine: AbstractEngine | None = None,
    progress: bool | None = None,
    checkpoint: str | os.PathLike | None = None,
    device: str = "auto",
    key: int | Array = 0,
) -> xr.DataTree:
    r"""The posterior given the data of the fit and new data.

    Each posterior draw is weighed by the likelihood of the new data. Where $\hat k$ of the weights is below 0.7 (a
    little less for fewer than 2200 draws) and they are worth at least a tenth of the draws, the draws are resampled: no
    sampler runs, so this is as fast as a forecast. Else the model is fitted to all data; NUTS looks for modes near the
    draws, too.

    New data that follow those of the fit, row by row, cost no solve of the old ones where the layer is a `Difference`
    or an `ODE` without doses, jumps, sums or noise of its own, and no noise looks back.

    With a model of a population for members that the fit has not seen, `new_data` are those of these members. Their
    random effects are drawn from the fitted population and weighed by their data; the other members stay as they are,
    and the result is the posterior of the new ones. It learns on by weights alone.

    Args:
        model: the model of the fit; of a population also one for new members.
        post: what `fit`, or an earlier `update`, returned.
        new_data: observations at other times than the fit's, or of observables that were missing (NaN) at a time of the
            fit, what the noise reads of each of them, and the forcings at the times that are new.
        engine: what fits the model to all data where weights will not do, `NUTS()` unless given.
        progress: whether a bar is shown; unless told, on a terminal.
        checkpoint: as for `fit`, for that case.
        device: as for `fit`, for that case.
        key: a whole number or a JAX random key, for the resampling or the fit.

    Returns: the groups of `fit` for all data. Attributes say how: `updated_by` is "importance weights" or "refit";
    `update_pareto_k` is that of the weights, those of earlier updates included; `effective_draws` is what they are
    worth, in equally weighted draws. After importance weights, what the engine said of its own run still stands.

    Raises: DataError for a datum that the posterior knows already, a missing forcing, units of another dimension,
    nothing new, or data of new members that weights cannot take in; MismatchError for a posterior of another model.
    """
    prepare()
    if new_members(model, post):
        return conditioned(model, post, new_data, key=key)
    engine = NUTS() if engine is None else engine
    check_engine(engine)

    def refit(joined: xr.Dataset, near: Float[np.ndarray, "draws dimension"]) -> xr.DataTree:
        if CONDITIONED in post.attrs:
            raise DataError(
                f"this posterior is of {post.attrs[CONDITIONED]}, and weights cannot take in the new data: fit all "
                "members together"
            )
        return fit(model, joined, engine.near(near), progress=progress, checkpoint=checkpoint, device=device, key=key)

    return taken_in(model, post, new_data, refit, key=key)
