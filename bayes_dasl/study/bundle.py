"""A study bundles a model, its rivals, data, split and engine; running it fills a run folder."""

import dataclasses
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from .._findings import Finding
from .._jax.keys import whole_number
from .._runs.folder import check_name
from .._runs.lock import alone_in
from ..before_fit.checks import Check, check
from ..data.datasets import observations, split, split_members
from ..errors import BayesDaslError, DataError, ModelError
from ..inference import NUTS, AbstractEngine
from ..judgement.baselines import BASELINES
from ..judgement.evidence import are_nested, check_nested
from ..judgement.matching import check_same
from ..judgement.mixed import MIXTURE
from ..model import Model, check_data, check_shapes, check_times, is_series
from ..prediction.derived import evaluate
from ..reports.document import ReportOptions
from .fits import Say
from .mixing import Origins, origins_of
from .run_folder import Run
from .scores import check_asked
from .times import forecast_times


@dataclasses.dataclass(frozen=True)
class Study:
    """A model and the rivals it is compared with, fitted to the data up to a time and scored after it.

    Args:
        name: that of the study; the title of the report unless there is a `title`.
        model: the model.
        data: a dataset with the index, the observables and the forcings of all models.
        split: the last value of the index that is training data, in its units, or a date; or the members that are held
            out at all times, as in `{"subject": [6, 11]}`: members of the models, of which the fit sees no observation.
        rivals: other models by name.
        engine: what fits every model, `NUTS()` unless given.
        label: names the model in tables and figures, as the keys of `rivals` name the others.
        title: that of the report.
        source: where the command line finds the study again.
        derived: a function of the model, as for `bd.evaluate`, whose values stand in the report.
        options: what else the report shows; source and licence are those in `data.attrs` unless it tells others.
        mix: whether the forecast is a mixture of those of all models (`bd.mixture`). It heads the report, each model
            stands beside it. Where all models but one add a network or process noise to that one, as `bd.corrected`
            does, they are weighed by their "evidence", from the fits that are there (`bd.bayes_factors`); others, and
            those that have none, by their "forecasts" of the end of the training data (`bd.leave_future_out`,
            `bd.compare`), which takes more fits. Either word asks for that. Where the training data are too short for
            both, weights are equal (`bd.model_weights`). There is no mixture without rivals, where members are held
            out, or by forecasts where rows are no series.
        origins: from how many times within the training data the models forecast at most, for their weights; or the
            last time that is known at each, numbers or dates. Each takes one fit of each model at most, with a quarter
            of the engine's draws, 250 at least.
        horizon: how many observed times they forecast from each. Unless given, as many as there are in the test data,
            or half of those in the last half of the training data, if these are fewer.

    Raises: ModelError if two models, or a model and a baseline, have the same name but for its case, or a name cannot
    be that of a folder, and for another `mix`; MismatchError for models that cannot be weighed by evidence; DataError
    if the split leaves one side empty, or names no members of the data, for options that are none, or for origins and a
    horizon that are none.
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
        taken: dict[str, str] = {}
        for name in (self.label, *self.rivals):
            check_name(name, "a model")
            if name.casefold() in BASELINES:
                raise ModelError(f"'{name}' is the name of a baseline: give the model another")
            if (alike := taken.get(_folded(name))) is not None:
                both = f"'{name}'" if alike == name else f"'{alike}' and '{name}', which some systems take for the same"
                raise ModelError(f"two models are named {both}: give the model another label")
            if _folded(name) == MIXTURE:
                raise ModelError(f"'{name}' is the name of the mixture of the models: give this one another")
            taken[_folded(name)] = name
        if not isinstance(self.options, ReportOptions):
            raise DataError(f"options are bd.ReportOptions(…), not {type(self.options).__name__}")
        _ = self._parts  # refuses a split that leaves one side empty
        if self.mix not in (True, False, "evidence", "forecasts"):
            raise ModelError(f"mix is True, False, 'evidence' or 'forecasts', not {self.mix!r}")
        if self.mix == "evidence" and self.rivals:
            check_nested(self.models)
        numbers = [n for n in (self.origins, self.horizon) if n is not None and not _are_several(n)]
        if not all(isinstance(number, (int, np.integer)) and number > 0 for number in numbers):
            raise DataError(
                f"origins and horizon are whole numbers from 1 on, not {self.origins!r} and {self.horizon!r}: for no "
                "mixture of forecasts say mix=False"
            )
        if self.mixes and _are_several(self.origins):
            _ = self.looks_from  # refuses origins that the training data do not have

    @property
    def index(self) -> str:
        """The coordinate that the data run along."""
        return self.model.index

    @property
    def _parts(self) -> tuple[xr.Dataset, xr.Dataset]:
        if isinstance(self.split, Mapping):
            observables = dict.fromkeys(name for model in self.models.values() for name in model.observables)
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

        Raises: DataError if these are too few.
        """
        origins = self.origins if _are_several(self.origins) else int(self.origins)  # pyright: ignore
        return origins_of(self.model, self.train, self.test, origins, self.horizon)

    @property
    def forced(self) -> bool:
        """Whether any of the models is driven by forcings."""
        return any(model.layer.forcings for model in self.models.values())

    def refuse_bad_input(self) -> None:
        """Check, before any fit, all that would fail after it: data, shapes and each time of the forecast, by model.

        Raises: DataError, ModelError or MismatchError.
        """
        for model in self.models.values():
            check_data(model, self.train)
        at = forecast_times(self)
        for model in self.models.values():
            check_times(model, at)
            check_shapes(model, model.inputs(at))
            for name in model.observables:  # also where they are held out, since forecasts are scored there
                observations(self.data, name, dims=model.dims(name))
        check_same(self.model.observables, {name: rival.observables for name, rival in self.rivals.items()})
        _ = self.derived and evaluate(self.model, None, self.derived)
        check_asked(self, at[self.index])

    def check(self, *, key: int = 0) -> dict[str, Check]:
        """The ladder of cheap checks for each model, and whether forecast, scores and report could be made.

        Args:
            key: a whole number, for the prior draws.
        """
        found = {name: check(model, self.train, self.engine, key=key) for name, model in self.models.items()}
        if any(result.level == "bad" for result in found.values()):  # which would be refused here for the same reason
            return found
        try:
            self.refuse_bad_input()
        except BayesDaslError as error:
            later = Finding("bad", "forecast and report", str(error), "mend this first: a run would refuse it")
            found[self.label] = dataclasses.replace(found[self.label], findings=(*found[self.label].findings, later))
        return found

    def run(
        self, folder: str | Path, *, key: int = 0, progress: bool | None = None, say: Say = lambda text: None
    ) -> Run:
        """Fit every model, forecast, mix the forecasts, score and report; what is done is on disk at once.

        Where no mixture can be made it is said why, and the report is that of the study's own model. A fit that the
        folder already holds whole, from the same model, data, engine and key, is kept, and one that was killed goes on
        from its last step. Ctrl-C while sampling keeps the draws so far. One process at a time can be at work in a
        folder.

        Args:
            folder: where the run is kept; it is made if there is none.
            key: a whole number, for fits and forecasts.
            progress: whether a bar is shown; unless told, on a terminal.
            say: a function of one text that is called with what goes on; nothing is said unless given.

        Raises: DataError or ModelError, before any work; Interrupted, with what was kept; WriteError if the folder
        cannot be written, or another process is at work in it; MismatchError if the folder holds a run of something
        else.
        """
        self.refuse_bad_input()
        run = Run(self, Path(folder))
        with alone_in(run.folder):
            run.claim(key := whole_number(key))
            for name in self.models:
                run.fit(name, key=key, progress=progress, say=say)
            run.finish(say=say, comparison=run.weigh(key=key, progress=progress, say=say))
        return run


def _are_several(origins: object) -> bool:
    """Whether origins are told one by one."""
    return isinstance(origins, (Sequence, np.ndarray))


def _folded(name: str) -> str:
    """What a system may take a name for that tells neither case nor ways to write an accent apart."""
    return unicodedata.normalize("NFC", name.casefold())
