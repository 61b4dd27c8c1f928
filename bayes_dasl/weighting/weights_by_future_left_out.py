"""Leave-future-out forecasts of models, and model weights by evidence or past forecasts."""

import dataclasses
import datetime
import functools
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from .._jax.devices import prepare
from .._jax.keys import as_key, printable
from .._runs.journal import Arrays, Journal
from .._runs.lock import alone_in
from ..data.datasets import checked_index, fingerprint
from ..data.dates import in_words
from ..errors import DataError, Interrupted, MismatchError
from ..fitting.fit_and_resume import fit, run_identity
from ..inference import NUTS, AbstractEngine, check_engine, pose
from ..model import Model, check_data
from ..prediction.forecasts import forecast
from ..prediction.posterior import draws_of, fitted_data, signature
from ..prediction.save_and_load import from_bytes, to_bytes
from ..scores.held_out_errors import DIMS, HELD_OUT, along_origins, held_out_errors
from ..scores.scores import score_each
from ..updating.taking_in import taken_in
from .bayes_factor import are_nested, bayes_factors
from .comparison import SCORES, compare
from .equal_weights import equal_weights
from .judged_mixtures import Weighed
from .window_densities import Known, in_units_of, joint_density
from .windows import Window, seen_rows, side_by_side, sparing, windows_of

# Attributes of an update on its importance weights.
_WEIGHTS = ("update_pareto_k", "effective_draws")
# Prefixes of names in a checkpoint: draws by path, and errors of forecasts.
_DRAW, _ERRORS = "draws of ", "held out, "
_WEIGHED_BY = (None, "evidence", "forecasts", "equal")


type Looks = Mapping[str, xr.DataTree]
"""The results of `leave_future_out` for each model, by name."""


