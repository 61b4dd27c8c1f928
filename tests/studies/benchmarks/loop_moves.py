"""What it costs and saves to let XLA move what does not change out of loops: NUTS compiled, and a
leapfrog of it.

Run: `uv run python -m tests.studies.benchmarks.loop_moves [--problems lynx_hare,sir]`

Two chains of 25 draws a lap, in the metric of the curvature at the best of 16 climbs; both ways by
turns. It is for a CPU: on other devices the package leaves the moves to XLA.
"""

import argparse
import math
import time
from typing import Any

import jax
import numpy as np

import bayes_dasl as bd
from bayes_dasl._jax import compiling
from bayes_dasl.inference import gradient, starts
from bayes_dasl.inference.nuts.chains import Chains, Kernel, first_state
from bayes_dasl.inference.reparametrisations.reparametrisation import Identity

from ..pages import table
from .suite.cases import load

PROBLEMS = ("lynx_hare", "fitzhugh_nagumo", "sir", "hybrid")
WAYS = {"with": -math.inf, "without": math.inf}
_DRAWS, _WARMUP = 25, 100


class Way:
    """Two chains whose program is compiled with the moves, or without."""

    def __init__(self, bound: float, log_density: Any, metric: Any, start: Any):
        usual, compiling._WORTH_MOVING = compiling._WORTH_MOVING, bound
        began, dimension = time.perf_counter(), start["position"].shape[1]
        kernel = Kernel(log_density, target_acceptance=0.8, max_tree_depth=6)
        self.metric, self.state, self.done, self.micros = metric, start, 0, []
        try:
            self.chains = Chains(kernel, 2, metric, Identity(), dimension, key=jax.random.key(1))
            self.lap(adapting=True)
        finally:
            compiling._WORTH_MOVING = usual
        self.first = time.perf_counter() - began
        while self.done < _WARMUP:
            self.lap(adapting=True)
        self.micros.clear()

    def lap(self, *, adapting: bool = False) -> None:
        self.state, trace = self.chains.chunk(
            self.state, self.done, _DRAWS, adapting, self.metric, Identity()
        )
        self.done += _DRAWS
        self.micros.append(
            1e6 * float(trace["seconds"]) / float(trace["n_steps"].sum(axis=1).max())
        )


def line(problem: str, laps: int) -> list[str]:
    case = load(problem)
    posed = bd.inference.pose(case.model, case.data)
    _, value_and_gradient, log_density = gradient.differentiated(
        posed, gradient.choose(posed, "auto")
    )
    optimiser = starts.Optimiser(value_and_gradient, 16)
    reached = optimiser.optimise(np.asarray(posed.prior(16, key=jax.random.key(0))))
    values, slopes = optimiser.evaluate(reached)
    best = np.repeat(np.nanargmax(values), 2)
    every = tuple(range(posed.dimension))
    metric = starts.laplace_metric(starts.precision_at(optimiser, reached[best[0]]), every, ())
    start = first_state(reached[best], values[best], slopes[best])
    ways = {name: Way(bound, log_density, metric, start) for name, bound in WAYS.items()}
    for _ in range(laps):
        for way in ways.values():
            way.lap()
    said = [f"{way.first:.1f}" for way in ways.values()]
    said += [f"{np.median(way.micros):.0f}" for way in ways.values()]
    for way in ways.values():
        way.chains.close()
    program = jax.jit(value_and_gradient).trace(reached[0]).jaxpr
    return [f"`{problem}`", f"{100 * compiling.steady_share(program):.1f}", *said]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.studies.benchmarks.loop_moves", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--problems", default=",".join(PROBLEMS), help="names, separated by commas")
    parser.add_argument("--laps", type=int, default=12)
    asked = parser.parse_args()
    header = ["problem", "share of the gradient that stays the same, %"]
    header += [
        f"{what} {way} moves" for what in ("first 25 draws, s,", "leapfrog, µs,") for way in WAYS
    ]
    print(table([header, *(line(problem, asked.laps) for problem in asked.problems.split(","))]))


if __name__ == "__main__":
    main()
