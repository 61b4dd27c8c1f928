"""What one model of a run does in its folder: a fit, and forecasts of its own data. What is done is
on disk at once.
"""

import dataclasses
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
    """The checks of a fit, with their names, by the group that they add to the posterior."""
    found: dict[str, tuple[str, Check]] = {}
    if has_tolerances(model):
        found["solver_check"] = "solver", check_solver
    if unknown_functions(model.layer):
        found["function_check"] = "unknown functions", check_functions
    return found


@dataclasses.dataclass(frozen=True)
class Task:
    """One model of a run, and the folder in which what it does is kept.

    Args:
        name: that of the model.
        model: the model.
        data: what it is fitted to.
        engine: what fits it.
        folder: where its files lie.
        key: a whole number.
        progress: whether a bar is shown; unless told, on a terminal.
        say: a function of one text that is called with what goes on.
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
        """Fit the model unless the folder holds its posterior, and save it.

        Raises:
            Interrupted if the user stopped it; the draws so far are then saved.
        """
        path, checkpoint = self.folder / "posterior.nc", self.folder / "checkpoint"
        held = load(path) if path.is_file() else None
        wanted = "" if held is None else pose(self.model, self.data).fingerprint(needed=True)
        ours = held is not None and held.attrs.get("posterior_sha256") == wanted
        kept = held if held is not None and ours and not held.attrs["interrupted"] else None
        if kept is not None:
            self.tell("already fitted, kept")
            post = kept
        else:
            if held is not None and not ours:
                self.put_aside(path)
                self.put_aside(self.folder / "forecast.nc")
            post = self._fit(checkpoint)
            saved = _save(post, path)
            if post.attrs["interrupted"]:
                drawn = post["posterior"].sizes["draw"]
                raise Interrupted(
                    f"stopped after {drawn} of {post.attrs['draws_requested']} draws of each "
                    "chain; "
                    f"they are kept in {saved}"
                )
            self.tell(f"fitted ({post.attrs['wall_time_s']:.0f} s)")
        for group, (what, look) in checks_after_fit(self.model).items():
            if group not in post.children:
                _save(post := self._checked(post, what, look), path)
        if kept is None:
            self.tell(diagnose(post).verdict)
        shutil.rmtree(checkpoint, ignore_errors=True)

    def look_ahead(self, origins: Origins, look: Callable[..., xr.DataTree]) -> None:
        """Let the model, once it is fitted, forecast the end of its data from within, unless the
        folder holds that.

        Args:
            origins: from where.
            look: `leave_future_out`, which is handed in to keep chains of imports short.

        Raises:
            as that.
        """
        path, steps = self.folder / ORIGINS, self.folder / "origins"
        post, engine = load(self.folder / "posterior.nc"), sparing(self.engine)
        if path.is_file():
            if origins.answered_by(load(path), post, engine, self.key):
                return self.tell("forecasts from within the training data, kept")
            self.put_aside(path)
        number = len(origins.at)
        self.tell(
            f"forecasting {origins.horizon} times ahead from {number} origins within the training "
            "data"
        )
        settings: dict[str, Any] = {
            "origins": origins.at,
            "horizon": origins.horizon,
            "engine": engine,
            "post": post,
        }
        settings |= {"progress": self.progress, "checkpoint": steps, "key": self.key}
        try:
            found = look(self.model, self.data, **settings)
        except MismatchError:
            if not steps.is_dir():
                raise
            self.put_aside(steps)
            found = look(self.model, self.data, **settings)
        save(found, path)
        shutil.rmtree(steps, ignore_errors=True)
        fits = int(found.to_dataset()["refitted"].sum())
        self.tell(f"fitted at {fits} of {number} origins ({found.attrs['wall_time_s']:.0f} s)")

    def tell(self, text: str) -> None:
        self.say(f"{self.name}: {text}")

    def _fit(self, checkpoint: Path) -> xr.DataTree:
        """A fit whose steps are kept; steps that belong to an older version of the model are put
        aside.
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
        """Rename what an older version of the model left."""
        if (aside := put_aside(path)) is not None:
            self.tell(
                f"{path} belongs to another version of the model or the libraries: moved to {aside}"
            )

    def _goes_on(self, checkpoint: Path) -> bool:
        try:
            return belongs_to(checkpoint, self.model, self.data, self.engine, key=self.key)
        except ReadError:  # `fit` will say what is wrong with it, if that matters
            return True

    def _checked(self, post: xr.DataTree, what: str, look: Callable[..., Any]) -> xr.DataTree:
        try:
            checked = look(self.model, post)
        except Exception as error:  # the fit is worth more than its check
            self.tell(f"the {what} could not be checked: {error}")
            return post
        for finding in (f for f in diagnose(checked).findings if f not in diagnose(post).findings):
            self.tell(f"{finding.subject}: {finding.message}")
        return checked


def _save(post: xr.DataTree, path: Path) -> Path:
    try:
        return save(post, path)
    except Exception as error:  # whatever went wrong, hours of sampling must not be lost with it
        refuge = Path(tempfile.mkdtemp(prefix="bayes-dasl-")) / path.name
        save(post, refuge)
        raise WriteError(
            f"{error}; the draws are safe in {refuge}: once {path} can be written, move them there "
            "and run again"
        ) from error


def said_of(error: Exception) -> str:
    """An error in words: its name where it has none."""
    return str(error) or type(error).__name__
