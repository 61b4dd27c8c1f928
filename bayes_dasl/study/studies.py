"""A study bundles a model, its rivals, data, split and engine; running it fills a run folder."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import xarray as xr

from .._findings import Finding
from .._jax.keys import whole_number
from .._runs.files import forget_unfinished, write_text
from .._runs.folder import check_name, read_note
from .._runs.lock import alone_in
from ..checking.checks import Check, check
from ..data.datasets import fingerprint, split, split_members
from ..errors import BayesDaslError, DataError, Interrupted, MismatchError, ModelError, WriteError
from ..inference import NUTS, AbstractEngine
from ..model import Model, is_series
from ..prediction.evaluation import evaluate
from ..prediction.forecasts import Asked, forecast
from ..prediction.save_and_load import load, save
from ..reports.reporting import ReportOptions, report
from ..updating.updates import update
from ..verdict.diagnosis import Diagnosis, diagnose
from ..weighting.bayes_factor import are_nested, check_nested
from ..weighting.judged_mixtures import MIXTURE, Mixed, Weighed, judge_mixture
from ..weighting.weights_by_future_left_out import leave_future_out, model_weights
from .fits import Say, Task, said_of
from .mixing import ORIGINS, Origins, mixed, origins_of, past_forecasts, refuse_unfitted, science_of
from .refusals import are_several, check_input, check_names, check_origins, used_data
from .scores import asked, results, table_of, told_split
from .times import forecast_times, unknown_to


@dataclasses.dataclass(frozen=True)
class Study:
    """A model and the rivals it is compared with, fitted to the data up to a time and scored after
    it.

    Args:
        name: that of the study; the title of the report unless there is a `title`.
        model: the model.
        data: a dataset with the index, the observables and the forcings of all models.
        split: the last value of the index that is training data, in its units, or a date; or the
            members that are held out at all times, as in `{"subject": [6, 11]}`: members of the
            models, of which the fit sees no observation.
        rivals: other models by name.
        engine: what fits every model, `NUTS()` unless given.
        label: names the model in tables and figures, as the keys of `rivals` name the others.
        title: that of the report.
        source: where the command line finds the study again.
        derived: a function of the model, as for `bd.evaluate`, whose values stand in the report.
        options: what else the report shows; source and licence are those in `data.attrs` unless it
            tells others.
        mix: whether the forecast is a mixture of those of all models (`bd.mixture`). It heads the
            report, each model stands beside it. Where all models but one add a network or process
            noise to that one, as `bd.corrected` does, they are weighed by their "evidence", from
            the fits that are there (`bd.weighting.bayes_factors`); others, and those that have
            none, by their "forecasts" of the end of the training data
            (`bd.weighting.leave_future_out`, `bd.compare`), which takes more fits. Either word asks
            for that. Where the training data are too short for both, weights are equal
            (`bd.weighting.model_weights`). There is no mixture without rivals, where members are
            held out, or by forecasts where rows are no series.
        origins: from how many times within the training data the models forecast at most, for their
            weights; or the last time that is known at each, numbers or dates. Each takes one fit of
            each model at most, with a quarter of the engine's draws, 250 at least.
        horizon: how many observed times they forecast from each. Unless given, as many as there are
            in the test data, or half of those in the last half of the training data, if these are
            fewer.

    Raises:
        ModelError: for two models of one name, a name that cannot be that of a folder, and another
            `mix`.
        MismatchError: for models that cannot be weighed by evidence.
        DataError: if the split leaves one side empty, or names no members of the data, and for
            options, origins or a horizon that are none.
    """

    name: str
    model: Model
    data: xr.Dataset
    split: float | str | Mapping[str, Sequence[Any]]
    rivals: Mapping[str, Model] = dataclasses.field(default_factory=dict)
    engine: AbstractEngine = dataclasses.field(default_factory=NUTS)
    label: str = "model"
    title: str = ""
    source: str = ""
    derived: Callable[[Model], Any] | None = None
    options: ReportOptions = dataclasses.field(default_factory=ReportOptions)
    mix: bool | str = True
    origins: int | Sequence[Any] = 4
    horizon: int | None = None

    def __post_init__(self):
        check_name(self.name, "a study")
        check_names((self.label, *self.rivals))
        if not isinstance(self.options, ReportOptions):
            raise DataError(f"options are bd.ReportOptions(…), not {type(self.options).__name__}")
        _ = self._parts  # refuses a split that leaves one side empty
        if self.mix not in (True, False, "evidence", "forecasts"):
            raise ModelError(f"mix is True, False, 'evidence' or 'forecasts', not {self.mix!r}")
        if self.mix == "evidence" and self.rivals:
            check_nested(self.models)
        check_origins(self.origins, self.horizon)
        if self.mixes and are_several(self.origins):
            _ = self.looks_from  # refuses origins that the training data do not have

    @property
    def index(self) -> str:
        """The coordinate that the data run along."""
        return self.model.index

    @property
    def _parts(self) -> tuple[xr.Dataset, xr.Dataset]:
        if isinstance(self.split, Mapping):
            observables = dict.fromkeys(
                name for model in self.models.values() for name in model.observables
            )
            return split_members(self.data, self.split, tuple(observables))
        return split(self.data, **{self.index: self.split})

    @property
    def models(self) -> dict[str, Model]:
        """All models by name, the study's own first."""
        return {self.label: self.model, **self.rivals}

    @property
    def train(self) -> xr.Dataset:
        return self._parts[0]

    @property
    def test(self) -> xr.Dataset:
        return self._parts[1]

    @property
    def mixes(self) -> bool:
        """Whether forecasts of the models are mixed."""
        if not self.mix or not self.rivals or isinstance(self.split, Mapping):
            return False
        evidence = self.mix != "forecasts" and are_nested(self.models)
        return evidence or all(is_series(model, self.data) for model in self.models.values())

    @property
    def looks_from(self) -> Origins:
        """From where the models forecast the end of the training data.

        Raises:
            DataError: if these are too few.
        """
        origins = self.origins if are_several(self.origins) else int(self.origins)  # pyright: ignore
        return origins_of(self.model, self.train, self.test, origins, self.horizon)

    @property
    def forced(self) -> bool:
        """Whether any of the models is driven by forcings."""
        return any(model.layer.forcings for model in self.models.values())

    def refuse_bad_input(self) -> None:
        """Check, before any fit, all that would fail after it: data, shapes and each time of the
        forecast, by model.

        Raises:
            DataError: if so.
            ModelError: likewise.
            MismatchError: likewise.
        """
        check_input(self)

    def check(self, *, key: int = 0) -> dict[str, Check]:
        """The ladder of cheap checks for each model, and whether forecast, scores and report could
        be made.

        Args:
            key: a whole number, for the prior draws.
        """
        found = {
            name: check(model, self.train, self.engine, key=key)
            for name, model in self.models.items()
        }
        if any(
            result.level == "bad" for result in found.values()
        ):  # which would be refused here for the same reason
            return found
        try:
            self.refuse_bad_input()
        except BayesDaslError as error:
            later = Finding(
                "bad", "forecast and report", str(error), "mend this first: a run would refuse it"
            )
            found[self.label] = dataclasses.replace(
                found[self.label], findings=(*found[self.label].findings, later)
            )
        return found

    def run(
        self,
        folder: str | Path,
        *,
        key: int = 0,
        progress: bool | None = None,
        say: Say = lambda text: None,
    ) -> "Run":
        """Fit every model, forecast, mix the forecasts, score and report; what is done is on disk
        at once.

        Where no mixture can be made it is said why, and the report is that of the study's own
        model. A fit that the folder already holds whole, from the same model, data, engine and key,
        is kept, and one that was killed goes on from its last step. Ctrl-C while sampling keeps the
        draws so far. One process at a time can be at work in a folder.

        Args:
            folder: where the run is kept; it is made if there is none.
            key: a whole number, for fits and forecasts.
            progress: whether a bar is shown; unless told, on a terminal.
            say: a function of one text that is called with what goes on; nothing is said unless
                given.

        Raises:
            DataError: before any work; Interrupted, with what was kept.
            ModelError: likewise.
            WriteError: if the folder cannot be written, or another process is at work in it.
            MismatchError: if the folder holds a run of something else.
        """
        self.refuse_bad_input()
        run = Run(self, Path(folder))
        with alone_in(run.folder):
            run.claim(key := whole_number(key))
            for name in self.models:
                run.fit(name, key=key, progress=progress, say=say)
            run.finish(say=say, comparison=run.weigh(key=key, progress=progress, say=say))
        return run


