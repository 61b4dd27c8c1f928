"""The interface of engines: settings, cost, draws and modes."""

import abc
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np
from jaxtyping import Array, Float

from .._findings import SAMPLER, Finding, to_json
from .._runs.journal import Journal, ProgressBar
from ..errors import ModelError, ReadError
from .gradient import choose
from .problem import Problem


class Cost(NamedTuple):
    """The cost of a run for each position of a batch, in gradients.

    Args:
        least: the fewest gradients, or equally expensive evaluations.
        most: the most gradients.
        programs: compile time of the programs, in compile times of one gradient.
    """

    least: float
    most: float
    programs: int = 4


type Facts = Mapping[str, int | float | str]
"""Numbers and text on a run, which become attributes of its result."""


@dataclasses.dataclass(frozen=True)
class Modes:
    """Relevant modes of the posterior, best first, in the unconstrained space.

    For a hierarchical model NUTS maximises the posterior on average over random effects.

    Args:
        positions: `(mode, dimension)`.
        log_densities: log densities of the posterior, `(mode,)`, in nats up to a constant.
        weights: the posterior probability of each mode, `(mode,)`, if the engine estimates it.
        weight_errors: standard errors of the weights, NaN for a single run.
    """

    positions: Float[np.ndarray, "mode dimension"]
    log_densities: Float[np.ndarray, " mode"]
    weights: Float[np.ndarray, " mode"] | None = None
    weight_errors: Float[np.ndarray, " mode"] | None = None


@dataclasses.dataclass(frozen=True)
class Samples:
    """Draws of an engine in the unconstrained space, with statistics and findings.

    Args:
        positions: the draws, `(chain, draw, dimension)`.
        stats: statistics of each draw, `(chain, draw)` by name, such as `lp`, the log density.
        facts: numbers and text on the run, which become attributes of the result.
        findings: findings on the run, for `diagnose`.
        modes: modes of the posterior, if the engine searches them.
        curves: loss and terms of a gradient descent, `(member, step)` by name.
        draws_are: the kind of draws, in words.
        markov: whether the chains are Markov chains, for which R-hat and effective sample sizes
            have a meaning.
        superchains: the number of groups of chains that begin at one point, for chains too short
            for R-hat; 0 without such groups.
        interrupted: whether Ctrl-C ended the run early.

    Raises:
        ModelError: if arrays have other shapes.
    """

    positions: Float[np.ndarray, "chain draw dimension"]
    stats: dict[str, np.ndarray]
    facts: Facts = dataclasses.field(default_factory=dict)
    findings: tuple[Finding, ...] = ()
    modes: Modes | None = None
    curves: dict[str, np.ndarray] | None = None
    draws_are: str = "chains"
    markov: bool = True
    superchains: int = 0
    interrupted: bool = False

    def __post_init__(self):
        shape = np.shape(self.positions)
        if len(shape) != 3:
            raise ModelError(
                f"positions of Samples are (chain, draw, dimension), not an array of shape {shape}"
            )
        for name, values in self.stats.items():
            if np.shape(values) != shape[:2]:
                raise ModelError(
                    f"stats of Samples are one number for each draw, {shape[:2]}: '{name}' is "
                    f"{np.shape(values)}"
                )

    @property
    def attributes(self) -> dict[str, int | float | str]:
        """Attributes of a result on its draws and the run, ready for netCDF."""
        return {
            "interrupted": int(self.interrupted),
            "draws_are": self.draws_are,
            "markov": int(self.markov),
            "superchains": self.superchains,
            "findings": to_json(self.findings),
            **self.facts,
        }


