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
    r"""Return the posterior given the data of the fit and new data.

    Each posterior draw is weighted by the likelihood of the new data. The draws are resampled by
    these weights if two conditions hold. The Pareto $\hat k$ of the weights must be below 0.7 (a
    little less for fewer than 2200 draws). Their effective sample size must be at least a tenth of
    the draws. No sampler runs then, so this is as fast as a forecast. Otherwise the model is fitted
    to all data; NUTS then also searches for modes near the old draws.

    If new rows follow those of the fit, only the new rows are solved. This needs a layer that is a
    `Difference`, or an `ODE` without doses, jumps, sums or process noise, and noise that does not
    condition on earlier data.

    For new groups of a population, give a model of these groups alone, and their data as
    `new_data`. Their random effects are drawn from the fitted population and weighted by their
    data. The result is the posterior of the new groups only. Later updates of this result use
    weights alone.

    Args:
        model: the model of the fit; for a population it may be a model of new groups instead.
        post: the result of `fit`, or of an earlier `update`.
        new_data: new observations, at new times or in place of missing data (NaN) of the fit. For
            these, it must also have the known errors that the noise uses. It must have the forcings
            at new times.
        engine: the engine for a new fit to all data; by default `NUTS()`.
        progress: whether a progress bar is shown; by default only in a terminal or a notebook.
        checkpoint: the argument of `fit`, for a new fit.
        device: the argument of `fit`, for a new fit.
        key: a whole number or a JAX random key, for the resampling or the fit.

    Returns:
        The groups of `fit` for all data. The attribute `updated_by` is "importance weights" or
        "refit". `update_pareto_k` is the $\hat k$ of the weights, including those of earlier
        updates. `effective_draws` is their effective sample size. After importance weights, the
        findings of the engine on the original run remain.

    Raises:
        DataError: if an observation is already in the posterior, a forcing is missing, units have
            another dimension, there are no new observations, or weights are unreliable for the data
            of new groups.
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
