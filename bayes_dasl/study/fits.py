"""Fit, checks and past forecasts of one model of a run, each saved at once in its folder."""

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr

from .._runs.folder import put_aside
from ..errors import Interrupted, MismatchError, ReadError, WriteError
from ..fitting.fit_and_resume import belongs_to, fit
from ..inference import AbstractEngine, pose
from ..model import Model
from ..prediction.save_and_load import load, save
from ..unknown_functions.lookup import unknown_functions
from ..updating.function_check import check_functions
from ..updating.solver_check import check_solver
from ..updating.tighter_tolerances import has_tolerances
from ..verdict.diagnosis import diagnose
from ..weighting.windows import sparing
from .mixing import ORIGINS, Origins

type Say = Callable[[str], None]
type Check = Callable[[Model, xr.DataTree], xr.DataTree]


def checks_after_fit(model: Model) -> dict[str, tuple[str, Check]]:
    """Return the checks that a fit of a model gets after sampling.

    Returns:
        Pairs of the check's name in messages and its function. The keys are the groups that the
        checks add to the posterior.
    """
    found: dict[str, tuple[str, Check]] = {}
    if has_tolerances(model):
        found["solver_check"] = "solver", check_solver
    if unknown_functions(model.layer):
        found["function_check"] = "unknown functions", check_functions
    return found