@dataclasses.dataclass(frozen=True)
class Run:
    """A run folder: `posterior.nc` and `forecast.nc` of the study's model, a subfolder with the
    same for each rival, `scores.json`, `report.html`, `forecast.csv` with quantiles of what that is
    about, and `study.json`, which says what made them. Where forecasts are mixed, `mixture.nc` is
    the mixture, and `origins.nc` of each model what it forecast within the training data, where
    that weighs it."""

    study: Study
    folder: Path

    def path(self, name: str, file: str) -> Path:
        """Where a file of a model, or of the mixture, lies."""
        if name == MIXTURE:
            return self.folder / f"{MIXTURE}.nc"
        return self.folder / file if name == self.study.label else self.folder / name / file

    def claim(self, key: int) -> None:
        """Make sure, before any work, that the folder can be written and holds no other run; for
        who is alone in it.

        Raises:
            WriteError: if so.
            MismatchError: likewise.
            ReadError: if the folder's `study.json` is not one of ours.
        """
        wanted = {"study": self.study.name, "key": key, "engine": repr(self.study.engine)}
        wanted |= {"data_sha256": fingerprint(used_data(self.study)), "source": self.study.source}
        note = self.folder / "study.json"
        if note.is_file():
            held = read_note(self.folder)
            other = [
                f"{k} {held.get(k)}" for k in wanted if k != "source" and held.get(k) != wanted[k]
            ]
            if other:
                differing = ", ".join(other)
                raise MismatchError(
                    f"{self.folder} holds another run ({differing}): choose another folder, by "
                    "--out"
                )
        for folder in {self.path(name, note.name).parent for name in self.study.models}:
            forget_unfinished(folder)
        write_text(note, json.dumps(wanted, indent=2) + "\n")

    def fit(self, name: str, *, key: int, progress: bool | None, say: Say) -> None:
        """Fit one model unless the folder holds its posterior, and save it.

        Raises:
            Interrupted if the user stopped it; the draws so far are then saved.
        """
        self._task(name, key, progress, say).fit()

    def _task(self, name: str, key: int, progress: bool | None, say: Say) -> Task:
        folder = self.path(name, ORIGINS).parent
        return Task(
            name,
            self.study.models[name],
            self.study.train,
            self.study.engine,
            folder,
            key,
            progress,
            say,
        )

    def weigh(self, *, key: int, progress: bool | None, say: Say) -> Weighed | str | None:
        """Weigh the models by `bd.weighting.model_weights`; past forecasts are made unless the
        folder holds them.

        Returns:
            What the weights of their mixture come from, or what stood in the way, which costs no
            fit; nothing if none are mixed.

        Raises:
            Interrupted if the user stopped it, and WriteError: the origins so far are kept.
        """
        if not self.study.mixes:
            return None

        def look_ahead(origins: Origins) -> None:
            for name in self.study.models:
                self._task(name, key, progress, say).look_ahead(origins, leave_future_out)

        try:
            return self._weighed(self.fitted(), look_ahead, say=say)
        except (Interrupted, WriteError):
            raise
        except Exception as error:  # the fits are worth more than their mixture
            return said_of(error)

    def fitted(self) -> dict[str, xr.DataTree]:
        """The posteriors that the folder holds, the study's own first.

        Raises:
            ReadError: if the study's own is missing.
        """
        found = {self.study.label: load(self.path(self.study.label, "posterior.nc"))}
        for name in self.study.rivals:
            if self.path(name, "posterior.nc").is_file():
                found[name] = load(self.path(name, "posterior.nc"))
        return found

    def update(
        self, new_data: xr.Dataset, *, progress: bool | None = None, key: int = 0
    ) -> dict[str, xr.DataTree]:
        """Take new observations into every posterior of the folder, as `bd.update` does, and save
        them.

        The posterior of the fit is kept once, as `posterior.fit.nc`; `forecast.nc` and the report
        stay as they were.

        Args:
            new_data: observations and forcings; what a posterior knows already, by the same values,
                is left out.
            progress: as for `bd.update`, where a model must be fitted anew.
            key: a whole number, for the resampling.

        Returns:
            The posteriors by name.

        Raises:
            as `bd.update`, before any is saved; ReadError if the study's own posterior is missing;
            WriteError.
        """
        with alone_in(self.folder):
            posts = self.fitted()
            updated = {}
            for name, post in posts.items():
                model, engine = self.study.models[name], self.study.engine
                fresh = unknown_to(model, post, new_data)
                updated[name] = update(
                    model, post, fresh, engine=engine, progress=progress, key=key
                )
            for name, post in updated.items():
                path = self.path(name, "posterior.nc")
                if not (kept := path.with_name("posterior.fit.nc")).exists():
                    save(posts[name], kept)
                save(post, path)
        return updated

    def forecast(
        self, at: Asked | None = None, *, what_if: bool = False, say: Say = lambda text: None
    ) -> dict[str, xr.DataTree]:
        """Forecast with every posterior of the folder, by default over all data, mix the forecasts,
        and save.

        Args:
            at: as for `bd.forecast`.
            what_if: whether the models of the study may be others than those that were fitted.
            say: is told why there is no mixture, where a study wants one.

        Returns:
            The forecasts by name; the mixture, "mixture", is the first where there is one.

        Raises:
            MismatchError: for a model that is not the fitted one, unless `what_if`; nothing is
                saved then. ReadError if the study's own posterior is missing.
            WriteError: also where another process is at work.
        """
        forecasts, comparison = self._forecast(self.fitted(), at, what_if)
        self._say_why_not(comparison, say)
        return forecasts

    def _say_why_not(self, comparison: Weighed | str | None, say: Say) -> None:
        if self.study.mixes and isinstance(comparison, str):
            say(f"the forecast is no mixture: {comparison}")

    def _forecast(
        self,
        posts: Mapping[str, xr.DataTree],
        at: Asked | None,
        what_if: bool,
        comparison: Weighed | str | None = None,
    ) -> tuple[dict[str, xr.DataTree], Weighed | str | None]:
        """The forecasts, and what the weights of their mixture come from, or why there is none."""
        at = forecast_times(self.study) if at is None else at
        forecasts: dict[str, xr.DataTree] = {}
        with alone_in(self.folder):
            for name, post in posts.items():
                model, key = self.study.models[name], int(post.attrs["key"])
                try:
                    forecasts[name] = forecast(model, post, at, what_if=what_if, key=key)
                except MismatchError as error:
                    raise MismatchError(
                        f"{name}: {error} (bayes-dasl: run it anew, or --what-if)"
                    ) from error
            if self.study.mixes and not isinstance(comparison, str):
                try:
                    comparison = comparison or self._weighed(posts)
                    forecasts = {MIXTURE: mixed(forecasts, comparison), **forecasts}
                except Exception as error:  # the forecasts are worth more than their mixture
                    comparison = said_of(error)
            if MIXTURE not in forecasts:
                self.path(MIXTURE, "forecast.nc").unlink(missing_ok=True)  # of other forecasts
            for name, found in forecasts.items():
                save(found, self.path(name, "forecast.nc"))
            write_text(self.folder / "forecast.csv", table_of(next(iter(forecasts.values()))))
        return forecasts, comparison

    def finish(
        self,
        *,
        what_if: bool = False,
        say: Say = lambda text: None,
        comparison: Weighed | str | None = None,
    ) -> None:
        """Forecast over all data, mix, score and report, from what the folder holds.

        Args:
            what_if: as for `forecast`.
            say: as for `Study.run`.
            comparison: what `weigh` returned, unless it is to be worked out of the folder.

        Raises:
            as `forecast`.
        """
        with alone_in(self.folder):
            self._finish(what_if, say, comparison)

    def _finish(self, what_if: bool, say: Say, comparison: Weighed | str | None) -> None:
        posts = self.fitted()
        forecasts, comparison = self._forecast(posts, None, what_if, comparison)
        say("forecasts made" if MIXTURE not in forecasts else "forecasts made and mixed")
        missing = [name for name in self.study.models if name not in posts]
        if missing:
            say(f"left out, since not fitted yet: {', '.join(missing)}")
        self._say_why_not(comparison, say)
        own = self.study.label
        verdicts = {name: self._judged(name, post, forecasts) for name, post in posts.items()}
        found = self._mixed(posts, forecasts, comparison, verdicts)
        observed = self.study.train[list(self.study.model.observables)]
        said = {"study": self.study.name, "split": told_split(self.study)}
        said |= results(forecasts, observed, self.study.test, verdicts, found, comparison)
        said["updated"] = [name for name, post in posts.items() if "updated_by" in post.attrs]
        said["asked"] = asked(forecasts, self.study.test, self.study.options)
        write_text(self.folder / "scores.json", json.dumps(said, indent=2, allow_nan=False) + "\n")
        page = report(
            posts[own],
            forecasts[own],
            self.study.test,
            title=self.study.title or self.study.name,
            name=own,
            rivals={name: fc for name, fc in forecasts.items() if name not in (own, MIXTURE)},
            derived=self.study.derived
            and evaluate(self.study.model, posts[own], self.study.derived),
            mixture=found,
            model=self.study.model,
            options=self.study.options.told_of(self.study.data),
        )
        page.save(self.folder / "report.html")

    def _weighed(
        self,
        posts: Mapping[str, xr.DataTree],
        look_ahead: Callable[[Origins], None] | None = None,
        **say: Any,
    ) -> Weighed:
        """What weighs the models, from what the folder holds once they have looked ahead."""
        refuse_unfitted(self.study.models, posts)

        def past() -> dict[str, xr.DataTree]:
            origins = self.study.looks_from  # raises DataError for too few times
            _ = look_ahead and look_ahead(origins)
            return past_forecasts(
                posts, {name: self.path(name, ORIGINS) for name in self.study.models}
            )

        by = self.study.mix if isinstance(self.study.mix, str) else None
        return model_weights(self.study.models, posts, by=by, past=past, **say)

    def _mixed(
        self,
        posts: Mapping[str, xr.DataTree],
        forecasts: Mapping[str, xr.DataTree],
        comparison: Weighed | str | None,
        verdicts: Mapping[str, Diagnosis],
    ) -> Mixed | None:
        """What is to be said of the mixture, if there is one."""
        if comparison is None or isinstance(comparison, str):
            return None
        own, members = (
            self.study.label,
            {name: fc for name, fc in forecasts.items() if name != MIXTURE},
        )
        science = science_of(own, self.study.models)
        given = forecasts[MIXTURE], comparison, members, verdicts, posts[own], self.study.test
        return judge_mixture(*given, own=own, science=science)

    def diagnose(self) -> dict[str, Diagnosis]:
        """A verdict on the mixture, if there is one, and on each posterior of the folder, with its
        forecast.
        """
        posts = self.fitted()
        paths = {name: self.path(name, "forecast.nc") for name in posts}
        forecasts = {name: load(path) for name, path in paths.items() if path.is_file()}
        verdicts = {name: self._judged(name, post, forecasts) for name, post in posts.items()}
        if not (self.study.mixes and (path := self.path(MIXTURE, "forecast.nc")).is_file()):
            return verdicts
        forecasts[MIXTURE] = load(path)
        comparison = self._weighed(posts)
        found = self._mixed(posts, forecasts, comparison, verdicts)
        return ({MIXTURE: found.diagnosis} if found else {}) | verdicts

    def _judged(
        self, name: str, post: xr.DataTree, forecasts: Mapping[str, xr.DataTree]
    ) -> Diagnosis:
        """The verdict on one posterior; the study's own model is compared with its rivals."""
        own = name == self.study.label
        rivals = {
            other: fc for other, fc in forecasts.items() if own and other not in (name, MIXTURE)
        }
        return diagnose(post, forecasts.get(name), self.study.test, rivals=rivals)