class Settings:
    """Settings of an engine or strategy: a frozen dataclass of numbers, words and settings.

    They are stored by the names of their class and fields, so that a run can be resumed.
    """

    def stored(self) -> dict[str, Any]:
        """Return the settings as plain values, ready for JSON."""
        plain: dict[str, Any] = {"class": _class_name(type(self))}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            plain[field.name] = value.stored() if isinstance(value, Settings) else value
        return plain

    @classmethod
    def _from_stored(cls, settings: dict[str, Any]) -> "Settings":
        """Return settings from plain values by field."""
        return cls(**{n: restored(v) if isinstance(v, dict) else v for n, v in settings.items()})

    def _check_numbers(self, **least: int) -> None:
        """Refuse fields that are not whole numbers of at least so much."""
        for name, smallest in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                self._refuse(name, f"be a whole number, at least {smallest}")

    def _check_words(self, **allowed: tuple[str, ...]) -> None:
        """Refuse fields that are not among these words."""
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                self._refuse(name, f"be one of {', '.join(words)}")

    def _check_settings(self, **kinds: type["Settings"]) -> None:
        """Refuse fields that are not settings of these kinds."""
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                self._refuse(name, f"be a bd.{kind.__name__}(…)")

    def _check_floats(self, *names: str, below: float = 1.0, zero: bool = False) -> None:
        """Make fields plain floats, and refuse those that are not between 0 and `below`."""
        for name in names:
            try:
                number = float(getattr(self, name))
            except (TypeError, ValueError):
                number = float("nan")
            # NaN fails each comparison.
            if not (0 < number < below or (zero and number == 0)):
                limits = f"at least 0 and below {below:g}" if zero else f"between 0 and {below:g}"
                self._refuse(name, f"lie {limits}")
            # The dataclass is frozen.
            object.__setattr__(self, name, number)

    def _refuse(self, name: str, must: str) -> NoReturn:
        """Raise the ModelError of a field."""
        value = getattr(self, name)
        raise ModelError(f"{type(self).__name__}({name}={value!r}): {name} must {must}")


class AbstractEngine(abc.ABC, Settings):
    """The interface of an engine, a frozen dataclass of its settings.

    An engine defines its cost, how its settings are stored, and the findings on its run. Long work
    is divided into steps of the journal, so that it can be resumed.
    """

    draws: int
    """Draws of each chain."""

    @property
    def batch(self) -> int:
        """Positions that are evaluated together."""
        return 1

    @abc.abstractmethod
    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the posterior.

        Args:
            problem: the posterior, as a function of one flat vector.
            key: a JAX random key.
            journal: keeps each step of long work as it is done.
            bar: shows the progress.
        """

    def cost(self, problem: Problem) -> Cost | None:
        """Return the expected cost of a run, or nothing if it is unknown.

        Args:
            problem: the posterior, as a function of one flat vector.
        """
        return None

    def gradient_mode(self, problem: Problem) -> str:
        """Return whether gradients are taken by `forward` or `reverse` mode through the solver.

        Args:
            problem: the posterior, as a function of one flat vector.

        Raises:
            ModelError: if the solver of the model does not support the mode that the engine needs.
        """
        return choose(problem, "reverse")

    def near(self, positions: Float[np.ndarray, "draw dimension"]) -> "AbstractEngine":
        """Return the engine for a posterior similar to one with these draws.

        Args:
            positions: the draws, `(draw, dimension)`, in the unconstrained space.
        """
        return self


def check_engine(engine: object) -> None:
    """Refuse objects that are not engines, such as the class of one.

    Raises:
        ModelError: if the object is no engine, or has no field `draws`.
    """
    if not isinstance(engine, AbstractEngine):
        raise ModelError(f"engine must be an engine such as {SAMPLER}, not {engine!r}")
    if not hasattr(engine, "draws"):
        raise ModelError(f"{type(engine).__name__} needs a field `draws`, the draws of each chain")


def restored(stored: dict[str, Any]) -> Any:
    """Return the engine or strategy from its plain values.

    Raises:
        ReadError: if no class of that name is defined, or its settings have changed.
    """
    settings = dict(stored)
    name = settings.pop("class", None)
    for cls in _subclasses(Settings):
        if _class_name(cls) == name:
            try:
                return cls._from_stored(settings)
            except (TypeError, ModelError) as error:
                text = json.dumps(stored)
                raise ReadError(f"the checkpoint was made by {text}: {error}") from error
    raise ReadError(
        f"the checkpoint was made by {name}, which is not defined here: call bd.fit with the same "
        "engine, key and checkpoint instead"
    )


def _subclasses(cls: type) -> Iterator[type]:
    """Yield all direct and indirect subclasses."""
    for kind in cls.__subclasses__():
        yield kind
        yield from _subclasses(kind)


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
