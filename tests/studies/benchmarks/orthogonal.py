"""Lotka–Volterra with a missing interaction: how stable the science is with a plain and with an
orthogonal residual.

Run: `uv run python -m tests.studies.benchmarks.orthogonal`

Ten restarts of each: the best of the climbs from prior draws (a point estimate, as a universal
differential equation gives one), each from a start of its own, and NUTS with ten keys. The table
gives the coefficient of variation of each scientific parameter over the restarts, and where the
posterior lies against the projected parameters: those with which the science alone comes closest to
the true rates along the trajectory.
"""

import argparse
import time

import jax
import numpy as np

import bayes_dasl as bd
from bayes_dasl.inference import pose
from bayes_dasl.inference.gradient import traced_once
from bayes_dasl.inference.starts import Optimiser

from ..pages import table
from ..recovery import residual

PATH = "layer.vector_field.science."


def point_estimates(model: bd.Model, data, restarts: int) -> dict[str, np.ndarray]:
    """The parameters at the end of each climb, one start each, as far as it ends within three nats
    of the best.
    """
    problem = pose(model, data)
    value_and_gradient, _ = traced_once(problem)
    optimiser = Optimiser(value_and_gradient)
    starts = np.asarray(problem.prior(256, key=jax.random.key(1)))
    values, _ = optimiser.evaluate(starts)
    begun = starts[np.argsort(-np.where(np.isfinite(values), values, -np.inf))[:32]]
    for _ in range(3):
        begun = optimiser.optimise(begun)
    values, _ = optimiser.evaluate(begun)
    best = begun[np.argsort(-values)[:restarts]]
    ended = [problem.constrain(x) for x in best]
    print(f"log densities {np.sort(-values)[:restarts] * -1}", flush=True)
    return {name: np.array([float(end[PATH + name]) for end in ended]) for name in residual.NAMES}


def posterior_means(model: bd.Model, data, keys: int) -> dict[str, np.ndarray]:
    means = {name: [] for name in residual.NAMES}
    for key in range(keys):
        began = time.perf_counter()
        post = bd.fit(model, data, bd.NUTS(chains=2, draws=400), progress=False, key=key)
        draws = post["posterior"]
        for name in residual.NAMES:
            means[name].append((float(draws[name].mean()), float(draws[name].std())))
        found = ", ".join(
            f"{n} {means[n][-1][0]:.3f} ± {means[n][-1][1]:.3f}" for n in residual.NAMES
        )
        print(f"key {key}: {found} ({time.perf_counter() - began:.0f} s)", flush=True)
    return {name: np.array(values) for name, values in means.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="tests.studies.benchmarks.orthogonal", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--restarts", type=int, default=10)
    parser.add_argument("--keys", type=int, default=10)
    asked = parser.parse_args()
    data, target = residual.case().data(0), residual.projected()
    varied = ("CV of point estimates", "CV of posterior means")
    lines = [["residual", "parameter", *varied, "posterior", "projected truth"]]
    for label, orthogonal in (("orthogonal", True), ("plain", False)):
        model = residual.model(orthogonal)
        points = point_estimates(model, data, asked.restarts)
        means = posterior_means(model, data, asked.keys)
        for name in residual.NAMES:
            of_points = points[name].std(ddof=1) / abs(points[name].mean())
            mean, sd = means[name].mean(axis=0)
            of_means = means[name][:, 0].std(ddof=1) / abs(mean)
            varying = [f"{cv:.3f}" for cv in (of_points, of_means)]
            lines.append([label, name, *varying, f"{mean:.3f} ± {sd:.3f}", f"{target[name]:.3f}"])
    print(table(lines))


if __name__ == "__main__":
    main()
