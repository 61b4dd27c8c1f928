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
    """The expected cost of a run, counted in gradients of the log density.

    An engine evaluates `engine.batch` positions together. The counts hold for each of them.

    Args:
        least: the fewest gradients, or equally expensive evaluations.
        most: the most gradients.
        programs: compile time of all programs of the engine, divided by that of one gradient.
    """

    least: float
    most: float
    programs: int = 4


type Facts = Mapping[str, int | float | str]
"""Numbers and text about a run by name, which become attributes of the fitted DataTree."""


@dataclasses.dataclass(frozen=True)
class Modes:
    """Relevant modes of the posterior in the unconstrained space, best first.

    For a hierarchical model, NUTS reports maxima of the log density averaged over jittered random
    effects, not those of the log density itself.

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
        facts: numbers and text about the run, which become attributes of the fitted DataTree.
        findings: findings on the run, for `diagnose`.
        modes: modes of the posterior, if the engine searches for them.
        curves: loss and terms of a gradient descent, `(member, step)` by name.
        draws_are: the kind of draws in words, such as "chains".
        markov: whether the chains are Markov chains. Only then are R-hat and effective sample sizes
            computed.
        superchains: the number of groups of chains with a common start, for chains too short for
            R-hat; 0 without such groups.
        interrupted: whether Ctrl-C ended the run early.

    Raises:
        ModelError: if `positions` do not have three axes, or statistics are not `(chain, draw)`.
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
        """Return what the fitted DataTree stores about the run, as numbers and text for netCDF.

        The names are `interrupted`, `draws_are`, `markov`, `superchains`, `findings` (JSON), and
        those of `facts`.
        """
        return {
            "interrupted": int(self.interrupted),
            "draws_are": self.draws_are,
            "markov": int(self.markov),
            "superchains": self.superchains,
            "findings": to_json(self.findings),
            **self.facts,
        }


class Settings:
    """Base class of engines and strategies: a frozen dataclass whose fields are all settings.

    A field is a number, a text, or another `Settings` object. A checkpoint stores the class name
    and the fields, from which a run can be resumed.
    """

    def stored(self) -> dict[str, Any]:
        """Return the settings as a dict that JSON can store.

        The key `class` holds the class name; the other keys are the fields. Nested settings become
        nested dicts.
        """
        plain: dict[str, Any] = {"class": _class_name(type(self))}
        for field in dataclasses.fields(self):  # type: ignore[arg-type]
            value = getattr(self, field.name)
            plain[field.name] = value.stored() if isinstance(value, Settings) else value
        return plain

    @classmethod
    def _from_stored(cls, settings: dict[str, Any]) -> "Settings":
        """Return settings from the fields that `stored` wrote, without the key `class`."""
        return cls(**{n: restored(v) if isinstance(v, dict) else v for n, v in settings.items()})

    def _check_numbers(self, **least: int) -> None:
        """Raise ModelError if a field is not a whole number.

        Args:
            **least: the smallest valid value, by name of the field.
        """
        for name, smallest in least.items():
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
                self._refuse(name, f"be a whole number, at least {smallest}")

    def _check_words(self, **allowed: tuple[str, ...]) -> None:
        """Raise ModelError if a field is not one of its valid words.

        Args:
            **allowed: the valid words, by name of the field.
        """
        for name, words in allowed.items():
            if getattr(self, name) not in words:
                self._refuse(name, f"be one of {', '.join(words)}")

    def _check_settings(self, **kinds: type["Settings"]) -> None:
        """Raise ModelError if a field is not an instance of its `Settings` class.

        Args:
            **kinds: the required class, by name of the field.
        """
        for name, kind in kinds.items():
            if not isinstance(getattr(self, name), kind):
                self._refuse(name, f"be a bd.{kind.__name__}(…)")

    def _check_floats(self, *names: str, below: float = 1.0, zero: bool = False) -> None:
        """Convert fields to float, and raise ModelError if one is not between 0 and `below`.

        Args:
            *names: the names of the fields.
            below: the upper bound, which is excluded.
            zero: whether 0 itself is valid.
        """
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
        """Raise ModelError for the value of a field.

        Args:
            name: the field.
            must: end of the message, which completes "<field> must …".
        """
        value = getattr(self, name)
        raise ModelError(f"{type(self).__name__}({name}={value!r}): {name} must {must}")


class AbstractEngine(abc.ABC, Settings):
    """The interface of an engine: a frozen dataclass of its settings.

    An engine draws from the posterior in `run` and states its expected cost in `cost`. A long run
    is divided into steps of the journal, so that it can be resumed from a checkpoint.
    """

    draws: int
    """Number of draws of each chain."""

    @property
    def batch(self) -> int:
        """Number of positions that are evaluated together."""
        return 1

    @abc.abstractmethod
    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the posterior.

        Args:
            problem: the posterior, as a function of one flat vector.
            key: a JAX random key.
            journal: stores the arrays of each finished step, if there is a checkpoint.
            bar: shows the progress.

        Returns:
            The draws in the unconstrained space, with statistics and findings.
        """

    def cost(self, problem: Problem) -> Cost | None:
        """Return the expected cost of a run, or None if it is unknown.

        Args:
            problem: the posterior, as a function of one flat vector.
        """
        return None

    def gradient_mode(self, problem: Problem) -> str:
        """Return `forward` or `reverse`: the mode of automatic differentiation through the solver.

        Args:
            problem: the posterior, as a function of one flat vector.

        Raises:
            ModelError: if the solver of the model does not support the mode that the engine needs.
        """
        return choose(problem, "reverse")

    def near(self, positions: Float[np.ndarray, "draw dimension"]) -> "AbstractEngine":
        """Return an engine that uses draws of a similar posterior for its start.

        This default ignores the draws and returns the engine unchanged.

        Args:
            positions: draws of the similar posterior, `(draw, dimension)`, in the unconstrained
                space.
        """
        return self


def check_engine(engine: object) -> None:
    """Raise ModelError if an object is no engine, for example a class instead of an instance.

    Args:
        engine: the object.

    Raises:
        ModelError: if the object is no engine, or has no field `draws`.
    """
    if not isinstance(engine, AbstractEngine):
        raise ModelError(f"engine must be an engine such as {SAMPLER}, not {engine!r}")
    if not hasattr(engine, "draws"):
        raise ModelError(f"{type(engine).__name__} needs a field `draws`, the draws of each chain")


def restored(stored: dict[str, Any]) -> Any:
    """Return the engine or strategy that `Settings.stored` turned into a dict.

    Args:
        stored: the dict.

    Raises:
        ReadError: if no class of the stored name is defined, or its fields have changed.
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
    """Yield all direct and indirect subclasses of a class."""
    for kind in cls.__subclasses__():
        yield kind
        yield from _subclasses(kind)


def _class_name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
