"""Updates of a posterior by new observations."""

import os

import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from .._jax.devices import prepare
from ..errors import DataError
from ..fitting.fit_and_resume import fit
from ..inference import NUTS, AbstractEngine, check_engine
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

    Each posterior draw is weighted by the likelihood of the new data. The draws are resampled if
    $\hat k$ of the weights is below 0.7 (a little less for fewer than 2200 draws) and they are
    worth at least a tenth of the draws. No sampler runs then, so this is as fast as a forecast.
    Otherwise the model is fitted to all data, and NUTS also looks for modes near the draws.

    New rows after those of the fit need no solve of the old ones if the layer is a `Difference`, or
    an `ODE` without doses, jumps, sums or process noise, and no noise looks back.

    For new members of a population, give a model of these members alone, and their data as
    `new_data`. Their random effects are drawn from the fitted population and weighted by their
    data; the other members stay as they are. The result is the posterior of the new members. Later
    updates of it use weights alone.

    Args:
        model: the model of the fit; for a population also a model of new members.
        post: the result of `fit`, or of an earlier `update`.
        new_data: new observations, at new times or in place of missing data (NaN) of the fit. Also
            known errors that the noise reads for them, and forcings at new times.
        engine: the engine for a new fit to all data; by default `NUTS()`.
        progress: whether a progress bar is shown; by default only in a terminal.
        checkpoint: as for `fit`, for a new fit.
        device: as for `fit`, for a new fit.
        key: a whole number or a JAX random key, for the resampling or the fit.

    Returns:
        The groups of `fit` for all data. The attribute `updated_by` is "importance weights" or
        "refit". `update_pareto_k` is the k-hat of the weights, including those of earlier updates.
        `effective_draws` is their worth in equally weighted draws. After importance weights,
        findings of the engine on its own run are kept.

    Raises:
        DataError: if an observation is already in the posterior, a forcing is missing, units have
            another dimension, there are no new observations, or weights cannot take in the data of
            new members.
        MismatchError: if the posterior is of another model.

    Example:
        ```python
        post = bd.fit(model, train)
        newer = bd.updating.update(model, post, test)
        print(newer.attrs["updated_by"])
        ```
    """
    prepare()
    if new_members(model, post):
        return conditioned(model, post, new_data, key=key)
    engine = NUTS() if engine is None else engine
    check_engine(engine)

    def refit(joined: xr.Dataset, near: Float[np.ndarray, "draws dimension"]) -> xr.DataTree:
        if CONDITIONED in post.attrs:
            raise DataError(
                f"this posterior is of {post.attrs[CONDITIONED]}, and weights cannot take in the "
                "new data: fit all "
                "members together"
            )
        return fit(
            model,
            joined,
            engine.near(near),
            progress=progress,
            checkpoint=checkpoint,
            device=device,
            key=key,
        )

    return taken_in(model, post, new_data, refit, key=key)
