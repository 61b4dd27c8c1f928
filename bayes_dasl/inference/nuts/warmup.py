"""The warm-up of NUTS: it adapts step sizes, metric and reparametrisation until they settle."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..._runs.journal import Arrays, Journal, ProgressBar, concatenated
from ..metric import Metric, refine
from ..reparametrisations.reparametrisation import Reparametrisation, Reparametriser
from .chains import CHUNK, Chains, enter_new_metric, share_step_size

LONGEST_WARMUP = 2000
# A warm-up ends if R-hat in a window is below the first value, and a metric fitted to its draws
# differs from the present one by less than the second value, a ratio of variances.
_AGREED, _FITTING = 1.1, 2.0
# Number of chunks at the end, in which only the step size is adapted.
_LAST = 2
# Draws after which the reparametrisation is no longer fitted.
_REFRESHED_UNTIL = 200
_POINT = ("position", "lp", "gradient")


type Evaluate = Callable[[Reparametrisation, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Maps a reparametrisation and positions z to log densities and gradients by z."""


class Warm(NamedTuple):
    """The state of the chains after the warm-up, and its statistics.

    Args:
        state: state of all chains, as arrays with a leading axis of chains.
        metric: the fitted metric.
        reparametrisation: the fitted reparametrisation.
        draws: number of warm-up draws of each chain.
        settled: whether the chains agreed and the metric had settled.
        steps: number of leapfrog steps of all chains.
        seconds: duration.
    """

    state: Arrays
    metric: Metric
    reparametrisation: Reparametrisation
    draws: int
    settled: bool
    steps: int
    seconds: float