def leave_future_out(
    model: Model,
    data: xr.Dataset,
    *,
    origins: int | Sequence[Any] = 5,
    horizon: int | None = None,
    engine: AbstractEngine | None = None,
    post: xr.DataTree | None = None,
    progress: bool | None = None,
    checkpoint: str | os.PathLike | None = None,
    device: str = "auto",
    key: int | Array = 0,
) -> xr.DataTree:
    r"""Leave-future-out cross-validation of a model on a time series, from several origins.

    An origin is the last known time of a past forecast. Its window is the times that are forecast.

    The model is fitted to the data up to the first origin. It is solved up to the end of the last
    window, and a draw whose solve fails there has probability zero. At each later origin, the draws
    of the last fit are weighted by the likelihood of the data since then, as in `update`. The model
    is fitted again, from starts near these draws, if the weights are unreliable. This is so if
    their $\hat k$ is 0.7 or more (a little less for fewer than 2200 draws), or if their effective
    sample size is below a tenth of the draws.

    `log_density` is $\log p(y_{o+1}, \dots, y_{o+h} \mid y_{\le o})$ for origin $o$ and horizon
    $h$. It is the log of the mean over draws of the joint density of all data in the window. With
    correlated noise or a filter, each datum is conditioned on those before it. If the mean depends
    on few draws, `density_pareto_k` is high. If the draws at the end of the window come from
    another fit, bridge sampling between both fits gives the density. Otherwise it is likely too
    low.

    Args:
        model: the model.
        data: a time series, as for `fit`, with the forcings up to its end. Future forcings count as
            known.
        origins: the number of origins, evenly spaced over the last third of the observed times; or
            the origins themselves, as numbers or dates.
        horizon: the number of observed times that are forecast from each origin. Use the horizon of
            the intended forecast, since the best model may depend on it. The default is the largest
            number for which no time is in two windows.
        engine: the engine of the fits; by default `NUTS()`.
        post: the result of `fit` for all of these data, if it exists. Its draws may serve in bridge
            sampling for a window at the end of the data.
        progress: whether a progress bar is shown; by default only in a terminal or a notebook.
        checkpoint: a folder for the results of each origin and the steps of the current fit. After
            an interruption, the same call continues from there, with the same result.
        device: as for `fit`.
        key: a whole number or a JAX random key.

    Returns:
        A tree for `compare`, `recalibrate`, `save` and `load`, in the units of the data. Counts and
        censored data have probabilities rather than densities, and stay in the units of the model.
        By `origin`:

        - `log_density`: the log joint density of the window, in nats.
        - `number`: the number of data in the window.
        - `failed_draws`: the number of draws that were left out because their solve failed.
        - `draws`: the number of distinct draws among the others.
        - `density_error`: the standard error of `log_density` for independent draws.
        - `density_pareto_k`: the $\hat k$ of `log_density`.
        - `bridged`: 1 if `log_density` comes from bridge sampling.
        - `refitted`: 1 if the model was fitted at this origin.
        - `update_pareto_k` and `effective_draws`: $\hat k$ and effective sample size of the weights
          of the update.

        By `origin`, `observable` and `lead` (from 1 on): `log_score` and `crps` of single data, as
        in `score`, averaged over replicates, places and groups. `time` is the time of each lead.
        The group `held_out` has the error of each datum, which `recalibrate` needs.

    Raises:
        DataError: if the rows are no time series, or the data do not suit the origins or the
            horizon.
        MismatchError: if the posterior is of another model or other data, or the checkpoint is of
            another call.
        Interrupted: if the user stops a fit.

    Source: Bürkner, Gabry & Vehtari (2020), Approximate leave-future-out cross-validation for
    Bayesian time series models.

    Example:
        ```python
        past = bd.weighting.leave_future_out(model, train, origins=2, horizon=4)
        print(past["log_density"])
        ```
    """
    began = time.perf_counter()
    prepare()
    engine = NUTS() if engine is None else engine
    check_engine(engine)
    check_data(model, data)
    given, data = data, model.in_own_units(data)
    # 1. The window of each origin.
    windows = windows_of(model, data, origins, horizon)
    _refuse_unseen(model, data, windows[0])
    of = "" if checkpoint is None and post is None else pose(model, given).fingerprint(needed=True)
    if post is not None and post.attrs.get("posterior_sha256") != of:
        raise MismatchError(
            "post must be a posterior of this model given all of these data, as bd.fit returns it"
        )
    # 2. Draws and forecasts at each origin, kept in a journal.
    folder = None if checkpoint is None else Path(checkpoint)
    with alone_in(folder):
        as_text = ", ".join(f"{window.known} to {window.end}" for window in windows)
        journal = Journal(folder, run_identity(of, engine, key) | {"windows": as_text})
        seen = data.isel({model.index: slice(0, windows[-1].end)})
        look = _Look(model, seen, engine, progress, device, folder)
        held = look.ahead(windows, journal, jax.random.split(as_key(key), (len(windows), 2)))
    known = [_known_at(arrays) for arrays in held]
    # 3. Joint densities of the windows, which may need draws of later fits for bridge sampling.
    whole = [] if post is None else [_of_posterior(model, post, data.sizes[model.index])]
    joint = [
        joint_density(model, seen, at, window, [*known, *whole])
        for at, window in zip(known, windows, strict=True)
    ]
    rows = [
        _origin_row(arrays).assign(density) for arrays, density in zip(held, joint, strict=True)
    ]
    # 4. One dataset along origins, in the units of the data.
    found = xr.concat(rows, "origin").assign_coords(_window_coordinates(model, data, windows))
    found = in_units_of(found, model, data, given, windows)
    found["log_density"].attrs = {"units": "nat"}
    found.attrs = {
        "horizon": len(windows[0].times),
        "index": model.index,
        "data_sha256": fingerprint(
            given[sorted(model.observables)].isel({model.index: slice(0, windows[-1].end)})
        ),
        "signature": signature(model),
        "engine": repr(engine),
        "key": printable(key),
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "wall_time_s": time.perf_counter() - began,
        **({"posterior_sha256": of} if of else {}),
    }
    return xr.DataTree.from_dict(
        {"/": found, HELD_OUT: along_origins([_errors(model, arrays) for arrays in held])}
    )


