"""Multi-start MAP: many prior draws, a short optimisation of the best, modes and curvature."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from .._runs.journal import Arrays
from ..errors import DataError, ModelError
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
from .reparametrisations.reparametrisation import Identity, Reparametrisation
from .sharding import Sharded

MAP_STARTS = 32
# Prior draws per start. Only the best are optimised: solves at others may take all allowed steps.
_DRAWS_A_START = 4
MAP_STEPS = 400
# Nats of log mass below the largest mode, from which a mode is negligible.
_WORTH_HAVING = 5.0
_MOST_MODES = 8
# Standard deviations within which two positions belong to one mode.
_CLOSE = 3.0
_HESSIAN_STEP = 1e-4
# Jitters whose median ranks the starts of a hierarchical model.
_JITTERS = 9
# Distances from the mode at which a first position is tried.
_TRIES = 16
# Positions to which a reference is fitted.
_POSITIONS = 32
# Rounding errors of a log density above this hide differences between positions.
_RESOLVED = 0.01
# Nats below the mode at which a chain may begin, beyond d/2 + 4 sqrt(d/2) for normal draws.
_DEEPEST_START = 10.0


@dataclasses.dataclass(frozen=True)
class Start:
    """Modes, the one of largest mass first, and minus the Hessian at each.

    For a hierarchical model they maximise the density on average over random effects, and the
    Hessian is that of the best normal. `tried` and `failed` count prior draws.
    """

    modes: Float[np.ndarray, "modes dimension"]
    log_densities: Float[np.ndarray, " modes"]
    precisions: Float[np.ndarray, "modes dimension dimension"]
    tried: int
    failed: int

    def arrays(self) -> Arrays:
        """Return the fields as arrays for a step of the journal."""
        return {name: np.asarray(value) for name, value in vars(self).items()}


class Optimiser:
    """Adam from a number of positions at once; one compiled program optimises and evaluates.

    Positions are those of its `reparametrisation`. `seconds` and `steps` count its work so far.

    The mode of a hierarchical model is a poor start: noise may be almost zero there, and each group
    follows its data. So random effects are jittered by a standard normal at each step, which
    maximises the posterior on average over them. The jitter is the same for all starts and fits, so
    that starts in one basin end at one place.

    Args:
        value_and_gradient: the log density and its gradient by unconstrained parameters.
        count: how many positions at once.
        reparametrisation: the first one; all others are of its class.
        jittered: indices of random effects, whose priors depend on other parameters.
    """

    def __init__(
        self,
        value_and_gradient: ValueAndGradient,
        count: int = MAP_STARTS,
        reparametrisation: Reparametrisation | None = None,
        jittered: tuple[int, ...] = (),
    ):
        self.count = count
        self.reparametrisation = reparametrisation or Identity()
        self._jittered = jittered
        schedule = optax.cosine_decay_schedule(0.1, MAP_STEPS)
        adam = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(schedule))

        def descend(item, reparametrisation, jitter):
            x, steps = item

            def step(number, carry):
                x, memory, (best, highest), _ = carry
                # 1. Jitter the random effects: z + n, with n standard normal.
                where = x
                if jittered:
                    noise = jax.random.normal(
                        jax.random.fold_in(jax.random.key(0), number), (len(jittered),)
                    )
                    where = x.at[jnp.asarray(jittered)].add(jnp.where(jitter, noise, 0.0))
                # 2. log p(z) and its gradient; the best position so far is kept.
                value, gradient = reparametrisation.value_and_gradient(value_and_gradient, where)
                better = value > highest
                best = jnp.where(better, x, best), jnp.where(better, value, highest)
                # 3. A step of Adam upwards.
                ascent = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
                update, memory = adam.update(-ascent, memory)
                return x + update, memory, best, gradient

            begun = (x, adam.init(x), (x, -jnp.inf), jnp.zeros_like(x))
            last, _, (best, highest), gradient = jax.lax.fori_loop(0, steps, step, begun)
            return jnp.where(jitter, last, best), highest, gradient

        # One program per class: the Jacobian of a reparametrisation may cost ten gradients.
        self._program = functools.cache(lambda kind: Sharded(descend, count))
        # In this order fewer positions than `count` are spread evenly over the shards.
        self._order = np.argsort(np.arange(count) % self._program(Identity).each, kind="stable")
        self.seconds, self.steps = 0.0, 0

    def _run(
        self, x: np.ndarray, steps: int, *, jitter: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return positions, log densities and gradients after some steps."""
        # The other lanes of the program take no steps.
        lanes = self._order[: len(x)]
        begin = np.repeat(x[:1], self.count, axis=0)
        begin[lanes] = x
        lengths = np.zeros(self.count, int)
        lengths[lanes] = steps
        reparametrisation = self.reparametrisation.active
        program = self._program(type(reparametrisation))
        arguments = (begin, lengths), reparametrisation, np.asarray(jitter)
        program.compile(*arguments)
        began = time.perf_counter()
        found = jax.tree.map(lambda a: a[lanes], program(*arguments))
        self.seconds += time.perf_counter() - began
        self.steps += steps * len(x)
        return found

    def optimise(
        self, x: Float[np.ndarray, "batch dimension"]
    ) -> Float[np.ndarray, "batch dimension"]:
        """Return the positions after a short ascent of the log density."""
        return self._run(x, MAP_STEPS, jitter=bool(self._jittered))[0]

    def objective(self, x: Float[np.ndarray, "n dimension"]) -> Float[np.ndarray, " n"]:
        """Return the log density, or its median over jitters, by which starts are ranked."""
        if not self._jittered:
            return or_lowest(self.evaluate(x)[0])
        noise = np.zeros((_JITTERS, 1, x.shape[1]))
        noise[:, 0, self._jittered] = np.random.default_rng(0).normal(
            size=(_JITTERS, len(self._jittered))
        )
        values, _ = self.evaluate((x + noise).reshape(-1, x.shape[1]))
        return np.median(or_lowest(values).reshape(_JITTERS, len(x)), axis=0)

    def evaluate(self, x: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Return log density and gradient at any number of positions."""
        values, gradients = [], []
        for begin in range(0, len(x), self.count):
            _, value, gradient = self._run(x[begin : begin + self.count], 1, jitter=False)
            values.append(value)
            gradients.append(gradient)
        return np.concatenate(values), np.concatenate(gradients)

    def evaluate_in(
        self, reparametrisation: Reparametrisation, z: Float[np.ndarray, "n dimension"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log density and gradient in another reparametrisation."""
        with self.within(reparametrisation):
            return self.evaluate(z)

    @contextlib.contextmanager
    def within(self, reparametrisation: Reparametrisation) -> Iterator[None]:
        """Work in another reparametrisation for a while."""
        own = self.reparametrisation
        self.reparametrisation = reparametrisation
        try:
            yield
        finally:
            self.reparametrisation = own

    def gradients(self, x: Float[np.ndarray, "n dimension"]) -> Float[np.ndarray, "n dimension"]:
        """Return the gradients of the log density at any number of positions."""
        return self.evaluate(x)[1]


def refined_starts(starts: int) -> int:
    """Return how many of the starts are optimised again in a fitted reparametrisation."""
    return max(starts // 4, 1)


def optimised_in(
    reparametrisation: Reparametrisation, optimiser: Optimiser, x: Float[np.ndarray, "n dimension"]
) -> np.ndarray:
    """Return as many positions, optimised in a reparametrisation, the highest there first.

    Positions before the optimisation count too.
    """
    begun = reparametrisation.inverse_many(x)
    with optimiser.within(reparametrisation):
        reached, _ = best_first(optimiser, np.concatenate([optimiser.optimise(begun), begun]))
    return reparametrisation.forward_many(reached[: len(x)])[0]


def fared(found: Arrays) -> dict[str, int | float | str]:
    """Return the facts of a multi-start MAP search, from `Start.arrays`."""
    return {
        "modes": len(found["modes"]),
        "starts": int(found["tried"]),
        "starts_failed": int(found["failed"]),
    }


type Ascent = Callable[[Float[np.ndarray, "batch dimension"]], Float[np.ndarray, "batch dimension"]]
"""Maps prior draws to positions of high posterior density."""


def precision_at(
    optimiser: Optimiser,
    mode: Float[np.ndarray, " dimension"],
    indices: Sequence[int] | None = None,
) -> np.ndarray:
    """Return minus the Hessian, `(dimension, dimension)`.

    Args:
        indices: the parameters it is computed for, by default all. For others it is taken as 1.
    """
    precision = np.eye(len(mode))
    chosen = list(range(len(mode)) if indices is None else indices)
    if chosen:
        fell = falls(optimiser.gradients, mode, precision[chosen])[:, chosen]
        precision[np.ix_(chosen, chosen)] = (fell + fell.T) / 2
    return precision


def falls(
    gradients: Callable[[Float[np.ndarray, "n dimension"]], Float[np.ndarray, "n dimension"]],
    x: Float[np.ndarray, " dimension"],
    directions: Float[np.ndarray, "n dimension"],
) -> Float[np.ndarray, "n dimension"]:
    """Return minus the derivative of the gradient along each direction, zero if it is unknown.

    Central differences serve, since the solver's adjoint has no second derivative.
    """
    # −H v ≈ (g(x − h v) − g(x + h v)) / (2 h).
    nudges = _HESSIAN_STEP * directions
    up, down = np.split(gradients(np.concatenate([x + nudges, x - nudges])), 2)
    known = np.isfinite(up) & np.isfinite(down)
    down = np.where(known, down, 0.0)
    up = np.where(known, up, 0.0)
    return (down - up) / (2 * _HESSIAN_STEP)


def find_start(problem: Problem, optimiser: Optimiser, *, key: Array) -> Start:
    """Return modes of large mass and the curvature there, by multi-start MAP.

    Raises:
        ModelError: if no start has a finite log density.
    """
    return modes_among(optimiser, *multi_start(problem, optimiser, key=key))


def multi_start(
    problem: Problem,
    optimiser: Optimiser,
    *,
    ascent: Ascent | None = None,
    near: Float[np.ndarray, "draw dimension"] | None = None,
    key: Array,
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Optimise from the best of many draws.

    Args:
        problem: the posterior.
        optimiser: evaluates and optimises positions.
        ascent: replaces the optimisation.
        near: draws of a similar posterior, for half of the starts in place of prior draws.
        key: random seed.

    Returns:
        The positions reached, the highest first, their objectives, the number of draws, and the
        number of draws without a finite log density.

    Raises:
        ModelError: if no start has a finite log density.
    """
    # 1. Many prior draws, half of them replaced by draws near the modes.
    draws = _DRAWS_A_START * optimiser.count
    groups = [np.asarray(problem.prior(draws, key=key))]
    if near is not None:
        groups = [groups[0][: draws // 2], evenly(near, draws // 2)]
    # 2. The best of each kind.
    values = [or_lowest(optimiser.evaluate(group)[0]) for group in groups]
    share = optimiser.count // len(groups)
    promising = [
        group[np.argsort(-value)[:share]] for group, value in zip(groups, values, strict=True)
    ]
    # 3. Optimise them.
    x = (ascent or optimiser.optimise)(np.concatenate(promising))
    x, objectives = best_first(optimiser, x, tried=draws)
    at_first = np.concatenate(values)
    return x, objectives, len(at_first), int(np.isinf(at_first).sum())


def best_first(
    optimiser: Optimiser, x: Float[np.ndarray, "n dimension"], *, tried: int | None = None
) -> tuple[Float[np.ndarray, "reached dimension"], Float[np.ndarray, " reached"]]:
    """Return the positions of finite objective, the highest first, and the objectives.

    Raises:
        ModelError: if there are none; the message has the number of draws `tried`.
        DataError: if rounding hides differences between their log densities.
    """
    objectives = optimiser.objective(x)
    if not np.isfinite(objectives).any():
        raise no_start(tried or len(x))
    refuse_unresolved(objectives)
    order = np.argsort(-objectives)[: np.isfinite(objectives).sum()]
    return x[order], objectives[order]


def modes_among(
    optimiser: Optimiser,
    x: Float[np.ndarray, "n dimension"],
    objectives: Float[np.ndarray, " n"],
    tried: int,
    failed: int,
    precision_of: Callable[[Optimiser, np.ndarray], np.ndarray] = precision_at,
) -> Start:
    """Return the modes of large mass among optimised positions, the highest first.

    Args:
        optimiser: evaluates gradients.
        x: optimised positions, the highest first.
        objectives: their objectives.
        tried: number of prior draws.
        failed: number of prior draws without a finite log density.
        precision_of: minus the Hessian at a position, or its approximation.
    """
    modes, precisions = _modes(optimiser, x, objectives, precision_of)
    return Start(x[modes], objectives[modes], precisions, tried, failed)


def no_start(draws: int) -> ModelError:
    """Return the error for starts without a finite log density."""
    return ModelError(
        f"none of {draws} prior draws leads to a finite log density: run bd.check(model, data), "
        "which says how prior draws fare in the solver, and narrow the priors or loosen the solver"
    )


def refuse_unresolved(log_densities: np.ndarray) -> None:
    """Refuse data so far from all predictions that rounding hides differences in log density.

    Args:
        log_densities: log densities of the best positions; at least one is finite.

    Raises:
        DataError: if the rounding error of the largest log density is too large.
    """
    best = log_densities[np.isfinite(log_densities)].max()
    rounding = np.spacing(np.abs(best))
    if rounding > _RESOLVED:
        raise DataError(
            f"the log density is {best:.2g} at best, where rounding alone is {rounding:.2g}: the "
            "data lie too far from all that the model predicts. Look for a fill value such as 1e20 "
            "that should be missing (NaN), and for other units than those of the model; "
            "bd.check(model, data) shows prior predictions"
        )


def or_lowest(log_density: np.ndarray) -> np.ndarray:
    """Return log densities with −∞ for those that are not finite."""
    return np.where(np.isfinite(log_density), log_density, -np.inf)


def evenly(draws: np.ndarray, number: int) -> np.ndarray:
    """Return `number` evenly spaced draws, with repeats if there are fewer."""
    return draws[np.linspace(0, len(draws) - 1, number).astype(int)]


def chosen_for_reference(
    positions: Float[np.ndarray, "n dimension"],
) -> Float[np.ndarray, "chosen dimension"]:
    """Return the positions to which a reference is fitted."""
    return evenly(positions, _POSITIONS if len(positions) > 1 else 1)


def _modes(
    optimiser: Optimiser,
    x: np.ndarray,
    value: np.ndarray,
    precision_of: Callable[[Optimiser, np.ndarray], np.ndarray],
) -> tuple[list[int], Float[np.ndarray, "modes dimension dimension"]]:
    """Return indices of the modes of large mass, the largest first, and their precisions.

    The positions `x` are in the order of their log density. Positions close together are one mode,
    represented by the highest.
    """
    kept: list[int] = []
    precisions: list[np.ndarray] = []
    # 1. A wide mode may be lower than a narrow one by about d nats, and still have more mass.
    for i in np.flatnonzero(value >= value[0] - _WORTH_HAVING - x.shape[1]):
        # 2. A new mode has Mahalanobis distance sqrt(Δᵀ P Δ) > 3 from all others.
        offsets = [x[i] - x[j] for j in kept]
        if all(abs(d @ p @ d) > _CLOSE**2 for d, p in zip(offsets, precisions, strict=True)):
            kept.append(int(i))
            precisions.append(precision_of(optimiser, x[i]))
        if len(kept) == _MOST_MODES:
            break
    # 3. Log mass of the normal approximation: log p + ½ log det P⁻¹, up to a constant.
    mass = np.array([value[i] + log_volume(p) for i, p in zip(kept, precisions, strict=True)])
    mass = or_lowest(mass)
    best = [i for i in np.argsort(-mass) if mass[i] >= mass.max() - _WORTH_HAVING]
    return [kept[i] for i in best], np.stack([precisions[i] for i in best])


def nearest_mode(
    positions: Float[np.ndarray, "chain draw dimension"],
    modes: Float[np.ndarray, "modes dimension"],
    precisions: Float[np.ndarray, "modes dimension dimension"],
) -> np.ndarray:
    """Return the number of each draw's mode, by the density of the normal around each mode."""
    scores = []
    for mode, precision in zip(modes, precisions, strict=True):
        # log N(x; mode, P⁻¹) = −½ |R⁻¹ (x − mode)|² − ½ log det P⁻¹, with R Rᵀ = P⁻¹.
        away = (positions - mode) @ np.linalg.pinv(root_of_inverse(precision)).T
        scores.append(-0.5 * (away**2).sum(-1) - log_volume(precision))
    return np.stack(scores).argmax(0)


def first_positions(
    start: Start, optimiser: Optimiser, chains: int, *, key: Array
) -> Float[np.ndarray, "chains dimension"]:
    """Return a dispersed start for each chain: a draw of the normal around one of the modes.

    Along a curved valley the posterior falls much faster than the normal. So each further try is
    closer to the mode, and no chain begins where it cannot move.
    """
    turns = np.arange(chains) % len(start.modes)
    modes = start.modes[turns]
    roots = np.stack([root_of_inverse(p) for p in start.precisions])[turns]
    # 1. Candidates mode + 2^(−t/2) R n for tries t = 0, 1, …
    noise = np.asarray(jax.random.normal(key, (_TRIES, chains, modes.shape[1])))
    closer = 2.0 ** (-0.5 * np.arange(_TRIES))
    candidates = modes + closer[:, None, None] * np.einsum("cij,tcj->tci", roots, noise)
    # 2. The first one above the mode minus d/2 + 4 sqrt(d/2) + 10 nats, else the mode itself.
    value, _ = optimiser.evaluate(candidates.reshape(_TRIES * chains, -1))
    half = modes.shape[1] / 2
    lowest = start.log_densities[turns] - _DEEPEST_START - half - 4 * half**0.5
    near = or_lowest(value).reshape(_TRIES, chains) > lowest
    return np.where(near.any(0)[:, None], candidates[near.argmax(0), np.arange(chains)], modes)


def laplace_metric(
    precision: Float[np.ndarray, "dimension dimension"], *blocks: tuple[int, ...]
) -> Metric:
    """Return the metric at a mode where minus the Hessian is `precision`.

    In many dimensions it is dense for the first of some `blocks` of indices that is small, and
    low-rank for the rest. Directions without curvature have a standard deviation of ten.
    """
    # 1. The dense block: a Cholesky factor of its covariance.
    root = root_of_inverse(precision)
    block, rest = _dense_and_rest(len(precision), *blocks)
    factor = lower_factor(root[list(block)])
    # 2. The rest: scales σ, and the eigenvectors of its correlations farthest from 1 on a log
    #    scale.
    remaining = root[list(rest)] @ root[list(rest)].T
    scale = np.sqrt(np.diag(remaining))
    stretched, directions = scale, remaining
    if rest:
        stretched, directions = np.linalg.eigh(remaining / np.outer(scale, scale))
    rank = min(RANK, len(rest))
    kept = np.argsort(-np.abs(np.log(np.maximum(stretched, 1e-12))))[:rank]
    stretch = np.sqrt(np.maximum(stretched[kept], 1e-12))
    return Metric(block, rest, *map(jnp.asarray, (factor, scale, directions[:, kept], stretch)))


def _dense_and_rest(
    dimension: int, *blocks: tuple[int, ...]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the indices of the dense block and of the rest.

    The block has all indices if they are few, else the first of some blocks that is small.
    """
    everything = tuple(range(dimension))
    if dimension <= DENSE_UP_TO:
        return everything, ()
    for block in blocks:
        if len(block) <= DENSE_OF_SCIENCE:
            return block, tuple(i for i in everything if i not in set(block))
    return (), everything
