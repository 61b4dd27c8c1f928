"""`Study`, which bundles models, data, split and engine; `Run`, the folder with its results."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from .refusals import (
    are_several,
    check_input,
    check_names,
    check_origins,
    checks_after_fits,
    used_data,
)
from .scores import asked, results, table_of, told_split
from .times import forecast_times, unknown_to


@dataclasses.dataclass(frozen=True)
class Study:
    """A model and competing models, fitted to data up to a time and scored on the data after it.

    The forecast is a mixture of all models unless `mix` is False. The weights come from the first
    method that is possible:

    - Evidence (`bd.weighting.bayes_factors`), if the models are nested. Then all models but one add
      a network or process noise to that one, as `bd.corrected` does. No further fits are needed.
    - Past forecasts (`bd.weighting.leave_future_out`, `bd.compare`) of the end of the training data
      from earlier origins. They need further fits, and data that are a time series.
    - Equal weights (`bd.weighting.model_weights`), if the training data are too short.

    There is no mixture without competitors or with held-out groups.

    Args:
        name: name of the study. It is also the title of the report unless there is a `title`.
        model: the model.
        data: a dataset with the index, the observables and the forcings of all models.
        split: the last value of the index that is training data, in its units, or as a date. Or the
            held-out groups by dimension, as in `{"subject": [6, 11]}`.
        competitors: competing models by name.
        engine: the engine of all fits.
        label: name of the model in tables and figures.
        title: title of the report.
        source: name of the case study or path of the Python file that defines the study, by which
            the command line finds it again.
        derived: a function of the model, as for `bd.evaluate`, whose values the report shows.
        options: optional contents of the report. Source and licence of the data default to
            `data.attrs`.
        mix: whether the forecast is a mixture (`bd.mixture`). "evidence" or "forecasts" also
            chooses the method that weights the models.
        origins: largest number of origins of past forecasts, or the last known time at each origin.
            Each origin takes at most one fit per model. Such a fit has a quarter of the engine's
            draws, but at least 250.
        horizon: number of observed times to forecast from each origin. By default it is the number
            of observed times in the test data, but at most a quarter of that in the training data.
        overrides: options of the command line that changed the study; `study.json` keeps them.

    Raises:
        ModelError: if two models have the same name, a name cannot be that of a folder, or `mix`
            has another value.
        MismatchError: if `mix` is "evidence" and the models are not nested.
        DataError: if the split leaves one side empty or names unknown groups, or if options,
            origins or horizon are invalid.
    """

    name: str
    model: Model
    data: xr.Dataset
    split: float | str | Mapping[str, Sequence[Any]]
    competitors: Mapping[str, Model] = dataclasses.field(default_factory=dict)
    engine: AbstractEngine = dataclasses.field(default_factory=NUTS)
    label: str = "model"
    title: str = ""
    source: str = ""
    derived: Callable[[Model], Any] | None = None
    options: ReportOptions = dataclasses.field(default_factory=ReportOptions)
    mix: bool | str = True
    origins: int | Sequence[Any] = 4
    horizon: int | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        check_name(self.name, "a study")
        check_names((self.label, *self.competitors))
        if not isinstance(self.options, ReportOptions):
            raise DataError(f"options are bd.ReportOptions(…), not {type(self.options).__name__}")
        _ = self._parts  # raises if the split leaves one side empty
        if self.mix not in (True, False, "evidence", "forecasts"):
            raise ModelError(f"mix is True, False, 'evidence' or 'forecasts', not {self.mix!r}")
        if self.mix == "evidence" and self.competitors:
            check_nested(self.models)
        check_origins(self.origins, self.horizon)
        if self.mixes and are_several(self.origins):
            _ = self.looks_from  # raises for origins that the training data do not have

    @property
    def index(self) -> str:
        """Name of the coordinate along which the data are ordered, such as time."""
        return self.model.index

    @property
    def _parts(self) -> tuple[xr.Dataset, xr.Dataset]:
        """Training data and test data."""
        if isinstance(self.split, Mapping):
            models = self.models.values()
            observables = dict.fromkeys(name for model in models for name in model.observables)
            return split_members(self.data, self.split, tuple(observables))
        return split(self.data, **{self.index: self.split})

    @property
    def models(self) -> dict[str, Model]:
        """All models by name, the study's own model first."""
        return {self.label: self.model, **self.competitors}

    @property
    def train(self) -> xr.Dataset:
        """The training data."""
        return self._parts[0]

    @property
    def test(self) -> xr.Dataset:
        """The test data."""
        return self._parts[1]

    @property
    def mixes(self) -> bool:
        """Whether the forecasts of the models are mixed."""
        if not self.mix or not self.competitors or isinstance(self.split, Mapping):
            return False
        # Weights by evidence need nested models, weights by forecasts a series.
        evidence = self.mix != "forecasts" and are_nested(self.models)
        return evidence or all(is_series(model, self.data) for model in self.models.values())

    @property
    def looks_from(self) -> Origins:
        """The origins from which each model forecasts the end of the training data.

        Raises:
            DataError: if the training data are too short, or do not suit the given origins.
        """
        origins = self.origins if are_several(self.origins) else int(self.origins)  # pyright: ignore
        return origins_of(self.model, self.train, self.test, origins, self.horizon)

    @property
    def forced(self) -> bool:
        """Whether at least one of the models has forcings."""
        return any(model.layer.forcings for model in self.models.values())

    def refuse_bad_input(self) -> None:
        """Check, before any fit, everything that would otherwise fail only after the fits.

        Raises:
            DataError: if data, times or options are wrong.
            ModelError: if a model cannot be solved at the times of the data or the forecast.
            MismatchError: if models have different observables.
        """
        check_input(self)

    def check(self, *, key: int = 0) -> dict[str, Check]:
        """Run the cheap checks of each model, and check that forecasts and report can be made.

        Args:
            key: the random seed of the prior draws.

        Returns:
            The findings by name of the model. A fault that concerns forecasts or report is among
            those of the study's own model.
        """
        found = {
            name: check(model, self.train, self.engine, key=key)
            for name, model in self.models.items()
        }
        own = found[self.label]
        said = {finding.message for result in found.values() for finding in result.findings}
        ready = all(result.level != "bad" for result in found.values())
        for error in self._problems_after_fits(ready):
            # A model that cannot be fitted is refused again for the same reason.
            if not any(message.startswith(str(error)) for message in said):
                remedy = "mend this first: a run would refuse it"
                later = Finding("bad", "forecast and report", str(error), remedy)
                own = dataclasses.replace(own, findings=(*own.findings, later))
        return found | {self.label: own}

    def _problems_after_fits(self, ready: bool) -> Iterator[BayesDaslError]:
        """Yield the errors that would come up after the fits; the models may not be ready."""
        try:
            for refuse, *given in checks_after_fits(self):
                try:
                    refuse(*given)
                except BayesDaslError as error:
                    yield error
        except BayesDaslError as error:
            yield error
        except Exception:
            # It follows from what is wrong with the model.
            if ready:
                raise

    def run(
        self,
        folder: str | Path,
        *,
        key: int = 0,
        progress: bool | None = None,
        say: Say = lambda text: None,
    ) -> "Run":
        """Fit every model, forecast, mix the forecasts, score them and write the report.

        - Each result is saved as soon as it is made.
        - A complete fit in the folder, of the same model and data, is kept. A fit that was killed
          continues from its last checkpoint.
        - Ctrl-C during sampling keeps the draws so far.
        - If no mixture can be made, `say` gets the reason, and the report is about the study's own
          model.
        - Only one process at a time can work in a folder.

        Args:
            folder: the run folder, which is made if it is missing.
            key: the random seed of fits and forecasts.
            progress: whether to show a progress bar; None shows it in a terminal or notebook.
            say: a function that is called with each line of progress.

        Returns:
            The run.

        Raises:
            DataError: before any work, if data or options are wrong.
            ModelError: before any work, if a model cannot be solved.
            Interrupted: if the user stopped the run; the message says what was kept.
            WriteError: if the folder cannot be written, or another process works in it.
            MismatchError: if models have different observables, or the folder contains the run of
                another study, seed, engine or data.
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
    """The folder of a run of a study.

    It contains:

    - `study.json`: study, engine, random seed and hash of the data.
    - `posterior.nc` and `forecast.nc` of the study's own model. Each competitor has a subfolder
      with files of the same names.
    - `mixture.nc`: the mixed forecast, if forecasts are mixed.
    - `origins.nc` beside each posterior: past forecasts of the model, if they determine the
      weights.
    - `scores.json`, `report.html`, and `forecast.csv` with quantiles of the forecast.

    Args:
        study: the study.
        folder: the folder.
    """

    study: Study
    folder: Path

    def path(self, name: str, file: str) -> Path:
        """Return the path of a file of a model, or of the mixed forecast.

        Args:
            name: name of the model, or "mixture".
            file: name of the file; for "mixture" it is not used.

        Returns:
            The path.
        """
        if name == MIXTURE:
            return self.folder / f"{MIXTURE}.nc"
        return self.folder / file if name == self.study.label else self.folder / name / file

    def claim(self, key: int) -> None:
        """Check that the folder can be written and contains no other run; write `study.json`.

        The caller must have locked the folder.

        Args:
            key: the random seed.

        Raises:
            WriteError: if the folder cannot be written.
            MismatchError: if the folder contains the run of another study, seed, engine or data.
            ReadError: if its `study.json` is damaged.
        """
        wanted = {
            "study": self.study.name,
            "key": key,
            "engine": repr(self.study.engine),
        }
        wanted |= {"data_sha256": fingerprint(used_data(self.study)), "source": self.study.source}
        wanted |= {"overrides": dict(self.study.overrides)}
        note = self.folder / "study.json"
        if note.is_file():
            found = read_note(self.folder)
            # The study file may have moved; the engine tells what the options changed.
            fixed = [name for name in wanted if name not in ("source", "overrides")]
            other = [f"{n} {found.get(n)}" for n in fixed if found.get(n) != wanted[n]]
            if other:
                raise MismatchError(
                    f"{self.folder} holds another run ({', '.join(other)}): choose another folder, "
                    "by --out"
                )
        # A killed run may have left half-written files.
        for folder in {self.path(name, note.name).parent for name in self.study.models}:
            forget_unfinished(folder)
        # The note comes last, so that a folder that cannot be written stays unclaimed.
        write_text(note, json.dumps(wanted, indent=2) + "\n")

    def fit(self, name: str, *, key: int, progress: bool | None, say: Say) -> None:
        """Fit and check one model, and save its posterior; a complete posterior is kept.

        Args:
            name: name of the model.
            key: the random seed.
            progress: as for `Study.run`.
            say: as for `Study.run`.

        Raises:
            Interrupted: if the user stopped the fit; the draws so far are then saved.
            WriteError: if the posterior cannot be saved in the folder; it is then in another
                folder.
        """
        self._task(name, key, progress, say).fit()

    def _task(self, name: str, key: int, progress: bool | None, say: Say) -> Task:
        """Return the `Task` that fits one model in its folder."""
        study = self.study
        folder = self.path(name, ORIGINS).parent
        given = study.models[name], study.train, study.engine
        return Task(name, *given, folder, key, progress, say)

    def weigh(self, *, key: int, progress: bool | None, say: Say) -> Weighed | str | None:
        """Compute the weights of the models, and make past forecasts if the weights need them.

        Args:
            key: the random seed.
            progress: as for `Study.run`.
            say: as for `Study.run`.

        Returns:
            The comparison with the weights. It is the reason as text if there are no weights, or
            None if the study mixes no forecasts.

        Raises:
            Interrupted: if the user stopped it; finished origins are kept.
            WriteError: if past forecasts cannot be saved.
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
        """Load the posteriors in the folder.

        Returns:
            The posteriors by name of the model, that of the study's own model first. Competitors
            without a posterior are absent.

        Raises:
            ReadError: if the posterior of the study's own model is missing.
        """
        found = {self.study.label: load(self.path(self.study.label, "posterior.nc"))}
        for name in self.study.competitors:
            if self.path(name, "posterior.nc").is_file():
                found[name] = load(self.path(name, "posterior.nc"))
        return found

    def update(
        self, new_data: xr.Dataset, *, progress: bool | None = None, key: int = 0
    ) -> dict[str, xr.DataTree]:
        """Update every posterior in the folder with new observations, and save the results.

        The posteriors before the first update are kept as `posterior.fit.nc`. Forecasts and report
        are not changed.

        Args:
            new_data: observations and forcings. Observations that a posterior has already used are
                left out.
            progress: as for `bd.update`, if a model must be fitted again.
            key: the random seed of the resampling.

        Returns:
            The updated posteriors by name of the model.

        Raises:
            ReadError: if the posterior of the study's own model is missing.
            WriteError: if a posterior cannot be saved, or another process works in the folder.
            BayesDaslError: as `bd.update`, before any posterior is saved.
        """
        with alone_in(self.folder):
            posts = self.fitted()
            how: dict[str, Any] = {
                "engine": self.study.engine,
                "progress": progress,
                "key": key,
            }
            updated = {}
            for name, post in posts.items():
                model = self.study.models[name]
                updated[name] = update(model, post, unknown_to(model, post, new_data), **how)
            # Save only after all updates succeeded.
            for name, post in updated.items():
                path = self.path(name, "posterior.nc")
                # Later updates must not replace the posterior of the fit.
                if not (kept := path.with_name("posterior.fit.nc")).exists():
                    save(posts[name], kept)
                save(post, path)
        return updated

    def forecast(
        self, at: Asked | None = None, *, what_if: bool = False, say: Say = lambda text: None
    ) -> dict[str, xr.DataTree]:
        """Forecast with every posterior in the folder, mix the forecasts, and save all of them.

        Args:
            at: times, and forcings if needed, as for `bd.forecast`. By default the times of the
                data, and times between them where possible.
            what_if: whether models may differ from the fitted ones, as for `bd.forecast`.
            say: a function that is called with the reason if no mixture can be made.

        Returns:
            The forecasts by name of the model. The mixture, if there is one, comes first as
            "mixture".

        Raises:
            MismatchError: if a model is not the fitted one, unless `what_if`; nothing is saved.
            ReadError: if the posterior of the study's own model is missing.
            WriteError: if a file cannot be saved, or another process works in the folder.
        """
        forecasts, comparison = self._forecast(self.fitted(), at, what_if)
        self._say_why_not(comparison, say)
        return forecasts

    def _say_why_not(self, comparison: Weighed | str | None, say: Say) -> None:
        """Report why there is no mixture, if the study should have one."""
        if self.study.mixes and isinstance(comparison, str):
            say(f"the forecast is no mixture: {comparison}")

    def _forecast(
        self,
        posts: Mapping[str, xr.DataTree],
        at: Asked | None,
        what_if: bool,
        comparison: Weighed | str | None = None,
    ) -> tuple[dict[str, xr.DataTree], Weighed | str | None]:
        """Forecast with posteriors, mix the forecasts, and save them.

        Args:
            posts: posteriors by name of the model.
            at: as for `forecast`.
            what_if: as for `forecast`.
            comparison: the result of `weigh`; None computes the weights if they are needed.

        Returns:
            The forecasts by name, the mixture first; and the comparison with the weights, the
            reason as text if there is no mixture, or None.

        Raises:
            MismatchError: if a model is not the fitted one, unless `what_if`.
        """
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
                # An older mixture would not belong to the new forecasts.
                self.path(MIXTURE, "forecast.nc").unlink(missing_ok=True)
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
        """Forecast, mix, score and write the report, from the posteriors in the folder.

        Args:
            what_if: as for `forecast`.
            say: as for `Study.run`.
            comparison: the result of `weigh`; None computes the weights from the files in the
                folder.

        Raises:
            MismatchError: as `forecast`.
            ReadError: as `forecast`.
            WriteError: as `forecast`.
        """
        with alone_in(self.folder):
            self._finish(what_if, say, comparison)

    def _finish(self, what_if: bool, say: Say, comparison: Weighed | str | None) -> None:
        """Do the work of `finish`; the caller must have locked the folder."""
        # 1. Forecast and mix.
        posts = self.fitted()
        forecasts, comparison = self._forecast(posts, None, what_if, comparison)
        say("forecasts made" if MIXTURE not in forecasts else "forecasts made and mixed")
        missing = [name for name in self.study.models if name not in posts]
        if missing:
            say(f"left out, since not fitted yet: {', '.join(missing)}")
        self._say_why_not(comparison, say)
        # 2. Diagnose every model, and the mixture.
        own = self.study.label
        verdicts = self._verdicts(posts, forecasts)
        found = self._mixed(posts, forecasts, comparison, verdicts)
        # 3. Save the scores.
        observed = self.study.train[list(self.study.model.observables)]
        said = {"study": self.study.name, "split": told_split(self.study)}
        said |= results(
            forecasts,
            observed,
            self.study.test,
            verdicts,
            found,
            comparison,
        )
        said["updated"] = [name for name, post in posts.items() if "updated_by" in post.attrs]
        said["asked"] = asked(forecasts, self.study.test, self.study.options)
        write_text(self.folder / "scores.json", json.dumps(said, indent=2, allow_nan=False) + "\n")
        # 4. Save the report.
        competitors = {name: fc for name, fc in forecasts.items() if name not in (own, MIXTURE)}
        derive = self.study.derived
        page = report(
            posts[own],
            forecasts[own],
            self.study.test,
            title=self.study.title or self.study.name,
            name=own,
            competitors=competitors,
            derived=derive and evaluate(self.study.model, posts[own], derive),
            mixture=found,
            model=self.study.model,
            options=self.study.options.with_origin_of(self.study.data),
        )
        page.save(self.folder / "report.html")

    def _weighed(
        self,
        posts: Mapping[str, xr.DataTree],
        look_ahead: Callable[[Origins], None] | None = None,
        **say: Any,
    ) -> Weighed:
        """Compute the weights of the models.

        Args:
            posts: posteriors by name of the model.
            look_ahead: a function that makes past forecasts from given origins. It is called only
                if the weights need past forecasts; None takes those in the folder.
            **say: passed on to `model_weights`.

        Returns:
            The comparison with the weights.

        Raises:
            ReadError: if a model is not fitted, or past forecasts are needed but missing.
        """
        refuse_unfitted(self.study.models, posts)

        # Weights by evidence need no past forecasts, so they are made on request only.
        def past() -> dict[str, xr.DataTree]:
            origins = self.study.looks_from
            if look_ahead is not None:
                look_ahead(origins)
            paths = {name: self.path(name, ORIGINS) for name in self.study.models}
            return past_forecasts(posts, paths)

        by = self.study.mix if isinstance(self.study.mix, str) else None
        return model_weights(self.study.models, posts, by=by, past=past, **say)

    def _mixed(
        self,
        posts: Mapping[str, xr.DataTree],
        forecasts: Mapping[str, xr.DataTree],
        comparison: Weighed | str | None,
        verdicts: Mapping[str, Diagnosis],
    ) -> Mixed | None:
        """Return the mixture with its verdict; None without a comparison.

        Args:
            posts: posteriors by name of the model.
            forecasts: forecasts by name, with the mixture.
            comparison: the comparison with the weights, the reason why there is none, or None.
            verdicts: verdicts by name of the model.
        """
        if comparison is None or isinstance(comparison, str):
            return None
        own = self.study.label
        members = {name: fc for name, fc in forecasts.items() if name != MIXTURE}
        # The verdict compares the mixture with the science alone, too.
        science = science_of(own, self.study.models)
        given = forecasts[MIXTURE], comparison, members, verdicts, posts[own], self.study.test
        return judge_mixture(*given, own=own, science=science)

    def diagnose(self) -> dict[str, Diagnosis]:
        """Diagnose each posterior in the folder with its forecast, and the mixture if there is one.

        Returns:
            The verdicts by name. The mixture, if there is one, comes first as "mixture".

        Raises:
            ReadError: if the posterior of the study's own model is missing.
        """
        posts = self.fitted()
        paths = {name: self.path(name, "forecast.nc") for name in posts}
        forecasts = {name: load(path) for name, path in paths.items() if path.is_file()}
        verdicts = self._verdicts(posts, forecasts)
        if not (self.study.mixes and (path := self.path(MIXTURE, "forecast.nc")).is_file()):
            return verdicts
        forecasts[MIXTURE] = load(path)
        comparison = self._weighed(posts)
        found = self._mixed(posts, forecasts, comparison, verdicts)
        return ({MIXTURE: found.diagnosis} if found else {}) | verdicts

    def _verdicts(
        self, posts: Mapping[str, xr.DataTree], forecasts: Mapping[str, xr.DataTree]
    ) -> dict[str, Diagnosis]:
        """Return the verdict on each model by name.

        Only the study's own model is compared with competitors.
        """
        own = self.study.label
        others = {name: fc for name, fc in forecasts.items() if name not in (own, MIXTURE)}
        return {
            name: diagnose(
                post,
                forecasts.get(name),
                self.study.test,
                competitors=others if name == own else {},
            )
            for name, post in posts.items()
        }
