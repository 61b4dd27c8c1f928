"""How faults are planted for the study of verdicts: fits, data, and which findings name a fault."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl._findings import Finding
from bayes_dasl.errors import MismatchError
from bayes_dasl.inference import AbstractEngine
from bayes_dasl.verdict.diagnosis import Diagnosis

from .families import TIMES, UNTIL, curve

FLAGGED = ("warning", "bad")
REFUSED = "refused"


class Judged(NamedTuple):
    """What a verdict is given."""

    post: xr.DataTree
    forecast: xr.DataTree | None = None
    test: xr.Dataset | None = None
    competitors: dict[str, xr.DataTree] = {}  # noqa: RUF012

    @property
    def diagnosis(self) -> Diagnosis:
        """The verdict; data that `bd.diagnose` refuses to judge are a finding, too."""
        try:
            return bd.diagnose(self.post, self.forecast, self.test, competitors=self.competitors)
        except MismatchError as error:
            return Diagnosis((Finding("bad", REFUSED, str(error), aspect="model"),))


class Fault(NamedTuple):
    """A fault, and how a verdict may speak of it.

    Args:
        make: the fit, with what else a verdict is given.
        subjects: the beginnings of the subjects under which a finding may name the fault.
        says: what such a finding says, one of these; anything unless given.
        silent: the beginnings of subjects that blame something else, under which no finding may be.
        levels: of such a finding.
    """

    make: Callable[[], Judged]
    subjects: tuple[str, ...]
    says: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    levels: tuple[str, ...] = FLAGGED

    def seen(self, findings: Sequence[Finding]) -> list[Finding]:
        """The findings that name the fault."""
        named = [
            f for f in findings if f.level in self.levels and f.subject.startswith(self.subjects)
        ]
        return [f for f in named if not self.says or any(words in str(f) for words in self.says)]

    def misled(self, findings: Sequence[Finding]) -> list[Finding]:
        """The findings that blame something else."""
        return [
            f
            for f in findings
            if f.level in FLAGGED and self.silent and f.subject.startswith(self.silent)
        ]


def fitted(
    model: bd.Model, data: xr.Dataset, engine: AbstractEngine | None = None, **competitors: bd.Model
) -> Judged:
    """A fit to the data up to a time and the forecast of all of them, beside those of competitors."""
    train, test = bd.split(data, time=UNTIL)
    post = bd.fit(model, train, engine, key=1, progress=False)
    others = {
        name: bd.fit(competitor, train, key=2, progress=False)
        for name, competitor in competitors.items()
    }
    ahead = {
        name: bd.forecast(competitors[name], other, data, key=3) for name, other in others.items()
    }
    return Judged(post, bd.forecast(model, post, data, key=4), test, ahead)


def series(y: Any, times: np.ndarray = TIMES, **forcings: Any) -> xr.Dataset:
    columns = {
        name: ("time", np.asarray(values, float)) for name, values in ({"y": y} | forcings).items()
    }
    return xr.Dataset(columns, {"time": times})


RNG = np.random.default_rng
NORMAL = RNG(0).normal(size=TIMES.size)
SLOPED = series(1.0 + 1.5 * TIMES + 0.5 * NORMAL)
LINE = {"level": dist.Normal(0.0, 2.0), "slope": dist.Normal(0.0, 1.0)}
UNKNOWN = bd.NormalNoise(dist.HalfNormal(1.0))
RESIDUALS = tuple(
    f"{kind} of residuals" for kind in ("size", "order", "tails", "symmetry", "evenness")
)
MIXING = ("R-hat", "effective sample size", "mixing", "stuck chain")


def level(prior: Any, noise: Any = UNKNOWN) -> bd.Model:
    return curve(lambda t, u, level: level + 0.0 * t, noise, level=prior)


def wandering(correlation: float, seed: int, number: int = TIMES.size) -> np.ndarray:
    steps = RNG(seed).normal(size=number)
    for i in range(1, steps.size):
        steps[i] = correlation * steps[i - 1] + np.sqrt(1 - correlation**2) * steps[i]
    return steps
