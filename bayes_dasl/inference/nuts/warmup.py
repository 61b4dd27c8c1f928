"""The warm-up of NUTS: it lasts as long as it needs to,
and finds a metric and a frame on its way.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..._runs.journal import Arrays, Journal, ProgressBar
from ..metric import Metric, refine
from ..reparametrisations.reparametrisation import Reparametrisation, Reparametriser
from .chains import CHUNK, Chains, enter_new_metric, share_step_size

LONGEST_WARMUP = 2000
# R-hat of a window, and the change of variance in any direction that its draws call for, of a
# warm-up that is done.
_AGREED, _FITTING = 1.1, 2.0
_LAST = 2  # chunks in which the step size settles
# Draws after which the frame stays what it is.
_REFRESHED_UNTIL = 200


type Evaluate = Callable[[Reparametrisation, np.ndarray], tuple[np.ndarray, np.ndarray]]
"""Log densities and gradients at coordinates in a frame."""


class Warm(NamedTuple):
    """Where the warm-up ended."""

    state: Arrays
    metric: Metric
    frame: Reparametrisation
    draws: int
    settled: bool
    steps: int
    seconds: float


class WarmUp:
    """Windows of draws, each twice as long as the one before; after each the metric is refined.

    The first window finds the typical set, the last settles the step size. With `frames` the frame
    is made anew from the draws of each early window; gradients in it are worked out of those in the
    old one, unless it is said how to `evaluate` them. The chains must agree about the coordinates
    `judged`: all others are weights of networks, of which several say the same.
    """

    def __init__(
        self,
        draws: int | None,
        chains: Chains,
        journal: Journal,
        bar: ProgressBar,
        judged: tuple[int, ...],
        frames: Reparametriser | None = None,
        evaluate: Evaluate | None = None,
    ):
        self._draws, self._chains, self._journal, self._bar = draws, chains, journal, bar
        self._judged, self._frames, self._evaluate = list(judged), frames, evaluate
        self._begin, self._steps, self._seconds = 0, 0, 0.0

    def run(self, state: Arrays, metric: Metric, frame: Reparametrisation) -> Warm:
        fixed = self._draws is not None
        self._bar.start("warm-up", self._draws or 6 * CHUNK)
        length, settled = 1, False
        while self._left() > _LAST and not settled:
            first = self._begin == 0
            state, trace = self._window(state, metric, frame, min(length, self._left() - _LAST))
            if first:  # on its way to the typical set
                trace = {name: values[:, CHUNK // 2 :] for name, values in trace.items()}
            early = self._frames is not None and self._begin <= _REFRESHED_UNTIL
            # Frames that are worked out of draws and their gradients are better each time; others
            # need but suit.
            last = self._evaluate is not None and self._begin == _REFRESHED_UNTIL
            long_enough = not fixed and self._begin >= 4 * CHUNK and (last or not early)
            settled = long_enough and self._settled(trace, metric, everywhere=early)
            if early and not settled:
                frame, state, trace = self._refresh(frame, state, trace)
            metric, state = _refined(metric, trace), enter_new_metric(state)
            length = 1 if first else 2 * length
        state, _ = self._window(state, metric, frame, self._left() if fixed else _LAST)
        return Warm(
            share_step_size(state), metric, frame, self._begin, settled, self._steps, self._seconds
        )

    def _left(self) -> int:
        """Chunks that may still be run."""
        return -(-((self._draws or LONGEST_WARMUP) - self._begin) // CHUNK)

    def _window(
        self, state: Arrays, metric: Metric, frame: Reparametrisation, chunks: int
    ) -> tuple[Arrays, Arrays]:
        traces = []
        for _ in range(chunks):
            name = f"warm-up from {self._begin}"
            state, trace = chunk(
                self._chains, self._journal, name, state, self._begin, CHUNK, True, metric, frame
            )
            traces.append(trace)
            self._begin += CHUNK
            self._steps += int(trace["n_steps"].sum())
            self._seconds += float(trace["seconds"])
            self._bar.advance(CHUNK)
        return state, {
            n: np.concatenate([t[n] for t in traces], axis=1)
            for n in ("position", "gradient", "lp")
        }

    def _refresh(
        self, old: Reparametrisation, state: Arrays, trace: Arrays
    ) -> tuple[Reparametrisation, Arrays, Arrays]:
        """A frame around the later half of a window, and state and trace in it."""
        assert self._frames is not None
        frames, evaluate = self._frames, self._evaluate
        leave = (
            (lambda a: out_of_frame(old, a))
            if evaluate is None
            else (lambda a: _positions_of(old, a))
        )
        state, trace = state | leave(state), trace | leave(trace)
        later = (trace[name][:, trace["lp"].shape[1] // 2 :] for name in ("position", "gradient"))
        reached = [values.reshape(-1, values.shape[-1]) for values in later]
        new = frames.restored(
            self._journal.step(f"coordinates at {self._begin}", lambda: frames.from_draws(*reached))
        )
        if evaluate is None:
            return new, state | into_frame(new, state), trace | into_frame(new, trace)
        return (
            new,
            state | _evaluated(evaluate, new, state),
            trace | _evaluated(evaluate, new, trace),
        )

    def _settled(self, trace: Arrays, metric: Metric, *, everywhere: bool) -> bool:
        """Whether the chains agree over a window and its draws call for the metric that there is.

        `everywhere` asks it of weights, too, as a frame must be that is made no better than it is.
        """
        from arviz_stats.base.array import array_stats

        # R-hat splits every chain in two, so that it says something of one alone.
        looked_at = trace["position"] if everywhere else trace["position"][..., self._judged]
        looked_at = np.concatenate([looked_at, trace["lp"][..., None]], axis=-1)
        rhat: Any = array_stats.rhat(looked_at, chain_axis=0, draw_axis=1)
        if not np.all(rhat < _AGREED):
            return False
        # The posterior of hidden weights has no metric: what a window calls for depends on where
        # its chains were.
        weights = not everywhere and len(self._judged) < trace["position"].shape[-1]
        return weights or _refined(metric, trace).differs_from(metric) < _FITTING


def _refined(metric: Metric, trace: Arrays) -> Metric:
    return refine(metric, trace["position"], trace["gradient"])


def _positions_of(frame: Reparametrisation, arrays: Arrays) -> Arrays:
    """Positions in the posterior's own coordinates, from those in a frame."""
    found = arrays["position"]
    return {
        "position": frame.forward_many(found.reshape(-1, found.shape[-1]))[0].reshape(found.shape)
    }


