"""Mixtures of the models of a study: origins of past forecasts, and the mixed forecast."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from ..errors import MismatchError, ReadError
from ..inference import AbstractEngine
from ..model import Model
from ..prediction.datatree import names
from ..prediction.save_and_load import load
from ..random import paths
from ..weighting.judged_mixtures import Weighed
from ..weighting.mixtures import mixture
from ..weighting.windows import side_by_side, windows_of

ORIGINS = "origins.nc"


@dataclasses.dataclass(frozen=True)
class Origins:
    """Origins within the training data, from which each model forecasts the following times.

    Args:
        at: the last known time at each origin.
        horizon: number of observed times to forecast from each origin; None takes the number from
            the gaps between the origins.
        times: the observed times that are forecast, shape `(origin, time)`.
    """

    at: list
    horizon: int | None
    times: np.ndarray

    def answered_by(
        self, found: xr.DataTree, post: xr.DataTree, engine: AbstractEngine, key: int
    ) -> bool:
        """Whether saved past forecasts were made from these origins, with the given fit.

        Args:
            found: the saved past forecasts.
            post: the posterior of the model.
            engine: the engine of the fits at the origins.
            key: the random seed.

        Returns:
            True if times, posterior, engine and seed of the past forecasts all agree.
        """
        return (
            found.attrs.get("posterior_sha256") == post.attrs.get("posterior_sha256")
            and found.attrs.get("engine") == repr(engine)
            and found.attrs.get("key") == key
            and np.array_equal(found.to_dataset()["time"].values, self.times)
        )


def origins_of(
    model: Model,
    train: xr.Dataset,
    test: xr.Dataset,
    origins: int | Sequence[Any],
    horizon: int | None,
) -> Origins:
    """Return origins as given, or choose them so that their windows are adjacent.

    Args:
        model: a model, for its index and observables.
        train: the training data.
        test: the test data. Their number of observed times is the default horizon, up to a quarter
            of the number in the training data.
        origins: the largest number of origins, or the last known time at each origin.
        horizon: number of observed times to forecast from each origin; None for the default.

    Returns:
        The origins with their horizon and times.

    Raises:
        DataError: if the training data are too short, or do not suit the given origins.
    """
    if isinstance(origins, int):
        origins, horizon = side_by_side(model, train, test, origins, horizon)
    # Raises for origins that the data lack.
    windows = windows_of(model, train, list(origins), horizon)
    return Origins(list(origins), horizon, np.stack([window.times for window in windows]))


def refuse_unfitted(models: Iterable[str], posts: Mapping[str, xr.DataTree]) -> None:
    """Raise ReadError if one of the named models has no posterior."""
    if missing := [name for name in models if name not in posts]:
        raise ReadError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not fitted yet"
        )


def past_forecasts(
    posts: Mapping[str, xr.DataTree], at: Mapping[str, Path]
) -> dict[str, xr.DataTree]:
    """Load the forecasts of the end of the training data that the models of a run made.

    Args:
        posts: posteriors by name of the model.
        at: file of the past forecasts by name of the model.

    Returns:
        The past forecasts by name of the model.

    Raises:
        ReadError: if a file or a posterior is missing, or a file is damaged.
        MismatchError: if past forecasts belong to another posterior.
    """
    missing = [name for name, path in at.items() if name not in posts or not path.is_file()]
    if missing:
        raise ReadError(
            f"{' and '.join(missing)} did not forecast the end of the training data yet: run the "
            "study again"
        )
    found = {name: load(path) for name, path in at.items()}
    for name, post in posts.items():
        if found[name].attrs.get("posterior_sha256") != post.attrs.get("posterior_sha256"):
            # An update changes the posterior, but not its past forecasts.
            if "updated_by" in post.attrs:
                raise MismatchError(
                    f"{name} has taken in new data since it forecast the end of the training data: "
                    "to mix the models give these to the study and run it anew"
                )
            raise MismatchError(
                f"{name} forecast the end of the training data as another model than its fit is "
                "of: run the study again"
            )
    return found


def mixed(forecasts: Mapping[str, xr.DataTree], comparison: Weighed) -> xr.DataTree:
    """Return the mixture of forecasts by the weights of a comparison.

    Args:
        forecasts: forecasts by name of the model.
        comparison: the comparison, which has a weight for each name.

    Returns:
        The mixture as one forecast.

    Raises:
        MismatchError: if the forecasts cannot be mixed, for example if their units differ.
    """
    return mixture(forecasts, {name: comparison.weights[name] for name in forecasts})


def science_of(own: str, models: Mapping[str, Model]) -> str | None:
    """Return the competitor that is a model without its network, if there is one.

    It is recognised by its parameters: they are those of the model that are not network weights.

    Args:
        own: name of the model.
        models: models by name.

    Returns:
        The name of the competitor; None if the model has no network or no competitor qualifies.
    """

    def parameters(name: str, *groups: str) -> set[str]:
        short = names(models[name])
        return {short[path] for path, leaf in paths(models[name]).items() if leaf.group in groups}

    if not parameters(own, "network"):
        return None
    science = parameters(own, "science", "latent")
    for name in models:
        if name != own and parameters(name, "science", "latent", "network") == science:
            return name
    return None
