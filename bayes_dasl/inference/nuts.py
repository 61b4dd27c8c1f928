"""The No-U-Turn sampler with robust starts, a metric that adapts, and a warm-up as long as it needs to be."""

import dataclasses
import hashlib
from typing import NamedTuple

import jax
import numpy as np
from arviz_stats.base.array import array_stats
from jaxtyping import Array, Float

from .._errors import ModelError
from .._journal import Arrays, Journal
from .._progress import ProgressBar
from ._chains import SEGMENT, Chains, Kernel, enter_new_metric, first_state, share_step_size
from ._gradient import check_strategy, choose
from ._metric import Metric, laplace_metric, refine
from ._pathfinder import Pathfinder
from ._problem import Problem, traced_once
from ._samples import Modes, Samples
from ._start import CLIMBS, Climb, Optimiser, fared, find_start, first_positions, nearest_mode

LONGEST_WARMUP = 2000
# R-hat of a window, and the change of variance in any direction that its draws call for, of a warm-up that is done.
_AGREED, _FITTING = 1.1, 2.0
_STARTS = ("modes", "pathfinder")
_LAST = 2  # segments in which the step size settles
_LONGEST_PAUSE = 1.0  # seconds between two returns to Python


@dataclasses.dataclass(frozen=True)
class NUTS:
    """NUTS from the best modes of many prior draws, with the Laplace metric there.

    `warmup` and `draws` are for each of the `chains`. Warm-up is done in segments of 25 draws. Without `warmup` it
    lasts until the chains agree and the metric has settled, at most 2000 draws. The metric is dense up to 64 unknown
    numbers; above that it is dense for up to 128 numbers of the science and its latent states, and low-rank for the
    rest. It is refined from the draws of the warm-up, pooled over chains. The gradient is taken by `forward` or
    `reverse` mode through the solver; `auto` takes forward mode for up to 8 unknown numbers (and fewer than 30 states),
    reverse mode from 65, and between them forward mode if a short measurement finds it faster by a fifth. Modes are
    climbed to by Adam; with `start="pathfinder"` by L-BFGS, to the points of the highest ELBO on its paths. There are
    `climbs` of them, of 400 gradients each, from the best of four times as many prior draws: a few suffice where a
    solve is dear and the posterior has one mode. Chains begin at draws of the normal around modes.
    Source: Hoffman & Gelman (2014); Betancourt (2017); Seyboldt, Carlson & Carpenter (2026); kernel from BlackJAX.
    Raises: ModelError for numbers that make no sense.
    """

    chains: int = 4
    warmup: int | None = None
    draws: int = 1000
    target_acceptance: float = 0.9
    max_tree_depth: int = 10
    gradient: str = "auto"
    start: str = "modes"
    climbs: int = CLIMBS

    def __post_init__(self):
        for name, least in (("chains", 1), ("warmup", SEGMENT), ("draws", 1), ("max_tree_depth", 1), ("climbs", 2)):
            value = getattr(self, name)
            if value is None and name == "warmup":
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ModelError(f"NUTS({name}={value!r}): {name} must be a whole number, at least {least}")
        # A plain number: it stands in the engine's own words, which a checkpoint keeps.
        object.__setattr__(self, "target_acceptance", float(self.target_acceptance))
        if not 0 < self.target_acceptance < 1:
            raise ModelError(f"target_acceptance must lie between 0 and 1, not {self.target_acceptance}")
        check_strategy(self.gradient)
        if self.start not in _STARTS:
            raise ModelError(f"start must be one of {', '.join(_STARTS)}, not {self.start!r}")

    @property
    def batch(self) -> int:
        """Positions that are looked at together: all chains."""
        return self.chains

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the posterior. Ctrl-C while sampling ends early and keeps the draws so far.

        Raises: ModelError if no start has a finite log density.
        """
        return self._run(problem, None, key, journal, bar)

    def warmed(self, positions: Float[np.ndarray, "draw dimension"]) -> "Warmed":
        """This engine, but looking for modes near draws of a similar posterior too."""
        return Warmed(self, positions)

    def _run(
        self, problem: Problem, near: np.ndarray | None, key: Array, journal: Journal, bar: ProgressBar
    ) -> Samples:
        bar.start("finding modes", 1)
        key_find, key_place, key_paths, key_chains = jax.random.split(key, 4)
        chosen = journal.step("gradient", lambda: {"strategy": np.asarray(choose(problem, self.gradient))})
        strategy = str(chosen["strategy"])
        value_and_gradient, log_density = traced_once(problem, strategy)
        kernel = Kernel(log_density, self.target_acceptance, self.max_tree_depth)
        like = laplace_metric(problem, np.eye(problem.dimension))
        chains = Chains(kernel, self.chains, like, problem.dimension, key=key_chains)
        try:
            optimiser = Optimiser(value_and_gradient, self.climbs)
            climb = (
                Pathfinder(log_density, key=key_paths).optimise if self.start == "pathfinder" else optimiser.optimise
            )
            begun = journal.step("start", lambda: self._begin(problem, optimiser, climb, near, key_find, key_place))
            state = first_state(*(begun[name] for name in ("position", "lp", "gradient")))
            warm = _WarmUp(self, chains, journal, bar).run(state, laplace_metric(problem, begun["precisions"][0]))
            trace, interrupted = self._sample(chains, warm, journal, bar)
        finally:
            chains.close()
        # Pathfinder's points lie near modes, not at them.
        modes = begun["modes"][: 1 if self.start == "pathfinder" else None]
        facts = fared(begun) | {
            "modes": len(modes),
            "start_steps": int(begun["steps"]),
            "start_time_s": float(begun["seconds"]),
            "gradient": strategy,
            "devices": f"{len(chains.devices)} × {chains.devices[0].platform}",
            "warmup_draws": warm.draws,
            "warmup_settled": int(warm.settled),
            "warmup_steps": warm.steps,
            "warmup_time_s": warm.seconds,
            "draws_time_s": float(trace.pop("seconds").sum()),
        }
        positions = trace.pop("position")
        if len(modes) > 1:
            trace["mode"] = nearest_mode(positions, modes, begun["precisions"])
        return Samples(positions, trace, interrupted, facts, Modes(modes, begun["log_densities"][: len(modes)]))

    def _begin(
        self, problem: Problem, optimiser: Optimiser, climb: Climb, near: np.ndarray | None, key_find: Array, key: Array
    ) -> Arrays:
        """The modes, the first position of every chain with its value and gradient, and what that took."""
        start = find_start(problem, optimiser, climb=climb, near=near, key=key_find)
        position = first_positions(start, optimiser, self.chains, key=key)
        value, gradient = optimiser.evaluate(position)
        found = start.arrays() | {"position": position, "lp": value, "gradient": gradient}
        return found | {"steps": np.asarray(optimiser.gradients), "seconds": np.asarray(optimiser.seconds)}

    def _sample(self, chains: Chains, warm: "_Warm", journal: Journal, bar: ProgressBar) -> tuple[Arrays, bool]:
        bar.start("sampling", self.draws)
        traces: list[Arrays] = []
        state, divergences, interrupted = warm.state, 0, False
        length = chains.longest_segment
        if length * warm.seconds / warm.draws > _LONGEST_PAUSE:
            length = SEGMENT
        # Iterations are numbered from the start of the warm-up: no random key is used twice.
        begin, end = warm.draws, warm.draws + self.draws
        try:
            while begin < end:
                name, number = f"draws from {begin}", min(length, end - begin)
                state, trace = _segment(chains, journal, name, state, begin, number, False, warm.metric)
                traces.append(trace)
                divergences += int(trace["diverging"].sum())
                # What a checkpoint holds may be of another length, which the draws do not depend on.
                done = trace["lp"].shape[1]
                begin += done
                bar.advance(done, f"{divergences} divergences" if divergences else "")
        except KeyboardInterrupt:
            if not traces:
                raise
            interrupted = True
        seconds = np.stack([trace.pop("seconds") for trace in traces])
        joined = {name: np.concatenate([t[name] for t in traces], axis=1) for name in traces[0]}
        return joined | {"seconds": seconds}, interrupted


@dataclasses.dataclass(frozen=True, eq=False)
class Warmed:
    """NUTS whose search for modes begins at draws of a similar posterior as well as at prior draws."""

    engine: NUTS
    positions: Float[np.ndarray, "draw dimension"]

    @property
    def draws(self) -> int:
        return self.engine.draws

    @property
    def batch(self) -> int:
        return self.engine.batch

    def __repr__(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.positions).tobytes()).hexdigest()
        return f"{self.engine!r} near draws {digest[:12]}"

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the posterior, as `NUTS.run`."""
        return self.engine._run(problem, self.positions, key, journal, bar)


