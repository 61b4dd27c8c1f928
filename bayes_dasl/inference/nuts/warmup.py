"""The warm-up of NUTS, which ends by itself: step sizes, the metric and a reparametrisation."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..._runs.journal import Arrays, Journal, ProgressBar, concatenated
from ..metric import Metric, refine
from ..reparametrisations.reparametrisation import Reparametrisation, Reparametriser
from .chains import CHUNK, Chains, enter_new_metric, share_step_size

LONGEST_WARMUP = 2000
# A warm-up is done below this R-hat of a window, and this ratio of the variances of the metric to
# those that the window's draws suggest.
_AGREED, _FITTING = 1.1, 2.0
# Chunks in which the step size settles.
_LAST = 2
# Draws after which the reparametrisation is no longer fitted.
_REFRESHED_UNTIL = 200
_POINT = ("position", "lp", "gradient")


type Evaluate = Callable[[Reparametrisation, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Returns log densities and gradients by z, at many z of a reparametrisation."""


class Warm(NamedTuple):
    """The state of the chains after the warm-up, and its statistics."""

    state: Arrays
    metric: Metric
    reparametrisation: Reparametrisation
    draws: int
    settled: bool
    steps: int
    seconds: float


class WarmUp:
    """Windows of draws, each twice as long as the one before; each gives a better metric.

    The first window finds the typical set, the last one settles the step size. A `reparametriser`
    fits a reparametrisation to the draws of each early window. Gradients in a new
    reparametrisation follow from those in the old one by the chain rule, unless the
    reparametriser wants them evaluated by `evaluate`. Chains must agree about the parameters
    `judged`. The others are network weights, of which several sets give the same function.
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
        self._begin = self._steps = 0
        self._seconds = 0.0

    def run(self, state: Arrays, metric: Metric, reparametrisation: Reparametrisation) -> Warm:
        """Warm up from a state, and return the last state with everything fitted."""
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
            # 2. Stop when the chains agree. Reparametrisations that follow from draws and their
            #    gradients improve with each window; evaluated ones must only fit.
            early = self._reparametriser is not None and self._begin <= _REFRESHED_UNTIL
            last = self._evaluate is not None and self._begin == _REFRESHED_UNTIL
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
        """Return the state and the trace after some chunks."""
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
        """Return a reparametrisation fitted to the later half of a window, with state and trace."""
        assert self._reparametriser is not None
        reparametriser = self._reparametriser
        evaluate = self._evaluate
        # 1. Unconstrained parameters x(z), with gradients by x if these are transformed.
        leave = to_plain if evaluate is None else _plain_positions
        state = state | leave(old, state)
        trace = trace | leave(old, trace)
        # 2. Fit to the positions of the later half.
        later = (trace[name][:, trace["lp"].shape[1] // 2 :] for name in ("position", "gradient"))
        reached = [values.reshape(-1, values.shape[-1]) for values in later]
        arrays = self._journal.step(
            f"coordinates at {self._begin}", lambda: reparametriser.from_draws(*reached)
        )
        new = reparametriser.restored(arrays)
        # 3. The new z(x), with gradients by z.
        if evaluate is None:
            return new, state | from_plain(new, state), trace | from_plain(new, trace)
        state, trace = (a | _evaluated(evaluate, new, a) for a in (state, trace))
        return new, state, trace

    def _settled(self, trace: Arrays, metric: Metric, *, everywhere: bool) -> bool:
        """Whether chains agree over a window, and its draws suggest the present metric.

        With `everywhere` this includes network weights, as a reparametrisation needs that is not
        fitted again.
        """
        from arviz_stats.base.array import array_stats

        # R-hat of split chains judges one chain, too.
        judged = trace["position"] if everywhere else trace["position"][..., self._judged]
        judged = np.concatenate([judged, trace["lp"][..., None]], axis=-1)
        rhat: Any = array_stats.rhat(judged, chain_axis=0, draw_axis=1)
        if not np.all(rhat < _AGREED):
            return False
        # Hidden weights have no common metric: the draws of a window suggest one for their place.
        weights = not everywhere and len(self._judged) < trace["position"].shape[-1]
        return weights or _refined(metric, trace).differs_from(metric) < _FITTING


def _refined(metric: Metric, trace: Arrays) -> Metric:
    return refine(metric, trace["position"], trace["gradient"])


def _plain_positions(reparametrisation: Reparametrisation, arrays: Arrays) -> Arrays:
    """Return x(z) only, without log densities and gradients."""
    z = arrays["position"]
    x, _ = reparametrisation.forward_many(z.reshape(-1, z.shape[-1]))
    return {"position": x.reshape(z.shape)}


def _evaluated(evaluate: Evaluate, reparametrisation: Reparametrisation, arrays: Arrays) -> Arrays:
    """Return z(x) with log densities and gradients evaluated there."""
    x = arrays["position"]
    z = reparametrisation.inverse_many(x.reshape(-1, x.shape[-1]))
    lp, gradient = evaluate(reparametrisation, z)
    return {
        "position": z.reshape(x.shape),
        "lp": lp.reshape(x.shape[:-1]),
        "gradient": gradient.reshape(x.shape),
    }


def from_plain(reparametrisation: Reparametrisation, arrays: Arrays) -> Arrays:
    """Return z, log densities and gradients by z, from those by x."""
    return _transformed(reparametrisation.from_plain, arrays)


def to_plain(reparametrisation: Reparametrisation, arrays: Arrays) -> Arrays:
    """Return x, log densities and gradients by x, from those by z."""
    return _transformed(reparametrisation.to_plain, arrays)


def _transformed(transform: Callable[..., tuple[np.ndarray, ...]], arrays: Arrays) -> Arrays:
    """Apply a transform of rows to arrays with the leading axes of `lp`."""
    shape = arrays["lp"].shape
    flat = (arrays[n].reshape(-1, *arrays[n].shape[len(shape) :]) for n in _POINT)
    transformed = zip(_POINT, transform(*flat), strict=True)
    return {name: values.reshape(*shape, *values.shape[1:]) for name, values in transformed}


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
    """Run a chunk of every chain as a step of the journal, and return its state and trace."""

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