class WarmUp:
    """Adapt step sizes, metric and reparametrisation in windows of draws.

    The first two windows have 25 draws each; each later window is twice as long as the previous
    one. After each window the metric is fitted to the draws of the window. After early windows the
    reparametrisation is fitted first. In the last 50 draws only the step size is adapted.

    A warm-up of unknown length ends when the chains agree and the metric has settled. Network
    weights are not compared between chains, since several sets of weights give the same function.

    Gradients by the parameters of a new reparametrisation follow from the old gradients by the
    chain rule. With `reparametriser.evaluated_anew` they are computed by `evaluate` instead.

    Args:
        draws: number of draws; None for a warm-up that ends by itself.
        chains: runs chunks of draws.
        journal: stores each chunk.
        bar: shows the progress.
        judged: indices of the parameters that are compared between chains.
        reparametriser: fits reparametrisations to draws; None keeps the first one.
        evaluate: computes log densities and gradients in a reparametrisation.
    """

    def __init__(
        self,
        draws: int | None,
        chains: Chains,
        journal: Journal,
        bar: ProgressBar,
        judged: tuple[int, ...],
        reparametriser: Reparametriser | None = None,
        evaluate: Evaluate | None = None,
    ):
        self._draws = draws
        self._chains = chains
        self._journal = journal
        self._bar = bar
        self._judged = list(judged)
        self._reparametriser = reparametriser
        anew = reparametriser is not None and reparametriser.evaluated_anew
        self._evaluate = evaluate if anew else None
        self._ends_early = reparametriser is not None and reparametriser.ends_early
        self._begin = self._steps = 0
        self._seconds = 0.0

    def run(self, state: Arrays, metric: Metric, reparametrisation: Reparametrisation) -> Warm:
        """Run the warm-up.

        Args:
            state: first state of the chains.
            metric: first metric.
            reparametrisation: first reparametrisation.

        Returns:
            The last state, with the fitted metric and reparametrisation.
        """
        fixed = self._draws is not None
        self._bar.start("warm-up", self._draws or 6 * CHUNK)
        length, settled = 1, False
        while self._left() > _LAST and not settled:
            # 1. A window of draws; the first half of the first one leads to the typical set.
            first = self._begin == 0
            chunks = min(length, self._left() - _LAST)
            state, trace = self._window(state, metric, reparametrisation, chunks)
            if first:
                trace = {name: values[:, CHUNK // 2 :] for name, values in trace.items()}
            # 2. Stop when the chains agree, but not while the reparametrisation is still fitted.
            #    With `ends_early` they may also stop in the last window after which it is fitted.
            early = self._reparametriser is not None and self._begin <= _REFRESHED_UNTIL
            last = self._ends_early and self._begin == _REFRESHED_UNTIL
            long_enough = not fixed and self._begin >= 4 * CHUNK and (last or not early)
            settled = long_enough and self._settled(trace, metric, everywhere=early)
            # 3. Fit the reparametrisation and then the metric in it.
            if early and not settled:
                reparametrisation, state, trace = self._refitted(reparametrisation, state, trace)
            metric, state = _refined(metric, trace), enter_new_metric(state)
            length = 1 if first else 2 * length
        # 4. The step size settles in the final metric.
        chunks = self._left() if fixed else _LAST
        state, _ = self._window(state, metric, reparametrisation, chunks)
        return Warm(
            share_step_size(state),
            metric,
            reparametrisation,
            self._begin,
            settled,
            self._steps,
            self._seconds,
        )

    def _left(self) -> int:
        """Return the number of chunks that may still be run."""
        return -(-((self._draws or LONGEST_WARMUP) - self._begin) // CHUNK)

    def _window(
        self, state: Arrays, metric: Metric, reparametrisation: Reparametrisation, chunks: int
    ) -> tuple[Arrays, Arrays]:
        """Run some chunks in adaptation.

        Args:
            state: state of the chains.
            metric: the metric.
            reparametrisation: the reparametrisation.
            chunks: number of chunks.

        Returns:
            The next state, and positions, log densities and gradients of all draws as arrays
            `(chain, draw, …)` by name.
        """
        traces = []
        for _ in range(chunks):
            state, trace = chunk(
                self._chains,
                self._journal,
                f"warm-up from {self._begin}",
                state,
                self._begin,
                CHUNK,
                True,
                metric,
                reparametrisation,
            )
            traces.append({name: trace[name] for name in _POINT})
            self._begin += CHUNK
            self._steps += int(trace["n_steps"].sum())
            self._seconds += float(trace["seconds"])
            self._bar.advance(CHUNK)
        return state, concatenated(traces)

    def _refitted(
        self, old: Reparametrisation, state: Arrays, trace: Arrays
    ) -> tuple[Reparametrisation, Arrays, Arrays]:
        """Fit a reparametrisation to the later half of a window.

        Args:
            old: the present reparametrisation.
            state: state of the chains, in the present reparametrisation.
            trace: draws of the window, in the present reparametrisation.

        Returns:
            The new reparametrisation, and state and draws transformed to it.
        """
        assert self._reparametriser is not None
        reparametriser = self._reparametriser
        evaluate = self._evaluate
        # 1. Unconstrained parameters x(z).
        state, trace = (a | transformed(old, a, back=False) for a in (state, trace))
        # 2. Fit to the positions of the later half.
        later = (trace[name][:, trace["lp"].shape[1] // 2 :] for name in ("position", "gradient"))
        reached = [values.reshape(-1, values.shape[-1]) for values in later]
        arrays = self._journal.step(
            f"coordinates at {self._begin}", lambda: reparametriser.from_draws(*reached)
        )
        new = reparametriser.restored(arrays)
        # 3. The new z(x), with gradients by the chain rule, or evaluated anew.
        state, trace = (a | transformed(new, a, back=True) for a in (state, trace))
        if evaluate:
            state, trace = (a | _evaluated(evaluate, new, a) for a in (state, trace))
        return new, state, trace

    def _settled(self, trace: Arrays, metric: Metric, *, everywhere: bool) -> bool:
        """Whether the chains agree over a window, and the metric has settled.

        The metric has settled if one fitted to the window's draws would be similar.

        Args:
            trace: draws of the window.
            metric: the present metric.
            everywhere: whether network weights are compared between chains, too. This is needed if
                the reparametrisation will not be fitted again.
        """
        from arviz_stats.base.array import array_stats

        # R-hat of split chains works for a single chain, too.
        judged = trace["position"] if everywhere else trace["position"][..., self._judged]
        judged = np.concatenate([judged, trace["lp"][..., None]], axis=-1)
        rhat: Any = array_stats.rhat(judged, chain_axis=0, draw_axis=1)
        if not np.all(rhat < _AGREED):
            return False
        # Hidden weights have no common metric, since each chain may be near another mode.
        weights = not everywhere and len(self._judged) < trace["position"].shape[-1]
        return weights or _refined(metric, trace).differs_from(metric) < _FITTING


def _refined(metric: Metric, trace: Arrays) -> Metric:
    """Return the metric fitted to the draws of a window."""
    return refine(metric, trace["position"], trace["gradient"])


def _evaluated(evaluate: Evaluate, reparametrisation: Reparametrisation, arrays: Arrays) -> Arrays:
    """Return `lp` and `gradient`, computed at z.

    Args:
        evaluate: computes log densities and gradients in a reparametrisation.
        reparametrisation: the reparametrisation.
        arrays: positions z under the key `position`.
    """
    z = arrays["position"]
    lp, gradient = evaluate(reparametrisation, z.reshape(-1, z.shape[-1]))
    return {"lp": lp.reshape(z.shape[:-1]), "gradient": gradient.reshape(z.shape)}


def transformed(reparametrisation: Reparametrisation, arrays: Arrays, *, back: bool) -> Arrays:
    """Transform positions, log densities and gradients from z to unconstrained x, or back.

    Args:
        reparametrisation: the reparametrisation z ↦ x.
        arrays: `position`, `lp` and `gradient` for z, or for x if `back`.
        back: whether to transform from x to z.

    Returns:
        The same keys for x, or for z.
    """
    shape = arrays["lp"].shape
    position, lp, gradient = (arrays[n].reshape(-1, *arrays[n].shape[len(shape) :]) for n in _POINT)
    position, _, *density = reparametrisation.transform_many(position, lp, gradient, back=back)
    moved = zip(_POINT, (position, *density), strict=True)
    return {name: values.reshape(*shape, *values.shape[1:]) for name, values in moved}


def chunk(
    chains: Chains,
    journal: Journal,
    name: str,
    state: Arrays,
    begin: int,
    number: int,
    adapting: bool,
    metric: Metric,
    reparametrisation: Reparametrisation,
) -> tuple[Arrays, Arrays]:
    """Run a chunk of draws of every chain, as a step of the journal.

    Args:
        chains: runs the chunk, unless the journal has stored it.
        journal: the journal.
        name: name of the step.
        state: state of the chains.
        begin: index of the first draw.
        number: number of draws.
        adapting: whether step sizes are adapted.
        metric: the metric.
        reparametrisation: the reparametrisation.

    Returns:
        The next state, and the trace: arrays `(chain, draw, …)` by name, and `seconds`. Without
        adaptation the trace has no gradients.
    """

    def work():
        after, trace = chains.chunk(state, begin, number, adapting, metric, reparametrisation)
        # Only the metric and the reparametrisation are fitted to gradients.
        if not adapting:
            del trace["gradient"]
        return {f"state/{n}": v for n, v in after.items()} | {
            f"trace/{n}": v for n, v in trace.items()
        }

    arrays = journal.step(name, work)
    after, trace = (
        {n.removeprefix(p): v for n, v in arrays.items() if n.startswith(p)}
        for p in ("state/", "trace/")
    )
    return after, trace