@dataclasses.dataclass(frozen=True)
class _Look:
    """The work of `leave_future_out`: fits and forecasts of a model from earlier origins.

    Args:
        model: the model.
        data: the data up to the end of the last window.
        engine: the engine of the fits.
        progress: as for `fit`.
        device: as for `fit`.
        folder: the folder of the results; None saves nothing.
    """

    model: Model
    data: xr.Dataset
    engine: AbstractEngine
    progress: bool | None
    device: str
    folder: Path | None

    def ahead(self, windows: Sequence[Window], journal: Journal, keys: Array) -> list[Arrays]:
        """Return the results of each origin, from the journal as far as they are saved.

        Args:
            windows: the window of each origin.
            journal: the journal that saves the results.
            keys: two random keys for each origin, for fit and forecast.
        """
        held: list[Arrays] = []
        # `last` is the fit whose draws are weighted.
        last = None
        for number, (window, (key_fit, key_forecast)) in enumerate(
            zip(windows, keys, strict=True), 1
        ):
            work = functools.partial(self._from_origin, window, last, key_fit, key_forecast)
            held.append(journal.step(f"origin {number}", work))
            last = held[-1] if held[-1]["refitted"] else last
            if self.folder is not None:
                shutil.rmtree(self._steps(self.folder, window), ignore_errors=True)
        return held

    @staticmethod
    def _steps(folder: Path, window: Window) -> Path:
        """Return the folder for the checkpoint of an unfinished fit."""
        return folder / f"fit-{window.known}"

    def _known_until(self, rows: int) -> xr.Dataset:
        """Return the data with all observations after the first `rows` rows missing.

        All fits then have data of the same shape, and can share one compiled program.
        """
        index = self.model.index
        observables = self.model.observables
        # An observable that drives the model is unknown later, so its rows must go.
        if {*observables} & {*self.model.layer.forcings}:
            return self.data.isel({index: slice(0, rows)})
        seen = xr.DataArray(np.arange(self.data.sizes[index]) < rows, dims=index)
        return self.data.assign({name: self.data[name].where(seen) for name in observables})

    def _from_origin(
        self, window: Window, last: Arrays | None, key_fit: Array, key_forecast: Array
    ) -> Arrays:
        """Fit or update at an origin, forecast its window, and score the forecast.

        Args:
            window: the window.
            last: the results of the last origin with a fit; None at the first origin.
            key_fit: random key of the fit.
            key_forecast: random key of the forecast.

        Returns:
            All results as arrays by name, for the journal.
        """
        index = self.model.index
        # 1. A posterior given the data up to the origin.
        new = self.data.isel({index: slice(0 if last is None else int(last["rows"]), window.known)})
        checkpoint = None if self.folder is None else self._steps(self.folder, window)
        asked = {
            "progress": self.progress,
            "checkpoint": checkpoint,
            "device": self.device,
            "key": key_fit,
        }

        def refit(joined: xr.Dataset, near: Float[np.ndarray, "draws dimension"]) -> xr.DataTree:
            return fit(self.model, joined, self.engine.near(near), **asked)

        if last is None:
            post = fit(self.model, self._known_until(window.known), self.engine, **asked)
        else:
            post = taken_in(
                self.model, from_bytes(last["posterior"].tobytes()), new, refit, key=key_fit
            )
        if post.attrs["interrupted"]:
            kept = (
                "nothing is kept"
                if checkpoint is None
                else f"what is done is kept in {self.folder}"
            )
            raise Interrupted(
                f"stopped at the origin {in_words(self.data[index].values[window.known - 1])}: "
                f"{kept}"
            )
        # 2. The forecast of the window.
        refitted = post.attrs.get("updated_by", "refit") == "refit"
        ahead = self.data.isel({index: slice(window.known, window.end)})
        fc = forecast(self.model, post, ahead, key=key_forecast)
        weights = {name: post.attrs.get(name, np.nan) for name in _WEIGHTS}
        known = _of_posterior(self.model, post, window.known)
        # 3. Results for the journal; a new fit keeps its posterior for later origins.
        return {
            "rows": np.asarray(window.known),
            "fit": np.asarray(window.known if last is None or refitted else last["rows"]),
            "start": np.asarray(known.start),
            "refitted": np.asarray(int(refitted)),
            **{name: np.asarray(float(value)) for name, value in weights.items()},
            **_scores_by_lead(self.model, fc, ahead, window),
            **{
                f"{_ERRORS}{name}": v.values
                for name, v in held_out_errors(fc, ahead, window.times).items()
            },
            **{f"{_DRAW}{path}": values for path, values in known.draws.items()},
            **({"posterior": np.frombuffer(to_bytes(post), np.uint8)} if refitted else {}),
        }


