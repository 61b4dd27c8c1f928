"""Faults of numbers that data or draws do not tell, for the study of verdicts: products, bounds,
heavy tails.
"""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist

import bayes_dasl as bd

from .families import TIMES, curve, line
from .planting import LINE, MIXING, NORMAL, RNG, SLOPED, Fault, Judged, fitted, series

FADED = series(5.0 * np.exp(-0.6 * TIMES) + 0.1 * NORMAL)
KNOWN = bd.NormalNoise(0.1)


def factors(prior: Callable[[], Any], data: Any = FADED, number: int = 2) -> Judged:
    """Of factors of one rate the data see the product alone."""
    names = ("one", "other", "third")[:number]

    def formula(t, u, **rates):
        product = 1.0
        for rate in rates.values():
            product *= rate
        return 5.0 * jnp.exp(-product * t)

    return fitted(curve(formula, KNOWN, **{name: prior() for name in names}), data)


def slow_factors() -> Judged:
    """A small product, so that both factors pile up at the lower bound of their priors."""
    return factors(
        lambda: dist.Uniform(0.0, 1.0), series(5.0 * np.exp(-0.05 * TIMES) + 0.1 * NORMAL)
    )


def two_levels() -> Judged:
    levels = {"one": dist.Normal(0.0, 2.0), "other": dist.Normal(0.0, 2.0)}
    return fitted(
        curve(lambda t, u, one, other: one + other + 0.0 * t, KNOWN, **levels),
        series(1.0 + 0.1 * NORMAL),
    )


def flat_up_to_its_bound() -> Judged:
    """A delay that is over before the second datum under a uniform prior."""

    def delayed(t, u, rate, delay):
        return 5.0 * jnp.exp(-rate * t) * (1.0 - jnp.exp(-delay * (t + 0.1)))

    rates = {"rate": dist.LogNormal(-0.5, 0.5), "delay": dist.Uniform(0.0, 500.0)}
    return fitted(curve(delayed, KNOWN, **rates), FADED)


def flat_down_to_its_bound() -> Judged:
    """Half-saturation far below the lowest supply that was seen."""
    priors = {"most": dist.LogNormal(1.0, 0.5), "half": dist.LogUniform(1e-5, 10.0)}
    model = curve(lambda t, u, most, half: most * (t + 0.5) / (half + t + 0.5), KNOWN, **priors)
    return fitted(model, series(3.0 + 0.1 * NORMAL))


def threshold_out_of_reach() -> Judged:
    """A threshold that is above all that was seen, wherever it is."""
    priors = {
        "level": dist.Normal(0.0, 2.0),
        "slope": dist.Normal(0.0, 1.0),
        "threshold": dist.Uniform(20.0, 40.0),
    }

    def kinked(t, u, level, slope, threshold):
        return level + slope * t - jnp.maximum(t - threshold, 0.0)

    return fitted(curve(kinked, KNOWN, **priors), series(1.0 + 0.5 * TIMES + 0.1 * NORMAL))


def peak_at_its_bound() -> Judged:
    """A plateau that is said to be positive, and lies below zero."""

    def settling(t, u, amount, rate, plateau):
        return plateau + amount * jnp.exp(-rate * t)

    priors = {
        "amount": dist.LogNormal(1.5, 0.5),
        "rate": dist.LogNormal(0.0, 0.5),
        "plateau": dist.Uniform(0.0, 5.0),
    }
    return fitted(
        curve(settling, KNOWN, **priors), series(5.0 * np.exp(-1.5 * TIMES) - 0.3 + 0.1 * NORMAL)
    )


def peak_of_one_of_ten() -> Judged:
    """Of ten levels one lies above the upper bound of all of them."""
    levels = np.append(np.linspace(-1.5, 1.5, 9), 2.5)
    which = np.floor(TIMES * 7.5).astype(int) % 10
    model = curve(
        lambda t, u, each: each[jnp.floor(t * 7.5).astype(int) % 10], KNOWN,
        each=dist.Uniform(-2.0, 2.0).expand([10]).to_event(1),
    )  # fmt: skip
    return fitted(model, series(levels[which] + 0.1 * NORMAL))


def half_saturation_beyond_few_data() -> Judged:
    """Six data of a law that they see where it is a line: of a half-Cauchy half-saturation they set
    no upper limit.
    """
    times = np.linspace(0.5, 6.0, 9)
    priors = {"slope": dist.LogNormal(0.0, 0.5), "half": dist.HalfCauchy(5.0)}
    y = 20.0 * times / (20.0 + times) + 0.3 * RNG(30).normal(size=times.size)
    return fitted(curve(lambda t, u, slope, half: slope * half * t / (half + t), bd.NormalNoise(0.3), **priors),
                  series(y, times))  # fmt: skip


def limit_of_a_rate_by_few_data() -> Judged:
    """Four data after everything has faded: they set a lower limit, and a half-Cauchy prior no
    upper one.
    """
    times = np.array([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    model = curve(lambda t, u, rate: 5.0 * jnp.exp(-rate * t), KNOWN, rate=dist.HalfCauchy(1.0))
    return fitted(model, series(0.1 * RNG(31).normal(size=times.size), times))


def particles(engine: bd.engines.SMC) -> Judged:
    return fitted(curve(line, bd.NormalNoise(0.5), **LINE), SLOPED, engine)


PRODUCT = ("identifiability of one and other",)
FAULTS: dict[str, Fault] = {
    "two factors under normal priors": Fault(
        lambda: factors(lambda: dist.Normal(1.0, 0.3)), PRODUCT
    ),
    "two factors under normal priors that reach below zero": Fault(
        lambda: factors(lambda: dist.Normal(1.0, 0.5)), PRODUCT
    ),
    "two factors that pile up at a bound": Fault(slow_factors, PRODUCT, silent=("lower bound of",)),
    "three factors of one rate": Fault(
        lambda: factors(lambda: dist.LogNormal(0.0, 0.5), number=3),
        ("identifiability of one, other and third",),
    ),
    "two parts of one level": Fault(two_levels, PRODUCT),
    "a parameter flat up to its bound": Fault(flat_up_to_its_bound, ("identifiability of delay",)),
    "a parameter flat down to its bound": Fault(
        flat_down_to_its_bound, ("identifiability of half",)
    ),
    "a threshold out of reach": Fault(threshold_out_of_reach, ("identifiability of threshold",)),
    "a parameter that peaks at its bound": Fault(peak_at_its_bound, ("lower bound of plateau",)),
    "one of ten that peaks at its bound": Fault(peak_of_one_of_ten, ("upper bound of each",)),
    "a half-Cauchy prior of a half-saturation": Fault(
        half_saturation_beyond_few_data, ("heavy tails",)
    ),
    "a half-Cauchy prior of a rate": Fault(limit_of_a_rate_by_few_data, ("heavy tails",)),
    "few particles": Fault(
        lambda: particles(bd.engines.SMC(particles=20)),
        (*MIXING, "log evidence", "moves of the particles"),
    ),
    "one run of particles": Fault(
        lambda: particles(bd.engines.SMC(runs=1)), ("single run", "log evidence")
    ),
}
