"""The No-U-Turn sampler with robust starts."""

import dataclasses

import jax
import numpy as np
from jaxtyping import Array

from .._errors import ModelError
from .._journal import Journal
from .._progress import ProgressBar
from ._chains import SEGMENT, Chains, Kernel, Trace
from ._problem import Problem, traced_once
from ._samples import Samples
from ._start import Optimiser, Start, find_start, first_positions, metric_shape


@dataclasses.dataclass(frozen=True)
class NUTS:
    """NUTS from the best modes of many prior draws, with the Laplace metric there.

    `warmup` and `draws` are for each of the `chains`. The metric is dense up to 64 dimensions and diagonal
    above, and is refined from the draws of the warm-up, pooled over chains.
    Source: Hoffman & Gelman (2014); Betancourt (2017); kernel from BlackJAX.
    Raises: ModelError for numbers that make no sense.
    """

    chains: int = 4
    warmup: int = 300
    draws: int = 1000
    target_acceptance: float = 0.8
    max_tree_depth: int = 10

    def __post_init__(self):
        for name, least in (("chains", 1), ("warmup", SEGMENT), ("draws", 1), ("max_tree_depth", 1)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ModelError(f"NUTS({name}={value!r}): {name} must be a whole number, at least {least}")
        if not 0 < self.target_acceptance < 1:
            raise ModelError(f"target_acceptance must lie between 0 and 1, not {self.target_acceptance}")

    def run(self, problem: Problem, *, key: Array, journal: Journal, bar: ProgressBar) -> Samples:
        """Draw from the posterior. Ctrl-C while sampling ends early and keeps the draws so far.

        Raises: ModelError if no start has a finite log density.
        """
        key_start, key_place, key_chains = jax.random.split(key, 3)
        value_and_gradient, log_density = traced_once(problem)
        kernel = Kernel(log_density, self.target_acceptance, self.max_tree_depth)
        chains = Chains(kernel, self.chains, metric_shape(problem.dimension), problem.dimension)
        try:
            bar.start("finding modes", 1)
            optimiser = Optimiser(value_and_gradient)
            start = find_start(problem, optimiser, key=key_start)
            position = first_positions(start, optimiser, self.chains, key=key_place)
            chains.begin(position, *optimiser.evaluate(position), key=key_chains)
            metric = self._warm_up(chains, start, bar)
            trace, interrupted = self._sample(chains, metric, bar)
        finally:
            chains.close()
        return Samples(trace.pop("position"), trace, interrupted, self._facts(start, chains))

    def _warm_up(self, chains: Chains, start: Start, bar: ProgressBar) -> np.ndarray:
        bar.start("warm-up", self.warmup)
        metric, begin = start.metric, 0
        windows = warmup_windows(-(-self.warmup // SEGMENT))
        for number, segments in enumerate(windows):
            traces = []
            for _ in range(segments):
                traces.append(chains.run(begin, True, metric)["position"])
                begin += SEGMENT
                bar.advance(SEGMENT)
            if 0 < number < len(windows) - 1:
                metric = refine(metric, np.concatenate(traces, axis=1))
                chains.restart_step_size()
        chains.share_step_size()
        return metric

    def _sample(self, chains: Chains, metric: np.ndarray, bar: ProgressBar) -> tuple[Trace, bool]:
        bar.start("sampling", self.draws)
        traces: list[Trace] = []
        divergences, interrupted = 0, False
        # Iterations are numbered from the start of the warm-up: no random key is used twice.
        first = SEGMENT * (-(-self.warmup // SEGMENT))
        try:
            for begin in range(first, first + self.draws, SEGMENT):
                traces.append(chains.run(begin, False, metric))
                divergences += int(traces[-1]["diverging"].sum())
                bar.advance(SEGMENT, f"{divergences} divergences" if divergences else "")
        except KeyboardInterrupt:
            if not traces:
                raise
            interrupted = True
        joined = {name: np.concatenate([t[name] for t in traces], axis=1) for name in traces[0]}
        return {name: values[:, : self.draws] for name, values in joined.items()}, interrupted

    def _facts(self, start: Start, chains: Chains) -> dict[str, int | str]:
        return {
            "modes": len(start.modes),
            "starts": start.prior_draws,
            "starts_failed": start.prior_failures,
            "devices": f"{len(chains.devices)} × {chains.devices[0].platform}",
        }


def warmup_windows(segments: int) -> list[int]:
    """Segments in each window: the first finds the typical set, the last settles the step size.

    Those between refine the metric and double in length.
    """
    if segments < 4:
        return [segments]
    last = max(1, segments // 3)
    middle, length = [], 1
    left = segments - 1 - last
    while left > 0:
        take = length if left - length >= 2 * length else left
        middle.append(take)
        left, length = left - take, 2 * length
    return [1, *middle, last]


def refine(metric: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """The covariance within chains, pooled, shrunk towards the metric so far."""
    within = positions - positions.mean(axis=1, keepdims=True)
    flat = within.reshape(-1, within.shape[-1])
    scatter = flat.T @ flat if metric.ndim == 2 else (flat**2).sum(0)
    weight = 10.0 + positions.shape[-1]
    return (scatter + weight * metric) / (len(flat) + weight)
