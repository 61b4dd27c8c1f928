"""How far the filter's approximation of censored residuals moves an estimate: against the exact
likelihood.

Run: `uv run python -m tests.studies.moment_matching`; what is done is kept, `--table` prints it.

A thousand AR(1) numbers about zero, of which those below zero are censored at zero: about half.
Mean, standard deviation and correlation are estimated by maximum likelihood twice: with the
package's filter, which matches the first two moments of a censored residual, and with its density
on a grid, which is exact. Shifts are in standard errors of the exact estimate.
"""

from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from scipy.optimize import minimize

import bayes_dasl as bd

from . import ROOT
from .pages import table, write_section
from .provenance import fingerprint
from .rows import age, go_on, held, latest

RESULTS = Path(__file__).with_suffix(".jsonl")
PAGE = ROOT / "docs" / "measurements" / "correlated.md"
NUMBER, CORRELATIONS, SEEDS = 1000, (0.5, 0.8, 0.9, 0.95), range(4)
NODES, WEIGHTS = np.polynomial.legendre.leggauss(240)
TASK = ("correlation", "seed")
NAMES = ("mean", "scale", "correlation")


def simulated(correlation: float, seed: int) -> np.ndarray:
    rng, x = np.random.default_rng(seed), np.empty(NUMBER)
    x[0] = rng.normal()
    for i in range(1, NUMBER):
        x[i] = correlation * x[i - 1] + np.sqrt(1 - correlation**2) * rng.normal()
    return np.maximum(x, 0.0)


def constrained(at):
    return at[0], jnp.exp(at[1]), jax.nn.sigmoid(at[2])


def by_the_filter(at, y):
    mean, scale, correlation = constrained(at)
    noise = bd.noise.Censored(
        bd.filtering.CorrelatedNoise(bd.filtering.AR1(scale, correlation)), below=0.0
    )
    times, prediction = jnp.arange(float(NUMBER)), jnp.full(NUMBER, mean)
    return (
        noise.given(prediction, times, noise.before(times, y, prediction, same=True))
        .log_prob(y)
        .sum()
    )


def on_a_grid(at, y):
    """The density of a run of censored numbers is carried on a grid from each day to the next."""
    mean, scale, correlation = constrained(at)
    innovation = scale * jnp.sqrt(1 - correlation**2)
    half = 5.0 * scale
    nodes, weights = (
        -mean - half * (1 - NODES),
        half * WEIGHTS,
    )  # residuals below the limit, down to ten deviations
    kernel = norm.pdf(nodes[:, None], correlation * nodes[None], innovation) * weights[None]
    stationary = norm.pdf(nodes, 0.0, scale)

    def step(before, value):
        density, last, was_censored = before
        residual, censored = value - mean, value <= 0
        ahead = jnp.where(
            was_censored, kernel @ density, norm.pdf(nodes, correlation * last, innovation)
        )
        below = weights @ ahead
        after_censored = (norm.pdf(residual, correlation * nodes, innovation) * weights) @ density
        above = jnp.where(
            was_censored, after_censored, norm.pdf(residual, correlation * last, innovation)
        )
        log = jnp.log(jnp.where(censored, below, above))
        return (ahead / below, residual, censored), log

    first_below = weights @ stationary
    residual, censored = y[0] - mean, y[0] <= 0
    begin = (stationary / first_below, residual, censored)
    log_first = jnp.where(censored, jnp.log(first_below), norm.logpdf(residual, 0.0, scale))
    return log_first + jax.lax.scan(step, begin, y[1:])[1].sum()


@cache
def program(log_density):
    return jax.jit(jax.value_and_grad(lambda at, y: -log_density(at, y))), jax.jit(
        jax.hessian(log_density)
    )


def likeliest(log_density, y, start):
    found = minimize(program(log_density)[0], start, args=(y,), jac=True, method="BFGS")
    return found.x


def run(correlation: float, seed: int) -> dict:
    y = jnp.asarray(simulated(correlation, seed))
    start = np.array([0.0, 0.0, np.log(correlation / (1 - correlation))])
    exact = likeliest(on_a_grid, y, start)
    matched = likeliest(by_the_filter, y, start)
    errors = np.sqrt(np.diag(np.linalg.inv(-np.asarray(program(on_a_grid)[1](exact, y)))))
    return {
        "correlation": correlation,
        "seed": seed,
        "censored": round(float((y == 0).mean()), 3),
        "log_likelihood": round(float(by_the_filter(exact, y) - on_a_grid(exact, y)), 3),
        "shift": dict(zip(NAMES, np.round((matched - exact) / errors, 4).tolist(), strict=True)),
        "matched": np.round([float(v) for v in constrained(matched)], 4).tolist(),
        "exact": np.round([float(v) for v in constrained(exact)], 4).tolist(),
    }


@cache
def code_of(correlation: float, seed: int) -> str:
    return fingerprint(bd.noise.Censored, bd.filtering.CorrelatedNoise, bd.filtering.AR1)


def tables() -> str:
    rows = latest(held(RESULTS), TASK)
    header = (
        "correlation",
        "series",
        "censored",
        "log likelihood, nats",
        *(f"shift of {name}" for name in NAMES),
    )
    lines: list[tuple] = [header]
    for correlation in CORRELATIONS:
        of = [r for r in rows if r["correlation"] == correlation]
        if of:
            shifts = ([r["shift"][name] for r in of] for name in NAMES)
            told = (f"{np.mean(s):+.2f} ({min(s):+.2f}, {max(s):+.2f})" for s in shifts)
            off = f"{np.mean([r['log_likelihood'] for r in of]):+.1f}"
            lines.append(
                (correlation, len(of), f"{np.mean([r['censored'] for r in of]):.0%}", off, *told)
            )
    return f"{table(lines)}\n\n{age(rows, TASK, code_of)}"


if __name__ == "__main__":
    go_on(
        __doc__,
        RESULTS,
        SEEDS,
        TASK,
        lambda seed: [(c, seed) for c in CORRELATIONS],
        run,
        code_of,
        tables,
    )
    write_section(PAGE, "moment matching", tables())