def _refuse_unseen(model: Model, data: xr.Dataset, window: Window) -> None:
    """Check that each observable has data up to the first origin.

    Args:
        model: the model.
        data: the data.
        window: the window of the first origin.

    Raises:
        DataError: if an observable has none.
    """
    for name in model.observables:
        seen = seen_rows(data[name], model.index)
        if not seen[: window.known].any() and seen.any():
            first = in_words(data[model.index].values[np.flatnonzero(seen)[0]])
            raise DataError(
                f"nothing was observed of '{name}' up to the first origin, "
                f"{in_words(data[model.index].values[window.known - 1])}: its data begin at "
                f"{first}, "
                "so take later origins"
            )


def _of_posterior(model: Model, post: xr.DataTree, rows: int) -> Known:
    """Return a posterior as `Known`; `rows` is the number of rows of data in its fit."""
    return Known(rows, draws_of(model, post), float(post["constant_data"].attrs["start"]), rows)


def _with_prefix(held: Arrays, prefix: str) -> Arrays:
    return {name.removeprefix(prefix): v for name, v in held.items() if name.startswith(prefix)}


def _known_at(held: Arrays) -> Known:
    """Return the posterior at an origin, from the saved results of the origin."""
    rows = int(held["rows"])
    start = float(held["start"])
    known = int(held["fit"])
    return Known(rows, _with_prefix(held, _DRAW), start, known)


def _origin_row(held: Arrays) -> xr.Dataset:
    """Return scores and facts about the weights at an origin, from its saved results."""
    scores = {name: (("observable", "lead"), held[name]) for name in SCORES}
    weights = {name: float(held[name]) for name in _WEIGHTS}
    return xr.Dataset({"refitted": int(held["refitted"]), **weights, **scores})


def _errors(model: Model, held: Arrays) -> xr.Dataset:
    """Return the errors of held-out data at an origin, from its saved results."""
    found = _with_prefix(held, _ERRORS)
    variables = {name: (DIMS[: values.ndim], values) for name, values in found.items()}
    return xr.Dataset(variables, {"observable": [*model.observables]})


def _scores_by_lead(model: Model, fc: xr.DataTree, ahead: xr.Dataset, window: Window) -> Arrays:
    """Return scores of single data by lead, averaged over all data at a lead.

    Args:
        model: the model.
        fc: the forecast of the window.
        ahead: the data of the window.
        window: the window.

    Returns:
        Arrays `(observable, lead)` by name of the score.
    """
    rows = checked_index(ahead, model.index)
    of_each = score_each(fc, ahead)
    found = {}
    for score, of_observables in of_each.items():
        means = np.full((len(model.observables), len(window.times)), np.nan)
        for i, name in enumerate(model.observables):
            values = of_observables[name].values
            for lead, when in enumerate(window.times):
                here = values[rows == when]
                if np.isfinite(here).any():
                    means[i, lead] = np.nanmean(here)
        found[score] = means
    return found


