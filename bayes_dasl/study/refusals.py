"""Checks of a study before any fit: names, origins, data and options."""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import xarray as xr

from .._runs.folder import check_name
from ..data.datasets import observations
from ..errors import DataError, ModelError
from ..model import check_data, check_shapes, check_times
from ..prediction.evaluation import evaluate
from ..scores.baselines import BASELINES
from ..scores.matching import check_same
from ..weighting.judged_mixtures import MIXTURE
from .scores import check_asked
from .times import forecast_times


def check_names(names: Iterable[str]) -> None:
    """Check that model names are unique and can name folders.

    Raises:
        ModelError: if a name occurs twice, is that of a baseline or the mixture, or is no valid
            folder name.
    """
    # Some file systems take "Lynx" and "lynx" for the same folder.
    taken: dict[str, str] = {}
    for name in names:
        check_name(name, "a model")
        if name.casefold() in BASELINES:
            raise ModelError(f"'{name}' is the name of a baseline: give the model another")
        if (alike := taken.get(_folded(name))) is not None:
            both = f"'{name}'"
            if alike != name:
                both = f"'{alike}' and '{name}', which some systems take for the same"
            raise ModelError(f"two models are named {both}: give the model another label")
        if _folded(name) == MIXTURE:
            raise ModelError(
                f"'{name}' is the name of the mixture of the models: give this one another"
            )
        taken[_folded(name)] = name


def check_origins(origins: Any, horizon: Any) -> None:
    """Check that origins and horizon, if given as numbers, are whole and positive.

    Args:
        origins: number of origins, or a sequence of times, which is not checked here.
        horizon: number of times to forecast, or None.

    Raises:
        DataError: if a number is not whole or not positive.
    """
    numbers = [n for n in (origins, horizon) if n is not None and not are_several(n)]
    if not all(isinstance(number, (int, np.integer)) and number > 0 for number in numbers):
        raise DataError(
            f"origins and horizon are whole numbers from 1 on, not {origins!r} and {horizon!r}: "
            "for no mixture of forecasts say mix=False"
        )


def check_input(study: Any) -> None:
    """Check for every model what would otherwise fail only after the fits.

    Args:
        study: the `Study`.

    Raises:
        DataError: if data, times or options are wrong.
        ModelError: if a model cannot be solved at the times of the data or the forecast.
        MismatchError: if models have different observables.
    """
    for model in study.models.values():
        check_data(model, study.train)
    for refuse, *given in checks_after_fits(study):
        refuse(*given)


def checks_after_fits(study: Any) -> Iterator[tuple[Any, ...]]:
    """Yield functions with arguments that raise for what would fail after the fits."""
    # 1. The forecasts.
    at = forecast_times(study)
    for model in study.models.values():
        yield check_times, model, at
        yield check_shapes, model, model.inputs(at)
        # Held-out values too, since forecasts are scored by them.
        for name in model.observables:
            yield _check_values, study, model, name
    # 2. The scores and the report.
    others = {name: competitor.observables for name, competitor in study.competitors.items()}
    yield check_same, study.model.observables, others
    if study.derived:
        yield evaluate, study.model, None, study.derived
    yield check_asked, study, at[study.index]


def _check_values(study: Any, model: Any, name: str) -> None:
    """Check all values of an observable."""
    observations(study.data, name, dims=model.dims(name))


def used_data(study: Any) -> xr.Dataset:
    """Return the training data with only the observables and forcings that some model reads."""
    models = study.models.values()
    names = {name for model in models for name in (*model.observables, *model.layer.forcings)}
    return study.train[sorted(names)]


def are_several(origins: object) -> bool:
    """Whether origins are given as a sequence of times rather than as a number."""
    return isinstance(origins, (Sequence, np.ndarray))


def _folded(name: str) -> str:
    """Return a name without differences in case or in the encoding of accents."""
    return unicodedata.normalize("NFC", name.casefold())
