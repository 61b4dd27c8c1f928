"""Multi-start MAP: optimise the best of many prior draws, and find modes and curvature."""

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
from .problem import Evaluation, Problem, ValueAndGradient
from .reparametrisations.reparametrisation import Identity, Reparametrisation
from .sharding import Sharded

MAP_STARTS = 32
# Prior draws per start. Only the best are optimised: solves at the others may take the most steps
# that the solver allows.
_DRAWS_A_START = 4
MAP_STEPS = 400
# A mode is negligible if its log mass is this many nats below that of the largest mode.
_WORTH_HAVING = 5.0
_MOST_MODES = 8
# Two positions belong to one mode if they are closer than this many standard deviations.
_CLOSE = 3.0
_HESSIAN_STEP = 1e-4
# Number of jitters; the median log density over them ranks the starts of a hierarchical model.
_JITTERS = 9
# Number of candidates for the first position of a chain, each closer to the mode.
_TRIES = 16
# Number of positions to which a reparametrisation is fitted.
_POSITIONS = 32
# Nats of rounding error above which log densities of different positions cannot be compared.
_RESOLVED = 0.01
# A chain may begin at most d/2 + 4 sqrt(d/2) nats plus this below its mode. For a normal posterior
# in d dimensions, d/2 is the mean of that difference and sqrt(d/2) its standard deviation.
_DEEPEST_START = 10.0


@dataclasses.dataclass(frozen=True)
class Start:
    """Modes found by multi-start MAP, the one with the largest mass first.

    For a hierarchical model, the optimiser maximises the log density averaged over jittered random
    effects. See `Optimiser`.

    Args:
        modes: positions of the modes, `(mode, dimension)`.
        log_densities: log densities of the modes, `(mode,)`.
        precisions: minus the Hessian at each mode, or an approximation,
            `(mode, dimension, dimension)`.
        tried: number of draws among which starts were chosen.
        failed: number of these draws without a finite log density.
    """

    modes: Float[np.ndarray, "modes dimension"]
    log_densities: Float[np.ndarray, " modes"]
    precisions: Float[np.ndarray, "modes dimension dimension"]
    tried: int
    failed: int

    def arrays(self) -> Arrays:
        """Return the fields as arrays by name, for a step of the journal."""
        return {name: np.asarray(value) for name, value in vars(self).items()}


