"""Robust starts: many prior draws, a short optimisation of the best, the modes, the curvature at
the best one.
"""

import dataclasses
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .._runs.journal import Arrays
from ..errors import DataError, ModelError
from .coordinates.frame import Frame, Plain, coordinates, is_on, moved_gradient, positions
from .metric import (
    DENSE_OF_SCIENCE,
    DENSE_UP_TO,
    RANK,
    Metric,
    log_volume,
    lower_factor,
    root_of_inverse,
)
from .problem import Problem, ValueAndGradient
from .sharding import Sharded

CLIMBS = 32
# Only promising draws are optimised: one of the others may need every step that the solver allows.
_DRAWS_A_CLIMB = 4
CLIMB_STEPS = 400
# A mode whose log mass is so much lower than the largest holds little of the posterior.
_WORTH_HAVING = 5.0
# A wide mode may lie below a narrow one and hold more, by about the number of dimensions; more are
# seldom worth a look.
_MOST_MODES = 8
_CLOSE = 3.0  # standard deviations
_HESSIAN_STEP = 1e-4
_SHAKES = 9
_TRIES = 16
_POSITIONS = 32
"""How many positions a reference is made of."""
# A log density so large that rounding moves it by more tells positions apart no longer.
_RESOLVED = 0.01
# How far below its mode a chain may begin, beyond what draws of a normal do: half the number of
# dimensions, and four standard deviations of that.
_DEEPEST_START = 10.0


@dataclasses.dataclass(frozen=True)
class Start:
    """Where chains begin: modes, that of the largest mass first, minus the Hessian at each, and how
    tries fared.

    Of a population they are where it is high on average over the members, and the Hessian is that
    of the best normal.
    """

    modes: Float[np.ndarray, "modes dimension"]
    log_densities: Float[np.ndarray, " modes"]
    precisions: Float[np.ndarray, "modes dimension dimension"]
    tried: int
    failed: int

    def arrays(self) -> Arrays:
        """For a step of the journal."""
        return {name: np.asarray(value) for name, value in vars(self).items()}