class _Warm(NamedTuple):
    """Where the warm-up ended."""

    state: Arrays
    metric: Metric
    draws: int
    settled: bool
    steps: int
    seconds: float


class _WarmUp:
    """Windows of draws, each twice as long as the one before; after each the metric is refined.

    The first window finds the typical set, the last settles the step size.
    """

    def __init__(self, engine: NUTS, chains: Chains, journal: Journal, bar: ProgressBar):
        self._engine, self._chains, self._journal, self._bar = engine, chains, journal, bar
        self._begin, self._steps, self._seconds = 0, 0, 0.0

    def run(self, state: Arrays, metric: Metric) -> _Warm:
        fixed = self._engine.warmup is not None
        self._bar.start("warm-up", self._engine.warmup or 6 * SEGMENT)
        length, settled = 1, False
        while self._left() > _LAST and not settled:
            first = self._begin == 0
            state, trace = self._window(state, metric, min(length, self._left() - _LAST))
            if first:  # on its way to the typical set
                trace = {name: values[:, SEGMENT // 2 :] for name, values in trace.items()}
            before, metric = metric, refine(metric, trace["position"], trace["gradient"])
            state = enter_new_metric(state)
            settled = not fixed and self._begin >= 4 * SEGMENT and _settled(trace, before, metric)
            length = 1 if first else 2 * length
        state, _ = self._window(state, metric, self._left() if fixed else _LAST)
        return _Warm(share_step_size(state), metric, self._begin, settled, self._steps, self._seconds)

    def _left(self) -> int:
        """Segments that may still be run."""
        return -(-((self._engine.warmup or LONGEST_WARMUP) - self._begin) // SEGMENT)

    def _window(self, state: Arrays, metric: Metric, segments: int) -> tuple[Arrays, Arrays]:
        traces = []
        for _ in range(segments):
            name = f"warm-up from {self._begin}"
            state, trace = _segment(self._chains, self._journal, name, state, self._begin, SEGMENT, True, metric)
            traces.append(trace)
            self._begin += SEGMENT
            self._steps += int(trace["n_steps"].sum())
            self._seconds += float(trace["seconds"])
            self._bar.advance(SEGMENT)
        return state, {n: np.concatenate([t[n] for t in traces], axis=1) for n in ("position", "gradient", "lp")}


def _segment(
    chains: Chains, journal: Journal, name: str, state: Arrays, begin: int, number: int, adapting: bool, metric: Metric
) -> tuple[Arrays, Arrays]:
    """A segment of every chain as a step of the journal."""

    def work():
        after, trace = chains.segment(state, begin, number, adapting, metric)
        if not adapting:
            del trace["gradient"]  # for the metric alone
        return {f"state/{n}": v for n, v in after.items()} | {f"trace/{n}": v for n, v in trace.items()}

    arrays = journal.step(name, work)
    after, trace = ({n.removeprefix(p): v for n, v in arrays.items() if n.startswith(p)} for p in ("state/", "trace/"))
    return after, trace


def _settled(trace: Arrays, before: Metric, after: Metric) -> bool:
    """Whether the chains agree over a window and its draws call for the metric that there was."""
    # R-hat splits every chain in two, so that it says something of one alone.
    looked_at = np.concatenate([trace["position"], trace["lp"][..., None]], axis=-1)
    if not np.all(np.asarray(array_stats.rhat(looked_at, chain_axis=0, draw_axis=1)) < _AGREED):
        return False
    return after.differs_from(before) < _FITTING
