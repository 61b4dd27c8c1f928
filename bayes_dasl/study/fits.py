"""The fit of one model of a run, kept in a folder: what is done is on disk at once, and nothing is lost."""

import dataclasses
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import xarray as xr

from .._runs.folder import put_aside
from ..errors import Interrupted, ReadError, WriteError
from ..inference import AbstractEngine, belongs_to, fit, pose
from ..judgement.diagnosis import diagnose
from ..model import Model
from ..prediction.posterior import load, save
from ..revision.after_fit import checks_after_fit

type Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Task:
    """One model of a run, to be fitted into a folder.

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

        Raises: Interrupted if the user stopped it; the draws so far are then saved.
        """
        path, checkpoint = self.folder / "posterior.nc", self.folder / "checkpoint"
        post = load(path) if path.is_file() else None
        wanted = "" if post is None else pose(self.model, self.data).fingerprint(needed=True)
        ours = post is not None and post.attrs.get("posterior_sha256") == wanted
        if post is not None and ours and not post.attrs["interrupted"]:
            self.tell("already fitted, kept")
        else:
            if post is not None and not ours:
                self.put_aside(path)
                self.put_aside(self.folder / "forecast.nc")
            post = self._fit(checkpoint)
            saved = _save(post, path)
            if post.attrs["interrupted"]:
                drawn = post["posterior"].sizes["draw"]
                raise Interrupted(
                    f"stopped after {drawn} of {post.attrs['draws_requested']} draws of each chain; "
                    f"they are kept in {saved}"
                )
            self.tell(f"{diagnose(post).verdict} ({post.attrs['wall_time_s']:.0f} s)")
        for group, (what, look) in checks_after_fit(self.model).items():
            if group not in post.children:
                _save(post := self._checked(post, what, look), path)
        shutil.rmtree(checkpoint, ignore_errors=True)

    def tell(self, text: str) -> None:
        self.say(f"{self.name}: {text}")

    def _fit(self, checkpoint: Path) -> xr.DataTree:
        """A fit whose steps are kept; steps that belong to an older version of the model are put aside."""
        if checkpoint.is_dir() and not self._goes_on(checkpoint):
            self.put_aside(checkpoint)
        self.tell(f"{'going on with' if checkpoint.is_dir() else 'fitting by'} {self.engine!r}")
        return fit(self.model, self.data, self.engine, progress=self.progress, checkpoint=checkpoint, key=self.key)

    def put_aside(self, path: Path) -> None:
        """Rename what an older version of the model left."""
        if (aside := put_aside(path)) is not None:
            self.tell(f"{path} belongs to another version of the model or the libraries: moved to {aside}")

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
            f"{error}; the draws are safe in {refuge}: once {path} can be written, move them there and run again"
        ) from error