def _window_coordinates(
    model: Model, data: xr.Dataset, windows: Sequence[Window]
) -> dict[str, Any]:
    index = data[model.index]
    attributes = {name: v for name, v in index.attrs.items() if name in ("units", "long_name")}
    return {
        "origin": (
            "origin",
            np.array([index.values[window.known - 1] for window in windows]),
            attributes,
        ),
        "observable": list(model.observables),
        "lead": np.arange(1, 1 + len(windows[0].times)),
        "time": (("origin", "lead"), np.stack([window.times for window in windows]), attributes),
    }


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
    """Compute weights of models by evidence, or else by past forecasts, or else equal weights.

    1. **Evidence** (`bd.weighting.bayes_factors`) is used if one model is a science and the others
    add parts with a random size to it. It needs draws of chains, but no further fit.
    2. **Past forecasts** (`bd.weighting.leave_future_out`, `bd.compare`) are used for other models,
    or if draws are too few for the evidence. Each model forecasts the end of the data from origins
    within them, with any engine. Each origin costs at most one fit per model, with a quarter of the
    engine's draws, but at least 250.
    3. **Equal weights** are used if the rows are no time series, or the data are too short for past
    forecasts.

    In the result, `weighed_by` is "evidence", "forecasts" or "equal". `why` is the reason why an
    earlier method was not used. `print` shows both. A `bd.Study` uses this function.

    Args:
        models: two or more models, by name.
        posts: the result of `fit` for each model, given the same data.
        by: the only method to use: "evidence", "forecasts" or "equal"; by default the first that is
            possible.
        past: the results of `leave_future_out` by model, if they exist; or a function without
            arguments that returns them.
        origins: the largest number of origins of past forecasts. Their windows are adjacent and
            cover at most the last half of the data.
        horizon: the number of observed times that are forecast from each origin. Use the horizon of
            the intended forecast. The default is a quarter of the number of observed times, which
            leaves room for two windows.
        engine: the engine of the fits at each origin; by default `NUTS()`. It is required if
            another engine fitted the models, since NUTS may take much longer.
        progress: whether a progress bar is shown; by default only in a terminal or a notebook.
        checkpoint: a folder for the results of each model. After an interruption, the same call
            continues from there.
        say: a function that is called with messages on progress.
        key: a whole number or a JAX random key.

    Returns:
        A table of the models with `weights` for `bd.mixture`: the result of `bayes_factors` or
        `compare`, or an `EqualWeights`.

    Raises:
        MismatchError: if models and posteriors do not match, `by` is "evidence" but there is none,
            or an engine is needed.
        DataError: if `by` is "forecasts" but the data are too short.

    Source: Hoeting, Madigan, Raftery & Volinsky (1999), Bayesian model averaging: a tutorial; Yao,
    Vehtari, Simpson & Gelman (2018), Using stacking to average Bayesian predictive distributions.

    Example:
        ```python
        weighed = bd.weighting.model_weights(models, posts, horizon=2)
        print(weighed)
        forecasts = {name: bd.forecast(model, posts[name], test) for name, model in models.items()}
        fc = bd.mixture(forecasts, weighed.weights)
        ```
    """
    # 1. Check the arguments.
    if by not in _WEIGHED_BY:
        raise MismatchError(f"models are weighed by 'evidence', 'forecasts' or 'equal', not {by!r}")
    if not isinstance(models, Mapping) or len(models) < 2 or {*models} != {*posts}:
        raise MismatchError(
            "model_weights takes a dict of two models or more, by name, and one of their posteriors"
        )
    if by == "equal":
        return equal_weights(models, "as asked")
    # 2. Evidence, if models are nested and draws suffice.
    why = ""
    if by == "evidence" or (by is None and are_nested(models)):
        try:
            return bayes_factors(models, posts)
        except MismatchError as error:
            if by == "evidence":
                raise
            why = f"there is no evidence to weigh models by, since {error}"
            say(f"weighed by forecasts: {why}")
    # 3. Past forecasts, or else equal weights.
    if past is None:
        past = _Looking(models, posts, origins, horizon, engine, progress, checkpoint, key)
    try:
        found = compare(past() if callable(past) else past)
    except DataError as error:
        if by == "forecasts":
            raise
        why = f"{why}; " if why else ""
        why += f"there are no past forecasts, since {error}"
        say(f"equal weights: {why}")
        return equal_weights(models, why)
    if {*found.weights} != {*models}:
        raise MismatchError(
            f"past forecasts are of {', '.join(found.weights)}, the models are {', '.join(models)}"
        )
    return dataclasses.replace(found, why=why)


@dataclasses.dataclass(frozen=True)
class _Looking:
    """A function that makes past forecasts of each model when it is called.

    The arguments are those of `model_weights`.
    """

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
        found = {}
        for name, model in self.models.items():
            found[name] = leave_future_out(
                model,
                fitted_data(self.posts[name]),
                origins=at,
                horizon=horizon,
                engine=engine,
                progress=self.progress,
                checkpoint=None if self.checkpoint is None else Path(self.checkpoint) / name,
                key=self.key,
            )
        return found

    def _engine(self) -> AbstractEngine:
        """Return the given engine, or NUTS if all models were fitted by NUTS.

        Raises:
            MismatchError: if another engine fitted a model, and none is given.
        """
        if self.engine is not None:
            return self.engine
        for name, post in self.posts.items():
            by = str(post.attrs.get("engine", "NUTS"))
            if not by.startswith("NUTS"):
                raise MismatchError(
                    f"'{name}' was fitted by {by.partition('(')[0]}: say by engine= what fits the "
                    "models up to past "
                    "times, such as the same engine, or take by='equal'"
                )
        return NUTS()
