"""What an engine is, and what every engine returns."""

import abc
import dataclasses
import json
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Float

from .._findings import SAMPLER, Finding, to_json
from .._runs.journal import Journal, ProgressBar
from ..errors import ModelError, ReadError
from .gradient import choose
from .problem import Problem


class Cost(NamedTuple):
    """What an engine takes at each of the positions that it looks at together.

    Args:
        least: the fewest gradients, or what costs as much.
        most: the most of them.
        programs: how many times as long as a gradient it takes to compile.
    """

    least: float
    most: float
    programs: int = 4


type Facts = Mapping[str, int | float | str]
"""What is known of a run, to become attributes of its result."""


@dataclasses.dataclass(frozen=True)
class Modes:
    """Modes of the posterior worth having, best first, in the unconstrained space.

    NUTS gives of a population where the posterior is high on average over its members.

    Args:
        positions: `(mode, dimension)`.
        log_densities: those of the posterior there, `(mode,)`, in nats up to a constant.
        weights: the posterior probability of each mode, `(mode,)`, if the engine tells it.
        weight_errors: their standard errors, NaN where one run gives none.
    """

    positions: Float[np.ndarray, "mode dimension"]
    log_densities: Float[np.ndarray, " mode"]
    weights: Float[np.ndarray, " mode"] | None = None
    weight_errors: Float[np.ndarray, " mode"] | None = None


@dataclasses.dataclass(frozen=True)
class Samples:
    """Draws in the unconstrained space, what is known of each, and what the engine says of its run.

    Args:
        positions: the draws, `(chain, draw, dimension)`.
        stats: what is known of each draw, `(chain, draw)` by name, such as `lp`, its log density.
        facts: what is known of the run: numbers and text by name, which become attributes of the
            result.
        findings: what should be said of the run, in `diagnose`.
        modes: modes of the posterior that were found, if any.
        curves: what a descent went through, `(member, step)` by name.
        draws_are: what a draw is, in words.
        markov: whether the draws of a chain follow from one another, so that R-hat and effective
            sample sizes mean something.
        superchains: how many groups of chains, each too short for R-hat, begin at one point; none
            unless given.
        interrupted: whether Ctrl-C ended the run early.

    Raises:
        ModelError: for arrays of other shapes.
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
        """What a result says of its draws and of the run, ready for netCDF."""
        return {
            "interrupted": int(self.interrupted),
            "draws_are": self.draws_are,
            "markov": int(self.markov),
            "superchains": self.superchains,
            "findings": to_json(self.findings),
            **self.facts,
        }


class Settings:
    """Settings of an engine or of a strategy: a frozen dataclass of numbers, words and other
    settings.

    They are stored by the name of their class and its fields, so that a run can be resumed from
    what it wrote down.
    """

    def stored(self) -> dict[str, Any]:
        """The settings as plain values, ready for JSON."""
        held = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        plain = {
            name: value.stored() if isinstance(value, Settings) else value
            for name, value in held.items()
        }
        return {"class": _class_name(type(self)), **plain}

    @classmethod
    def _from_stored(cls, settings: dict[str, Any]) -> "Settings":
        return cls(
            **{
                name: restored(value) if isinstance(value, dict) else value
                for name, value in settings.items()
            }
        )

    def _check_numbers(self, **least: int) -> None:
        """Raise ModelError unless fields are whole numbers of at least so much."""
        for name, smallest in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                raise ModelError(
                    f"{type(self).__name__}({name}={value!r}): {name} must be a whole number, at "
                    f"least {smallest}"
                )

    def _check_words(self, **allowed: tuple[str, ...]) -> None:
        """Raise ModelError unless fields are among these words."""
        for name, words in allowed.items():
            value = getattr(self, name)
            if value not in words:
                raise ModelError(
                    f"{type(self).__name__}({name}={value!r}): {name} must be one of "
                    f"{', '.join(words)}"
                )

    def _check_settings(self, **kinds: type["Settings"]) -> None:
        """Raise ModelError unless fields are settings of these kinds."""
        for name, kind in kinds.items():
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise ModelError(
                    f"{type(self).__name__}({name}={value!r}): {name} must be a "
                    f"bd.{kind.__name__}(…)"
                )

    def _check_floats(self, *names: str, below: float = 1.0, zero: bool = False) -> None:
        """Make fields plain floats.

        Raises:
            ModelError: unless they lie between 0 and `below`.
        """
        for name in names:
            value = getattr(self, name)
            try:
                number = float(value)
            except (TypeError, ValueError):
                number = float("nan")
            if not (0 < number < below or (zero and number == 0)):
                limits = f"at least 0 and below {below:g}" if zero else f"between 0 and {below:g}"
                raise ModelError(
                    f"{type(self).__name__}({name}={value!r}): {name} must lie {limits}"
                )
            object.__setattr__(self, name, number)


class AbstractEngine(abc.ABC, Settings):
    """Draws from the posterior of a problem: a frozen dataclass of its settings.

    An engine owns what it costs, how it is stored and restored, and what is said of its run. Long
    work is done in steps of the journal, so that it can be resumed.
    """

    draws: int
    """Draws of each chain."""

    @property
    def batch(self) -> int:
        """Positions that are looked at together."""
        return 1

    @abc.abstractmethod
    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the posterior.

        Args:
            problem: the posterior, as a function of one flat vector.
            key: a JAX random key.
            journal: keeps each step of long work as it is done.
            bar: shows how far the work has come.
        """

    def cost(self, problem: Problem) -> Cost | None:
        """What a run takes, before it has run; none if that is not known.

        Args:
            problem: the posterior, as a function of one flat vector.
        """
        return None

    def gradient_mode(self, problem: Problem) -> str:
        """Whether gradients are taken by `forward` or `reverse` mode through the solver.

        Args:
            problem: the posterior, as a function of one flat vector.

        Raises:
            ModelError: if the solver of the model cannot do what the engine needs.
        """
        return choose(problem, "reverse")

    def near(self, positions: Float[np.ndarray, "draw dimension"]) -> "AbstractEngine":
        """The engine for a posterior that is similar to one with draws at these positions.

        Args:
            positions: the draws, `(draw, dimension)`, in the unconstrained space.
        """
        return self


def check_engine(engine: object) -> None:
    """Raise ModelError for what is no engine, such as the class of one."""
    if not isinstance(engine, AbstractEngine):
        raise ModelError(f"engine must be an engine such as {SAMPLER}, not {engine!r}")
    if not hasattr(engine, "draws"):
        raise ModelError(f"{type(engine).__name__} needs a field `draws`, the draws of each chain")


def restored(stored: dict[str, Any]) -> Any:
    """An engine or a strategy from what `stored` made of it.

    Raises:
        ReadError: if no class of that name is defined, or its settings are no longer what they
            were.
    """
    name, settings = stored.get("class"), {k: v for k, v in stored.items() if k != "class"}
    for cls in _kinds(Settings):
        if _class_name(cls) == name:
            try:
                return cls._from_stored(settings)
            except (TypeError, ModelError) as error:
                raise ReadError(
                    f"the checkpoint was made by {json.dumps(stored)}: {error}"
                ) from error
    raise ReadError(
        f"the checkpoint was made by {name}, which is not defined here: call bd.fit with the same "
        "engine, key and "
        "checkpoint instead"
    )


def _kinds(cls: type) -> Iterator[type]:
    for kind in cls.__subclasses__():
        yield kind
        yield from _kinds(kind)


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