class Optimiser:
    """Maximise the log density from many positions at once by Adam.

    All positions are those of the attribute `reparametrisation`. One compiled program optimises and
    evaluates. The attributes `seconds` and `steps` count the work so far.

    The mode of a hierarchical model is a poor start: noise may be almost zero at the mode, and each
    group follows its data exactly. So each step adds standard normal jitter to the random effects,
    which maximises the log density averaged over the jitter. All starts and fits use the same
    jitter, so that starts in one basin end at one place.

    Args:
        value_and_gradient: returns the log density and its gradient for unconstrained parameters.
        count: the number of positions that the program takes at once.
        reparametrisation: the first reparametrisation, by default the identity. All later ones are
            of its class or the identity.
        jittered: indices of the random effects, whose priors depend on other parameters.
        evaluation: evaluates unconstrained parameters, by default the program that optimises.
    """

    def __init__(
        self,
        value_and_gradient: ValueAndGradient,
        count: int = MAP_STARTS,
        reparametrisation: Reparametrisation | None = None,
        jittered: tuple[int, ...] = (),
        evaluation: Evaluation | None = None,
    ):
        self.count = count
        self._evaluation = evaluation
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
        """Run Adam for some steps from at most `count` positions.

        Args:
            x: first positions, `(n, dimension)`.
            steps: number of steps; with one step the log density is only evaluated.
            jitter: whether random effects are jittered.

        Returns:
            Positions `(n, dimension)`, log densities `(n,)` and gradients `(n, dimension)`. The
            positions are the last ones with jitter, and the best ones without. The log density is
            the highest on the path, and the gradient the one at the start of the last step.
        """
        # The program always takes `count` positions; unused ones take no steps.
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
        """Return the positions after 400 steps of Adam, `(batch, dimension)`.

        Random effects are jittered if there are any.
        """
        return self._run(x, MAP_STEPS, jitter=bool(self._jittered))[0]

    def objective(self, x: Float[np.ndarray, "n dimension"]) -> Float[np.ndarray, " n"]:
        """Return the objective by which starts are ranked, `(n,)`.

        It is the log density, or its median over jitters if there are random effects. It is −∞ if
        it is not finite.
        """
        if not self._jittered:
            return or_lowest(self.evaluate(x)[0])
        noise = np.zeros((_JITTERS, 1, x.shape[1]))
        noise[:, 0, self._jittered] = np.random.default_rng(0).normal(
            size=(_JITTERS, len(self._jittered))
        )
        values, _ = self.evaluate((x + noise).reshape(-1, x.shape[1]))
        return np.median(or_lowest(values).reshape(_JITTERS, len(x)), axis=0)

    def evaluate(self, x: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
        """Return log densities `(n,)` and gradients `(n, dimension)` at any number of positions."""
        if self._evaluation and isinstance(self.reparametrisation, Identity):
            began = time.perf_counter()
            value, gradient = self._evaluation(x)
            self.seconds += time.perf_counter() - began
            self.steps += len(x)
            return value, gradient
        values, gradients = [], []
        for begin in range(0, len(x), self.count):
            _, value, gradient = self._run(x[begin : begin + self.count], 1, jitter=False)
            values.append(value)
            gradients.append(gradient)
        return np.concatenate(values), np.concatenate(gradients)

    def evaluate_in(
        self, reparametrisation: Reparametrisation, z: Float[np.ndarray, "n dimension"]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return log densities and gradients in another reparametrisation.

        Args:
            reparametrisation: the reparametrisation.
            z: its positions, `(n, dimension)`.

        Returns:
            Log densities `(n,)` and gradients by z, `(n, dimension)`.
        """
        with self.within(reparametrisation):
            return self.evaluate(z)

    @contextlib.contextmanager
    def within(self, reparametrisation: Reparametrisation) -> Iterator[None]:
        """Use another reparametrisation inside a `with` block."""
        own = self.reparametrisation
        self.reparametrisation = reparametrisation
        try:
            yield
        finally:
            self.reparametrisation = own

    def gradients(self, x: Float[np.ndarray, "n dimension"]) -> Float[np.ndarray, "n dimension"]:
        """Return the gradients of the log density at any number of positions, `(n, dimension)`."""
        return self.evaluate(x)[1]


def refined_starts(starts: int) -> int:
    """Return how many starts are optimised again in a fitted reparametrisation: a quarter."""
    return max(starts // 4, 1)


def optimised_in(
    reparametrisation: Reparametrisation, optimiser: Optimiser, x: Float[np.ndarray, "n dimension"]
) -> np.ndarray:
    """Optimise positions in a reparametrisation.

    Candidates are the positions before and after the optimisation. The best n of them are returned,
    the highest first. Candidates without a finite objective are dropped.

    Args:
        reparametrisation: the reparametrisation.
        optimiser: the optimiser.
        x: unconstrained parameters, `(n, dimension)`.

    Returns:
        Unconstrained parameters, at most n rows.
    """
    begun, _ = reparametrisation.inverse_many(x)
    with optimiser.within(reparametrisation):
        reached, _ = best_first(optimiser, np.concatenate([optimiser.optimise(begun), begun]))
    return reparametrisation.forward_many(reached[: len(x)])[0]


def fared(found: Arrays) -> dict[str, int | float | str]:
    """Return facts of a multi-start MAP search: `modes`, `starts` and `starts_failed`.

    Args:
        found: the arrays of `Start.arrays`.
    """
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
    """Return minus the Hessian of the log density at a mode, `(dimension, dimension)`.

    Args:
        optimiser: evaluates gradients.
        mode: the position.
        indices: the parameters for which the Hessian is computed, by default all. Rows and columns
            of other parameters are those of the identity matrix.
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
    """Return minus the derivative of the gradient along each direction, `(n, dimension)`.

    This is −H v for the Hessian H and a direction v, by central differences, since the adjoint of
    the solver has no second derivative. Elements without finite gradients are 0.

    Args:
        gradients: returns the gradients at many positions.
        x: the position, `(dimension,)`.
        directions: the directions v, `(n, dimension)`.
    """
    # −H v ≈ (g(x − h v) − g(x + h v)) / (2 h).
    nudges = _HESSIAN_STEP * directions
    up, down = np.split(gradients(np.concatenate([x + nudges, x - nudges])), 2)
    known = np.isfinite(up) & np.isfinite(down)
    down = np.where(known, down, 0.0)
    up = np.where(known, up, 0.0)
    return (down - up) / (2 * _HESSIAN_STEP)


def find_start(problem: Problem, optimiser: Optimiser, *, key: Array) -> Start:
    """Return the modes with the largest mass and the curvature at each, by multi-start MAP.

    Args:
        problem: the posterior.
        optimiser: evaluates and optimises positions.
        key: random seed of the prior draws.

    Raises:
        ModelError: if no start has a finite log density.
        DataError: if rounding hides differences between log densities.
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
        ascent: a function that replaces `optimiser.optimise`.
        near: draws of a similar posterior, which replace half of the prior draws.
        key: random seed.

    Returns:
        The optimised positions, the highest first; their objectives; the number of draws; and the
        number of draws without a finite log density.

    Raises:
        ModelError: if no start has a finite log density.
        DataError: if rounding hides differences between log densities.
    """
    # 1. Many prior draws, half of them replaced by draws near the modes.
    draws = _DRAWS_A_START * optimiser.count
    groups = [np.asarray(problem.prior(draws, key=key))]
    if near is not None:
        groups = [groups[0][: draws // 2], evenly(near, draws // 2)]
    # 2. The best prior draws, and the best of the similar posterior.
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
    """Return the positions with a finite objective, the highest first, and their objectives.

    Args:
        optimiser: evaluates objectives.
        x: positions, `(n, dimension)`.
        tried: number of draws to name in the error message, by default n.

    Raises:
        ModelError: if no objective is finite.
        DataError: if rounding hides differences between the objectives.
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
    """Return the modes with the largest mass among optimised positions, as a `Start`.

    Args:
        optimiser: evaluates gradients.
        x: optimised positions, the highest first.
        objectives: their objectives.
        tried: number of draws among which starts were chosen.
        failed: number of these draws without a finite log density.
        precision_of: returns minus the Hessian at a position, or its approximation.
    """
    modes, precisions = _modes(optimiser, x, objectives, precision_of)
    return Start(x[modes], objectives[modes], precisions, tried, failed)


def no_start(draws: int) -> ModelError:
    """Return the ModelError for starts without a finite log density.

    Args:
        draws: the number of prior draws, for the message.
    """
    return ModelError(
        f"none of {draws} prior draws leads to a finite log density: run bd.check(model, data), "
        "which says how prior draws fare in the solver, and narrow the priors or loosen the solver"
    )


def refuse_unresolved(log_densities: np.ndarray) -> None:
    """Raise DataError if rounding hides differences between log densities.

    This occurs if data are very far from all predictions.

    Args:
        log_densities: log densities of the best positions; at least one is finite.

    Raises:
        DataError: if the rounding error of the largest log density is above 0.01.
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
    """Return log densities with −∞ in place of values that are not finite."""
    return np.where(np.isfinite(log_density), log_density, -np.inf)


def evenly(draws: np.ndarray, number: int) -> np.ndarray:
    """Return `number` evenly spaced rows of `draws`, with repeats if there are fewer."""
    return draws[np.linspace(0, len(draws) - 1, number).astype(int)]


def chosen_for_reference(
    positions: Float[np.ndarray, "n dimension"],
) -> Float[np.ndarray, "chosen dimension"]:
    """Return 32 evenly spaced positions, to which a reparametrisation is fitted.

    A single position is returned as it is.
    """
    return evenly(positions, _POSITIONS if len(positions) > 1 else 1)


def _modes(
    optimiser: Optimiser,
    x: np.ndarray,
    value: np.ndarray,
    precision_of: Callable[[Optimiser, np.ndarray], np.ndarray],
) -> tuple[list[int], Float[np.ndarray, "modes dimension dimension"]]:
    """Find the modes with the largest mass, and minus the Hessian at each.

    Positions close together are one mode, represented by the highest.

    Args:
        optimiser: evaluates gradients.
        x: positions, the highest first.
        value: their objectives.
        precision_of: returns minus the Hessian at a position, or its approximation.

    Returns:
        Indices of the modes in `x`, the largest first, and their precisions.
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
    """Return the index of the mode to which each draw belongs, `(chain, draw)`.

    It is the mode whose normal approximation N(mode, precision⁻¹) has the highest density at the
    draw.

    Args:
        positions: the draws.
        modes: positions of the modes.
        precisions: minus the Hessian at each mode.
    """
    scores = []
    for mode, precision in zip(modes, precisions, strict=True):
        # log N(x; mode, P⁻¹) = −½ |R⁻¹ (x − mode)|² − ½ log det P⁻¹, with R Rᵀ = P⁻¹.
        away = (positions - mode) @ np.linalg.pinv(root_of_inverse(precision)).T
        scores.append(-0.5 * (away**2).sum(-1) - log_volume(precision))
    return np.stack(scores).argmax(0)


def first_positions(
    start: Start, optimiser: Optimiser, chains: int, *, key: Array
) -> Float[np.ndarray, "chains dimension"]:
    """Return a dispersed first position for each chain: a draw of the normal around a mode.

    Chains take the modes in turn. Along a curved valley the posterior falls much faster than the
    normal. So candidates are tried closer and closer to the mode, and no chain begins where it
    cannot move.

    Args:
        start: the modes and their precisions.
        optimiser: evaluates log densities.
        chains: number of chains.
        key: random seed.
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
    """Return the metric of the normal approximation at a mode.

    In up to 64 dimensions it is dense for all parameters. Above that it is dense for one block and
    low-rank for the rest. Directions without curvature get a standard deviation of ten.

    Args:
        precision: minus the Hessian at the mode.
        *blocks: candidates for the dense block, as indices. The first one with at most 128
            parameters is taken.
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
    """Return the indices of the dense block, and the remaining indices.

    The block has all indices in up to 64 dimensions. Otherwise it is the first of `blocks` with at
    most 128 indices, or empty.
    """
    everything = tuple(range(dimension))
    if dimension <= DENSE_UP_TO:
        return everything, ()
    for block in blocks:
        if len(block) <= DENSE_OF_SCIENCE:
            return block, tuple(i for i in everything if i not in set(block))
    return (), everything