class Optimiser:
    """Adam from a number of positions at once; a compiled program serves to optimise and to
    evaluate.

    Positions are coordinates in its `frame`. Plain ones have a program of their own, without the
    way through the frame, which may cost ten times a gradient. `seconds` and `steps` count what it
    has computed so far.

    The highest density of a population is no place to begin: noise may be next to nothing there,
    and each member follows its data. So the numbers of members are shaken by a standard normal at
    each step of a climb, which leads to where the posterior is high on average over what members
    may be. All climbs, of whatever fit, are shaken alike, so that those to one place end there.

    Args:
        value_and_gradient: the log density and its gradient, in plain coordinates.
        climbs: how many positions at once.
        frame: the first one; all others are of its kind.
        shaken: the places of the numbers of members, of all whose priors depend on others.
    """

    def __init__(
        self,
        value_and_gradient: ValueAndGradient,
        climbs: int = CLIMBS,
        frame: Frame | None = None,
        shaken: tuple[int, ...] = (),
    ):
        self.climbs, self.frame = climbs, frame or Plain()
        self._shaken = shaken
        schedule = optax.cosine_decay_schedule(0.1, CLIMB_STEPS)
        adam = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))

        def descend(item, frame, shaking):
            x, steps = item

            def step(number, carry):
                x, memory, (best, highest), _ = carry
                where = x
                if shaken:
                    noise = jax.random.normal(
                        jax.random.fold_in(jax.random.key(0), number), (len(shaken),)
                    )
                    where = x.at[jnp.asarray(shaken)].add(jnp.where(shaking, noise, 0.0))
                value, gradient = moved_gradient(value_and_gradient, frame, where)
                better = value > highest
                best = jnp.where(better, x, best), jnp.where(better, value, highest)
                ascent = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
                update, memory = adam.update(-ascent, memory)
                return x + update, memory, best, gradient

            begun = (x, adam.init(x), (x, -jnp.inf), jnp.zeros_like(x))
            last, _, (best, highest), gradient = jax.lax.fori_loop(0, steps, step, begun)
            return jnp.where(shaking, last, best), highest, gradient

        self._framed, self._plain = Sharded(descend, climbs), Sharded(descend, climbs)
        # Some at a time are spread over all shards.
        self._order = np.argsort(np.arange(climbs) % self._plain.each, kind="stable")
        self.seconds, self.steps = 0.0, 0

    def _run(
        self, x: np.ndarray, steps: int, *, shaking: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        lanes = self._order[: len(x)]
        begin, lengths = np.repeat(x[:1], self.climbs, axis=0), np.zeros(self.climbs, int)
        begin[lanes], lengths[lanes] = x, steps
        frame, program = (self.frame, self._framed) if is_on(self.frame) else (Plain(), self._plain)
        arguments = (begin, lengths), frame, np.asarray(shaking)
        program.compile(*arguments)
        began = time.perf_counter()
        found = jax.tree.map(lambda a: a[lanes], program(*arguments))
        self.seconds += time.perf_counter() - began
        self.steps += steps * len(x)
        return found

    def optimise(
        self, x: Float[np.ndarray, "batch dimension"]
    ) -> Float[np.ndarray, "batch dimension"]:
        """The positions after a short ascent of the log density."""
        return self._run(x, CLIMB_STEPS, shaking=bool(self._shaken))[0]

    def heights(self, x: Float[np.ndarray, "n dimension"]) -> Float[np.ndarray, " n"]:
        """What climbs are judged by: the log density, of a population its median over ways to shake
        the members.
        """
        if not self._shaken:
            return or_lowest(self.evaluate(x)[0])
        noise = np.zeros((_SHAKES, 1, x.shape[1]))
        noise[:, 0, self._shaken] = np.random.default_rng(0).normal(
            size=(_SHAKES, len(self._shaken))
        )
        values, _ = self.evaluate((x + noise).reshape(-1, x.shape[1]))
        return np.median(or_lowest(values).reshape(_SHAKES, len(x)), axis=0)

    def evaluate(self, x: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Log density and gradient at any number of positions."""
        values, gradients = [], []
        for begin in range(0, len(x), self.climbs):
            _, value, gradient = self._run(x[begin : begin + self.climbs], 1, shaking=False)
            values.append(value)
            gradients.append(gradient)
        return np.concatenate(values), np.concatenate(gradients)

    def evaluate_in(
        self, frame: Frame, xi: Float[np.ndarray, "n dimension"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Log density and gradient at coordinates in another frame."""
        own, self.frame = self.frame, frame
        try:
            return self.evaluate(xi)
        finally:
            self.frame = own

    def gradients(self, x: Float[np.ndarray, "n dimension"]) -> Float[np.ndarray, "n dimension"]:
        """Those of the log density at any number of positions."""
        return self.evaluate(x)[1]


def climbs_again(climbs: int) -> int:
    """How many of the climbs go on in a frame."""
    return max(climbs // 4, 1)


def climbed_in(
    frame: Frame, optimiser: Optimiser, x: Float[np.ndarray, "n dimension"]
) -> np.ndarray:
    """As many positions, after a climb in a frame, the highest there first; positions before the
    climb count too.
    """
    begun = coordinates(frame, x)
    own, optimiser.frame = optimiser.frame, frame
    try:
        reached, _ = best_first(optimiser, np.concatenate([optimiser.optimise(begun), begun]))
    finally:
        optimiser.frame = own
    return positions(frame, reached[: len(x)])[0]


def fared(found: Arrays) -> dict[str, int | float | str]:
    """What a result says of a search for modes, from `Start.arrays`."""
    return {
        "modes": len(found["modes"]),
        "starts": int(found["tried"]),
        "starts_failed": int(found["failed"]),
    }


type Climb = Callable[[Float[np.ndarray, "batch dimension"]], Float[np.ndarray, "batch dimension"]]
"""A way from prior draws to where the posterior is high."""


def precision_at(optimiser: Optimiser, mode: Float[np.ndarray, " dimension"]) -> np.ndarray:
    """Minus the Hessian, `(dimension, dimension)`."""
    precision = falls(optimiser.gradients, mode, np.eye(len(mode)))
    return (precision + precision.T) / 2


def falls(
    gradients: Callable[[Float[np.ndarray, "n dimension"]], Float[np.ndarray, "n dimension"]],
    x: Float[np.ndarray, " dimension"],
    directions: Float[np.ndarray, "n dimension"],
) -> Float[np.ndarray, "n dimension"]:
    """How gradients fall along each of some directions, by central differences: the solver's
    adjoint has no second derivative. Where one of two is not finite, nothing is known, and they are
    said not to fall."""
    nudges = _HESSIAN_STEP * directions
    up, down = np.split(gradients(np.concatenate([x + nudges, x - nudges])), 2)
    known = np.isfinite(up) & np.isfinite(down)
    return np.where(known, np.where(known, down, 0.0) - np.where(known, up, 0.0), 0.0) / (
        2 * _HESSIAN_STEP
    )


def find_start(
    problem: Problem,
    optimiser: Optimiser,
    *,
    climb: Climb | None = None,
    near: Float[np.ndarray, "draw dimension"] | None = None,
    key: Array,
) -> Start:
    """Modes worth having and the curvature there; by the optimiser, or another way to climb there.

    Half of the climbs begin at draws `near` the modes, if they are given, the others at prior
    draws.

    Raises:
        ModelError: if none leads to a finite log density.
    """
    x, heights, tried, failed = climbed(problem, optimiser, climb=climb, near=near, key=key)
    return modes_among(optimiser, x, heights, tried, failed)


def climbed(
    problem: Problem,
    optimiser: Optimiser,
    *,
    climb: Climb | None = None,
    near: Float[np.ndarray, "draw dimension"] | None = None,
    key: Array,
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Where climbs have led, the highest first, and how high; how many draws were looked at, and
    how many had no log density.

    Raises:
        ModelError: if none leads to a finite log density.
    """
    draws = _DRAWS_A_CLIMB * optimiser.climbs
    groups = [np.asarray(problem.prior(draws, key=key))]
    if near is not None:
        groups = [groups[0][: draws // 2], evenly(near, draws // 2)]
    values = [or_lowest(optimiser.evaluate(group)[0]) for group in groups]
    share = optimiser.climbs // len(groups)
    promising = [
        group[np.argsort(-value)[:share]] for group, value in zip(groups, values, strict=True)
    ]
    x = (climb or optimiser.optimise)(np.concatenate(promising))
    x, heights = best_first(optimiser, x, tried=draws)
    at_first = np.concatenate(values)
    return x, heights, len(at_first), int(np.isinf(at_first).sum())


def best_first(
    optimiser: Optimiser, x: Float[np.ndarray, "n dimension"], *, tried: int | None = None
) -> tuple[Float[np.ndarray, "reached dimension"], Float[np.ndarray, " reached"]]:
    """The positions that have a log density, the highest first, and how high they are.

    Raises:
        ModelError: if none has, which names how many draws were `tried`.
        DataError: if rounding hides how high.
    """
    heights = optimiser.heights(x)
    if not np.isfinite(heights).any():
        raise no_start(tried or len(x))
    refuse_unresolved(heights)
    order = np.argsort(-heights)[: np.isfinite(heights).sum()]
    return x[order], heights[order]


def modes_among(
    optimiser: Optimiser,
    x: Float[np.ndarray, "n dimension"],
    heights: Float[np.ndarray, " n"],
    tried: int,
    failed: int,
    precision_of: Callable[[Optimiser, np.ndarray], np.ndarray] = precision_at,
) -> Start:
    """The modes worth having among positions that climbs have reached, the highest first.

    Args:
        precision_of: minus the Hessian at a position, or what stands for it.
    """
    modes, precisions = _modes(optimiser, x, heights, precision_of)
    return Start(x[modes], heights[modes], precisions, tried, failed)


def no_start(draws: int) -> ModelError:
    """To be raised where no start leads anywhere."""
    return ModelError(
        f"none of {draws} prior draws leads to a finite log density: run bd.check(model, data), "
        "which "
        "says how prior draws fare in the solver, and narrow the priors or loosen the solver"
    )


def refuse_unresolved(log_densities: np.ndarray) -> None:
    """Refuse data so far from all predictions that positions cannot be told apart by their log
    densities.

    Args:
        log_densities: those of the best positions that were found, of which at least one is finite.

    Raises:
        DataError: that says what to look for.
    """
    best = log_densities[np.isfinite(log_densities)].max()
    if np.spacing(np.abs(best)) > _RESOLVED:
        raise DataError(
            f"the log density is {best:.2g} at best, where rounding alone is "
            f"{np.spacing(np.abs(best)):.2g}: the data "
            "lie too far from all that the model predicts. Look for a fill value such as 1e20 that "
            "should be missing "
            "(NaN), and for other units than those of the model; bd.check(model, data) shows prior "
            "predictions"
        )


def or_lowest(log_density: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(log_density), log_density, -np.inf)


def evenly(draws: np.ndarray, number: int) -> np.ndarray:
    """So many of the draws, evenly spaced; some of them twice if there are fewer."""
    return draws[np.linspace(0, len(draws) - 1, number).astype(int)]


def chosen_for_reference(
    positions: Float[np.ndarray, "n dimension"],
) -> Float[np.ndarray, "chosen dimension"]:
    """The positions, of several, that a reference is made of."""
    return evenly(positions, _POSITIONS if len(positions) > 1 else 1)


def _modes(
    optimiser: Optimiser,
    x: np.ndarray,
    value: np.ndarray,
    precision_of: Callable[[Optimiser, np.ndarray], np.ndarray],
) -> tuple[list[int], Float[np.ndarray, "modes dimension dimension"]]:
    """Indices of the modes worth having, by their mass; of those that lie together only the
    highest.

    `x` are positions in the order of their log density.
    """
    kept: list[int] = []
    precisions: list[np.ndarray] = []
    # The highest itself counts, even if rounding loses what is taken off.
    for i in np.flatnonzero(value >= value[0] - _WORTH_HAVING - x.shape[1]):
        offsets = [x[i] - x[j] for j in kept]
        if all(abs(d @ p @ d) > _CLOSE**2 for d, p in zip(offsets, precisions, strict=True)):
            kept.append(int(i))
            precisions.append(precision_of(optimiser, x[i]))
        if len(kept) == _MOST_MODES:
            break
    mass = or_lowest(
        np.array([value[i] + log_volume(p) for i, p in zip(kept, precisions, strict=True)])
    )
    best = [i for i in np.argsort(-mass) if mass[i] >= mass.max() - _WORTH_HAVING]
    return [kept[i] for i in best], np.stack([precisions[i] for i in best])


def nearest_mode(
    positions: Float[np.ndarray, "chain draw dimension"],
    modes: Float[np.ndarray, "modes dimension"],
    precisions: Float[np.ndarray, "modes dimension dimension"],
) -> np.ndarray:
    """The number of the mode that each draw most likely belongs to,
    by the normal around each mode.
    """
    scores = []
    for mode, precision in zip(modes, precisions, strict=True):
        away = (positions - mode) @ np.linalg.pinv(root_of_inverse(precision)).T
        scores.append(-0.5 * (away**2).sum(-1) - log_volume(precision))
    return np.stack(scores).argmax(0)


def first_positions(
    start: Start, optimiser: Optimiser, chains: int, *, key: Array
) -> Float[np.ndarray, "chains dimension"]:
    """A dispersed start for each chain: a Laplace draw around one of the modes.

    Where the posterior falls off far faster than the normal does, as along a bent valley, each
    further try lies closer to the mode, so that no chain begins on a cliff that it cannot leave.
    """
    turns = np.arange(chains) % len(start.modes)
    modes, roots = (
        start.modes[turns],
        np.stack([root_of_inverse(p) for p in start.precisions])[turns],
    )
    noise = np.asarray(jax.random.normal(key, (_TRIES, chains, modes.shape[1])))
    closer = 2.0 ** (-0.5 * np.arange(_TRIES))
    candidates = modes + closer[:, None, None] * np.einsum("cij,tcj->tci", roots, noise)
    value, _ = optimiser.evaluate(candidates.reshape(_TRIES * chains, -1))
    half = modes.shape[1] / 2
    lowest = start.log_densities[turns] - _DEEPEST_START - half - 4 * half**0.5
    near = or_lowest(value).reshape(_TRIES, chains) > lowest
    return np.where(near.any(0)[:, None], candidates[near.argmax(0), np.arange(chains)], modes)


def laplace_metric(
    precision: Float[np.ndarray, "dimension dimension"], *blocks: tuple[int, ...]
) -> Metric:
    """The metric of a mode where minus the Hessian is `precision`; directions of no curvature are
    left long.

    Of many coordinates it is dense for the first of some `blocks` of them that is small, and
    low-rank for the rest.
    """
    root = root_of_inverse(precision)
    block, rest = _split(len(precision), *blocks)
    factor = lower_factor(root[list(block)])
    remaining = root[list(rest)] @ root[list(rest)].T
    scale = np.sqrt(np.diag(remaining))
    stretched, directions = (
        np.linalg.eigh(remaining / np.outer(scale, scale)) if rest else (scale, remaining)
    )
    rank = min(RANK, len(rest))
    kept = np.argsort(-np.abs(np.log(np.maximum(stretched, 1e-12))))[:rank]
    stretch = np.sqrt(np.maximum(stretched[kept], 1e-12))
    return Metric(block, rest, *map(jnp.asarray, (factor, scale, directions[:, kept], stretch)))


def _split(dimension: int, *blocks: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Which coordinates are dense, and the rest: all if they are few, else the first of some blocks
    that is small.
    """
    everything = tuple(range(dimension))
    if dimension <= DENSE_UP_TO:
        return everything, ()
    for block in blocks:
        if len(block) <= DENSE_OF_SCIENCE:
            return block, tuple(i for i in everything if i not in set(block))
    return (), everything