def _evaluated(evaluate: Evaluate, frame: Reparametrisation, arrays: Arrays) -> Arrays:
    """Coordinates of positions in a frame, with log densities and gradients there."""
    xi = frame.inverse_many(arrays["position"].reshape(-1, arrays["position"].shape[-1]))
    lp, gradient = evaluate(frame, xi)
    shape = arrays["position"].shape
    return {
        "position": xi.reshape(shape),
        "lp": lp.reshape(shape[:-1]),
        "gradient": gradient.reshape(shape),
    }


def into_frame(frame: Reparametrisation, arrays: Arrays) -> Arrays:
    """Positions, log densities and gradients in a frame, from those in the posterior's own
    coordinates.
    """
    return _moved(Reparametrisation.from_plain, frame, arrays)


def out_of_frame(frame: Reparametrisation, arrays: Arrays) -> Arrays:
    """Positions, log densities and gradients in the posterior's own coordinates, from those in a
    frame.
    """
    return _moved(Reparametrisation.to_plain, frame, arrays)


def _moved(
    move: Callable[..., tuple[np.ndarray, ...]], frame: Reparametrisation, arrays: Arrays
) -> Arrays:
    shape = arrays["lp"].shape
    flat = (
        arrays[n].reshape(-1, *arrays[n].shape[len(shape) :])
        for n in ("position", "lp", "gradient")
    )
    moved = move(frame, *flat)
    return {
        n: v.reshape(*shape, *v.shape[1:])
        for n, v in zip(("position", "lp", "gradient"), moved, strict=True)
    }


def chunk(
    chains: Chains,
    journal: Journal,
    name: str,
    state: Arrays,
    begin: int,
    number: int,
    adapting: bool,
    metric: Metric,
    frame: Reparametrisation,
) -> tuple[Arrays, Arrays]:
    """A chunk of every chain as a step of the journal."""

    def work():
        after, trace = chains.chunk(state, begin, number, adapting, metric, frame)
        if not adapting:
            del trace["gradient"]  # for the metric alone
        return {f"state/{n}": v for n, v in after.items()} | {
            f"trace/{n}": v for n, v in trace.items()
        }

    arrays = journal.step(name, work)
    after, trace = (
        {n.removeprefix(p): v for n, v in arrays.items() if n.startswith(p)}
        for p in ("state/", "trace/")
    )
    return after, trace