@dataclasses.dataclass(frozen=True)
class Task:
    """One model of a run, with the folder of its files.

    Args:
        name: name of the model.
        model: the model.
        data: the training data.
        engine: the engine of its fits.
        folder: the folder for posterior, checkpoint and past forecasts.
        key: the random seed.
        progress: whether to show a progress bar; None shows it in a terminal or notebook.
        say: a function that is called with each line of progress.
    """

    name: str
    model: Model
    data: xr.Dataset
    engine: AbstractEngine
    folder: Path
    key: int
    progress: bool | None
    say: Say

    def fit(self) -> None:
        """Fit and check the model, and save the posterior.

        A complete posterior of this model and data in the folder is kept. An interrupted fit
        continues from its checkpoint.

        Raises:
            Interrupted: if the user stopped the fit; the draws so far are then saved.
            WriteError: if the posterior cannot be saved in the folder; it is then in another
                folder.
        """
        path = self.folder / "posterior.nc"
        checkpoint = self.folder / "checkpoint"
        # 1. Keep the saved posterior if it is complete and has the same model and data.
        post = load(path) if path.is_file() else None
        if post is not None:
            wanted = pose(self.model, self.data).fingerprint(needed=True)
            if post.attrs.get("posterior_sha256") != wanted:
                self.put_aside(path)
                self.put_aside(self.folder / "forecast.nc")
                post = None
        is_new = post is None or bool(post.attrs["interrupted"])
        if post is not None and not is_new:
            self.tell("already fitted, kept")
        # 2. Otherwise fit, or continue an interrupted fit.
        else:
            post = self._fit(checkpoint)
            saved = _save(post, path)
            if post.attrs["interrupted"]:
                drawn = post["posterior"].sizes["draw"]
                raise Interrupted(
                    f"stopped after {drawn} of {post.attrs['draws_requested']} draws of each "
                    f"chain; they are kept in {saved}"
                )
            self.tell(f"fitted ({post.attrs['wall_time_s']:.0f} s)")
        # 3. Make the missing checks, and save after each.
        for group, (what, look) in checks_after_fit(self.model).items():
            if group not in post.children:
                _save(post := self._checked(post, what, look), path)
        if is_new:
            self.tell(diagnose(post).verdict)
        # The checkpoint is needed until the posterior and its checks are saved.
        shutil.rmtree(checkpoint, ignore_errors=True)

    def look_ahead(self, origins: Origins, look: Callable[..., xr.DataTree]) -> None:
        """Forecast the end of the training data from earlier origins, and save the forecasts.

        Suitable forecasts in the folder are kept. If an origin needs another fit, it takes fewer
        draws.

        Args:
            origins: the origins.
            look: the function `leave_future_out`. It is an argument to keep chains of imports
                short.

        Raises:
            BayesDaslError: as `leave_future_out`.
        """
        path = self.folder / ORIGINS
        steps = self.folder / "origins"
        post = load(self.folder / "posterior.nc")
        engine = sparing(self.engine)
        # Forecasts of another fit or other origins cannot be used.
        if path.is_file():
            if origins.answered_by(load(path), post, engine, self.key):
                return self.tell("forecasts from within the training data, kept")
            self.put_aside(path)
        number = len(origins.at)
        self.tell(
            f"forecasting {origins.horizon} times ahead from {number} origins within the training "
            "data"
        )
        forecast_past = functools.partial(
            look,
            self.model,
            self.data,
            origins=origins.at,
            horizon=origins.horizon,
            engine=engine,
            post=post,
            progress=self.progress,
            checkpoint=steps,
            key=self.key,
        )
        try:
            found = forecast_past()
        # The checkpoint belongs to another version of the model: start without it.
        except MismatchError:
            if not steps.is_dir():
                raise
            self.put_aside(steps)
            found = forecast_past()
        save(found, path)
        shutil.rmtree(steps, ignore_errors=True)
        # Count the origins with a fit; the others reweighted the draws of an earlier fit.
        fits = int(found.to_dataset()["refitted"].sum())
        self.tell(f"fitted at {fits} of {number} origins ({found.attrs['wall_time_s']:.0f} s)")

    def tell(self, text: str) -> None:
        """Report a line of progress that begins with the name of the model."""
        self.say(f"{self.name}: {text}")

    def _fit(self, checkpoint: Path) -> xr.DataTree:
        """Fit the model with a checkpoint.

        A checkpoint of another version of the model is renamed first.
        """
        if checkpoint.is_dir() and not self._goes_on(checkpoint):
            self.put_aside(checkpoint)
        self.tell(f"{'going on with' if checkpoint.is_dir() else 'fitting by'} {self.engine!r}")
        return fit(
            self.model,
            self.data,
            self.engine,
            progress=self.progress,
            checkpoint=checkpoint,
            key=self.key,
        )

    def put_aside(self, path: Path) -> None:
        """Rename a file or folder that belongs to another version of the model, and report it."""
        if (aside := put_aside(path)) is not None:
            self.tell(
                f"{path} belongs to another version of the model or the libraries: moved to {aside}"
            )

    def _goes_on(self, checkpoint: Path) -> bool:
        """Whether a fit can continue from a checkpoint: it has the same model, data and engine."""
        try:
            return belongs_to(checkpoint, self.model, self.data, self.engine, key=self.key)
        except ReadError:  # `fit` says what is wrong with the file
            return True

    def _checked(self, post: xr.DataTree, what: str, look: Callable[..., Any]) -> xr.DataTree:
        """Add a check to the posterior, and report its findings.

        Args:
            post: the posterior.
            what: name of the check in messages.
            look: the function that makes the check.

        Returns:
            The posterior with the check, or without it if the check raised an error.
        """
        try:
            checked = look(self.model, post)
        except Exception as error:  # the fit is worth more than its check
            self.tell(f"the {what} could not be checked: {error}")
            return post
        # Report only findings that the check adds.
        before = diagnose(post).findings
        for finding in diagnose(checked).findings:
            if finding not in before:
                self.tell(f"{finding.subject}: {finding.message}")
        return checked


def _save(post: xr.DataTree, path: Path) -> Path:
    """Save a posterior, or save it in a temporary folder if the given path cannot be written.

    Raises:
        WriteError: if the given path cannot be written; the message names the temporary folder.
    """
    try:
        return save(post, path)
    except Exception as error:  # no error may lose hours of sampling
        refuge = Path(tempfile.mkdtemp(prefix="bayes-dasl-")) / path.name
        save(post, refuge)
        raise WriteError(
            f"{error}; the draws are safe in {refuge}: once {path} can be written, move them there "
            "and run again"
        ) from error


def said_of(error: Exception) -> str:
    """Return the message of an error, or the name of its class if the message is empty."""
    return str(error) or type(error).__name__
