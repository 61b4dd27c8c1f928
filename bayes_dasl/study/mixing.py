"""How a study mixes its models: from where they forecast the training data, their weights, and the
mixture.
"""

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
    """From where, how far and when each model forecasts the end of the training data."""

    at: list
    horizon: int | None
    times: np.ndarray

    def answered_by(
        self, found: xr.DataTree, post: xr.DataTree, engine: AbstractEngine, key: int
    ) -> bool:
        """Whether a result is that of the model of a posterior, from these origins."""
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
    """The origins themselves as they are given; of a number of them as many windows side by side as
    there is room for.

    Raises:
        DataError: if there is no room, or for origins that the data do not have.
    """
    if isinstance(origins, int):
        origins, horizon = side_by_side(model, train, test, origins, horizon)
    windows = windows_of(model, train, list(origins), horizon)
    return Origins(list(origins), horizon, np.stack([window.times for window in windows]))


def refuse_unfitted(models: Iterable[str], posts: Mapping[str, xr.DataTree]) -> None:
    """Raise ReadError for a model without a posterior."""
    if missing := [name for name in models if name not in posts]:
        raise ReadError(
            f"{' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} not fitted yet"
        )


def past_forecasts(
    posts: Mapping[str, xr.DataTree], at: Mapping[str, Path]
) -> dict[str, xr.DataTree]:
    """What the models of a run forecast within the training data.

    Args:
        posts: their posteriors by name.
        at: where these forecasts are kept.

    Raises:
        ReadError: where one is missing or torn.
        MismatchError: where one is not of the model that was fitted.
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
            if "updated_by" in post.attrs:
                raise MismatchError(
                    f"{name} has taken in new data since it forecast the end of the training data: "
                    "to mix the models "
                    "give these to the study and run it anew"
                )
            raise MismatchError(
                f"{name} forecast the end of the training data as another model than its fit is "
                "of: run the study again"
            )
    return found


def mixed(forecasts: Mapping[str, xr.DataTree], comparison: Weighed) -> xr.DataTree:
    """The mixture of forecasts by the weights of a comparison.

    Raises:
        MismatchError: for forecasts that cannot be mixed, as of other units, or of a model that was
            not fitted.
    """
    return mixture(forecasts, {name: comparison.weights[name] for name in forecasts})


def science_of(own: str, models: Mapping[str, Model]) -> str | None:
    """The rival that is a model without what it learns: its unknown numbers are those of the
    model's science.
    """

    def unknown(name: str, *groups: str) -> set[str]:
        short = names(models[name])
        return {short[path] for path, leaf in paths(models[name]).items() if leaf.group in groups}

    science, learned = unknown(own, "science", "latent"), unknown(own, "network")
    if not learned:
        return None
    others = (name for name in models if name != own)
    return next(
        (name for name in others if unknown(name, "science", "latent", "network") == science), None
    )
