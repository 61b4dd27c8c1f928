"""Weights of several models: by their evidence, else by past forecasts, else equal ones."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import xarray as xr
from jaxtyping import Array

from ..errors import DataError, MismatchError
from ..inference import NUTS, AbstractEngine
from ..judgement.comparison import Comparison, compare, equal_weights
from ..judgement.evidence import bayes_factors, check_nested
from ..judgement.mixed import Weighed
from ..model import Model
from ..prediction.posterior import fitted_data
from .rolling_origins import leave_future_out
from .windows import side_by_side

_FEWEST = 250  # draws of each chain
_BASES = (None, "evidence", "forecasts", "equal")

type Looks = Mapping[str, xr.DataTree]
"""What `leave_future_out` returned for each model, by name."""


def model_weights(
    models: Mapping[str, Model],
    posts: Mapping[str, xr.DataTree],
    *,
    by: str | None = None,
    past: Looks | Callable[[], Looks] | None = None,
    origins: int = 4,
    horizon: int | None = None,
    engine: AbstractEngine | None = None,
    progress: bool | None = None,
    checkpoint: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
    key: int | Array = 0,
) -> Weighed:
    """Weigh models for model averaging: by evidence, else by past forecasts, else equally.

    1. **Evidence** (`bd.bayes_factors`), where one model is a science and the others add something with a size to it.
       It takes no further fit, but draws of chains.
    2. **Past forecasts** (`bd.leave_future_out`, `bd.compare`), where that is not so or draws do not tell the evidence.
       Each model forecasts the end of the data from `origins` within them. Any engine will do. Each origin costs one
       fit of each model at most, with a quarter of the engine's draws, 250 at least.
    3. **Equal weights**, where rows are no series or the data are too short for past forecasts.

    The result says which one it is: `weighed_by` is "evidence", "forecasts" or "equal", and `why` says why it is not an
    earlier one. `print` shows both. A `bd.Study` weighs its models by this function.

    Args:
        models: by name, two or more.
        posts: what `fit` returned for each, of the same data, which the posterior holds.
        by: "evidence", "forecasts" or "equal" for that one alone; the first that can be had unless given.
        past: what `leave_future_out` returned for each model, by name, if that is there already; or a function of no
            arguments that makes it.
        origins: from how many times within the data the models forecast at most. Their windows lie side by side over
            the last half of the data.
        horizon: how many observed times are forecast from each. Give as many as the forecast will be asked for. Unless
            given, as many as leave room for two windows.
        engine: what fits the models up to each origin; `NUTS()` unless given. Models that another engine fitted need
            it, since a fit by NUTS may take much longer.
        progress: whether a bar is shown; unless told, on a terminal.
        checkpoint: a folder that keeps the work of each model; the same call goes on from there.
        say: a function of one text that is called with what goes on; nothing is said unless given.
        key: a whole number or a JAX random key.

    Returns: a table of the models with `weights` for `bd.mixture`, as from `bayes_factors` or `compare`, or an
    `EqualWeights`.

    Raises: MismatchError for models without posterior, or where `by` asks for an evidence that cannot be had, or
    an engine is needed; DataError where it asks for past forecasts of too few data; as `leave_future_out`.
    Source: Hoeting, Madigan, Raftery & Volinsky (1999), Bayesian model averaging: a tutorial; Yao, Vehtari, Simpson &
    Gelman (2018), Using stacking to average Bayesian predictive distributions.

    Example:
        >>> weights = bd.model_weights(models, posts, horizon=10)
        >>> print(weights)
        >>> fc = bd.mixture({name: bd.forecast(m, posts[name], at) for name, m in models.items()}, weights.weights)
    """
    if by not in _BASES:
        raise MismatchError(f"models are weighed by 'evidence', 'forecasts' or 'equal', not {by!r}")
    if not isinstance(models, Mapping) or len(models) < 2 or {*models} != {*posts}:
        raise MismatchError("model_weights takes a dict of two models or more, by name, and one of their posteriors")
    if by == "equal":
        return equal_weights(models, "as asked")
    why = ""
    if by == "evidence" or (by is None and are_nested(models)):
        try:
            return bayes_factors(models, posts)
        except MismatchError as error:
            if by == "evidence":
                raise
            why = f"there is no evidence to weigh models by, since {error}"
            say(f"weighed by forecasts: {why}")
    if past is None:
        past = _Looking(models, posts, origins, horizon, engine, progress, checkpoint, key)
    try:
        found = compare(past() if callable(past) else past)
    except DataError as error:
        if by == "forecasts":
            raise
        why = "; ".join([*([why] if why else []), f"there are no past forecasts, since {error}"])
        say(f"equal weights: {why}")
        return equal_weights(models, why)
    return dataclasses.replace(_in_order(found, models), why=why)


def are_nested(models: Mapping[str, Model]) -> bool:
    """Whether models look as if evidence weighed them, before their fits."""
    try:
        check_nested(models)
    except MismatchError:
        return False
    return True


def sparing(engine: AbstractEngine) -> AbstractEngine:
    """The same engine with a quarter of its draws, 250 at least: to weigh models takes fewer than to forecast."""
    fewer = max(engine.draws // 4, min(engine.draws, _FEWEST))
    chosen = {field.name for field in dataclasses.fields(engine)}  # pyright: ignore
    return dataclasses.replace(engine, draws=fewer) if "draws" in chosen else engine  # pyright: ignore


def _in_order(found: Comparison, models: Mapping[str, Model]) -> Comparison:
    """Raises: MismatchError for past forecasts of other models."""
    if {*found.weights} != {*models}:
        raise MismatchError(f"past forecasts are of {', '.join(found.weights)}, the models are {', '.join(models)}")
    return found


@dataclasses.dataclass(frozen=True)
class _Looking:
    """Past forecasts of each model, made when they are asked for."""

    models: Mapping[str, Model]
    posts: Mapping[str, xr.DataTree]
    origins: int
    horizon: int | None
    engine: AbstractEngine | None
    progress: bool | None
    checkpoint: str | os.PathLike | None
    key: int | Array

    def __call__(self) -> Looks:
        first = next(iter(self.models))
        data = fitted_data(self.posts[first])
        at, horizon = side_by_side(self.models[first], data, None, self.origins, self.horizon)
        engine = sparing(self._engine())
        settings: dict[str, Any] = {"origins": at, "horizon": horizon, "engine": engine, "progress": self.progress}
        found = {}
        for name, model in self.models.items():
            folder = None if self.checkpoint is None else Path(self.checkpoint) / name
            found[name] = leave_future_out(
                model, fitted_data(self.posts[name]), **settings, checkpoint=folder, key=self.key
            )
        return found

    def _engine(self) -> AbstractEngine:
        """Raises: MismatchError where a model was fitted by another engine, and none is given."""
        if self.engine is not None:
            return self.engine
        for name, post in self.posts.items():
            by = str(post.attrs.get("engine", "NUTS"))
            if not by.startswith("NUTS"):
                raise MismatchError(
                    f"'{name}' was fitted by {by.partition('(')[0]}: say by engine= what fits the models up to past "
                    "times, such as the same engine, or take by='equal'"
                )
        return NUTS()
