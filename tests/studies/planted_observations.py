"""Faults of what was observed, for the study of verdicts: noise, zeros, short series, other tables
and members.
"""

import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd

from .families import TIMES, Law, curve, driven, line, template
from .planting import (
    FLAGGED,
    LINE,
    NORMAL,
    REFUSED,
    RESIDUALS,
    RNG,
    UNKNOWN,
    Fault,
    Judged,
    fitted,
    level,
    series,
    wandering,
)

MEMBERS, ODD = 9, 5


def negatively_skewed_noise() -> Judged:
    """Errors of skewness -1."""
    times = np.linspace(0.0, 6.0, 301)
    errors = (4.0 - RNG(12).gamma(4.0, size=times.size)) / 4.0
    return fitted(curve(line, UNKNOWN, **LINE), series(1.0 + times + errors, times))


def absolute_noise_taken_for_relative() -> Judged:
    y = np.maximum(20.0 * np.exp(-0.5 * TIMES) + 0.5 * NORMAL, 0.05)
    rates = {"amount": dist.LogNormal(3.0, 0.5), "rate": dist.LogNormal(-0.7, 0.5)}
    noise = bd.LogNormalNoise(dist.HalfNormal(1.0))
    return fitted(
        curve(lambda t, u, amount, rate: amount * jnp.exp(-rate * t), noise, **rates), series(y)
    )


def many_zeros_among_counts() -> Judged:
    y = RNG(13).poisson(8.0, TIMES.size) * (RNG(14).uniform(size=TIMES.size) < 0.6)
    model = curve(
        lambda t, u, level: jnp.exp(level + 0.0 * t), bd.PoissonNoise(), level=dist.Normal(2.0, 1.0)
    )
    return fitted(model, series(y))


def floods_of_an_intermittent_river() -> Judged:
    """Dry on half of the days; after the fit the largest flows are twice as large as before."""
    days = np.arange(800.0)
    wet = np.sin(days / 9.0) + 0.2 * RNG(15).normal(size=days.size)
    noise = bd.filtering.CorrelatedBoxCoxNoise(
        bd.filtering.White(dist.HalfNormal(1.0)), power=0.5, shift=0.01
    )
    priors = {"level": dist.Normal(0.0, 1.0), "gain": dist.LogNormal(0.5, 0.5)}
    model = curve(driven, noise, forcings=("x",), **priors)
    true = bd.Model(bd.Algebraic(Law(driven, {"level": 0.0, "gain": 2.0}), forcings=("x",)),
                    bd.filtering.CorrelatedBoxCoxNoise(bd.filtering.White(0.3), power=0.5, shift=0.01))  # fmt: skip
    simulated = bd.simulate(true, series(np.ones(days.size), days, x=wet), {}, key=16)
    flood = (days > 300) & (wet > np.quantile(wet, 0.95))
    data = series(np.where(flood, 2.0, 1.0) * simulated["y"].values, days, x=wet)
    train, test = bd.split(data, time=300.0)
    post = bd.fit(model, train, bd.NUTS(chains=2, draws=500), key=1, progress=False)
    return Judged(post, bd.forecast(model, post, data, key=4), test)


def held(inside: int, number: int) -> Judged:
    """Held-out data of which so many lie inside the 90 % intervals of a forecast whose errors hold
    together.
    """
    times = np.arange(30.0 + number)
    model = level(dist.Normal(0.0, 2.0), bd.filtering.CorrelatedNoise(bd.filtering.AR1(1.0, 0.9)))
    data = series(1.0 + wandering(0.9, 17, times.size), times)
    post = bd.fit(model, data.isel(time=slice(30)), key=1, progress=False)
    fc = bd.forecast(model, post, data, key=4)
    draws = fc["predictions"]["y"].values.reshape(-1, times.size)[:, 30:]
    low, middle, high = np.quantile(draws, [0.05, 0.5, 0.95], axis=0)
    errors = wandering(0.7, 18, number)
    out = np.sort(np.where(errors < 0, errors / (low - middle), errors / (high - middle)))
    test = series(middle + errors * 2 / (out[inside - 1] + out[inside]), times[30:])
    return Judged(post, fc, test)


def other_rows(*, forecast: bool) -> Judged:
    """Another table with the labels 0, 1, 2, … of the fitted one, where the law saturates:
    forecast, or not even.
    """
    rows = np.arange(20.0)
    near, far = np.linspace(0.0, 1.0, 20), np.linspace(3.0, 10.0, 20)
    one = series(2.0 * near + 0.1 * RNG(19).normal(size=20), rows, x=near)
    other = series(6.0 * far / (2.0 + far) + 0.1 * RNG(20).normal(size=20), rows, x=far)
    model = curve(
        lambda t, u, slope: slope * u["x"],
        bd.NormalNoise(0.1),
        forcings=("x",),
        slope=dist.Normal(0.0, 3.0),
    )
    post = bd.fit(model, one, key=1, progress=False)
    return Judged(post, bd.forecast(model, post, other if forecast else one, key=4), other)


def gap_filled_with_the_last_value() -> Judged:
    """Of a forcing that was not recorded for a fifth of the fit the last value was taken."""
    forcing = template(21)["x"].values
    y = 1.0 + 2.0 * forcing + 0.3 * NORMAL
    forcing[12:19] = np.nan
    data = bd.data.fill_gaps(series(y, x=forcing), x="last")
    return fitted(
        curve(driven, UNKNOWN, forcings=("x",), level=dist.Normal(0, 2), gain=dist.Normal(0, 1)),
        data,
    )


def of_members(y: np.ndarray) -> xr.Dataset:
    return xr.Dataset(
        {"y": (("time", "subject"), y)}, {"time": TIMES, "subject": np.arange(y.shape[1])}
    )


def errors_of_members(seed: int) -> np.ndarray:
    return RNG(seed).normal(size=(TIMES.size, MEMBERS))


def members_of_other_scales() -> Judged:
    """Noise of every other member is twice as large, and one scale is that of all."""
    scales = np.where(np.arange(MEMBERS) % 2, 0.6, 0.3)
    law = Law(lambda t, u, level: level + 0.0 * t, {"level": bd.varying(dist.Normal(3.0, 1.0))})
    model = bd.Model(bd.Each(bd.Algebraic(law), range(MEMBERS)), UNKNOWN)
    levels = 3.0 + RNG(22).normal(size=MEMBERS)
    return fitted(model, of_members(levels + scales * errors_of_members(23)))


def member_that_goes_another_way() -> Judged:
    """One slope is that of all members, and one of them falls while the others rise."""
    numbers = {"level": bd.varying(dist.Normal(0.0, 2.0)), "slope": dist.Normal(0.0, 1.0)}
    model = bd.Model(bd.Each(bd.Algebraic(Law(line, numbers)), range(MEMBERS)), UNKNOWN)
    slopes = np.where(np.arange(MEMBERS) == ODD, -1.0, 1.0)
    y = RNG(24).normal(size=MEMBERS) + slopes * TIMES[:, None] + 0.5 * errors_of_members(25)
    return fitted(model, of_members(y))


def member_far_from_all_others() -> Judged:
    """Members that differ by a fifth around what is typical,
    and one that is twenty times as large.
    """
    numbers = {"size": bd.population(dist.LogNormal(0.0, 0.5), dist.HalfNormal(0.3))}
    law = Law(lambda t, u, size: size + 0.0 * t, numbers)
    model = bd.Model(
        bd.Each(bd.Algebraic(law), range(MEMBERS)), bd.LogNormalNoise(dist.HalfNormal(0.3))
    )
    sizes = np.where(np.arange(MEMBERS) == ODD, 20.0, np.exp(0.2 * RNG(26).normal(size=MEMBERS)))
    return fitted(model, of_members(sizes * np.exp(0.1 * errors_of_members(27))))


HELD_OUT, SCALES = ("held-out data",), "scale of y differs between members"
UNSHOWN = ("inconclusive", *FLAGGED)
FAULTS: dict[str, Fault] = {
    "negatively skewed noise taken for normal": Fault(
        negatively_skewed_noise, ("symmetry of residuals",), says=("skewness is -",)
    ),
    "absolute noise taken for relative": Fault(absolute_noise_taken_for_relative, RESIDUALS),
    "many zeros among counts taken for Poisson": Fault(
        many_zeros_among_counts, ("size of residuals",)
    ),
    "floods of a river that is dry half of the time": Fault(
        floods_of_an_intermittent_river, HELD_OUT, says=("at the highest",)
    ),
    "6 of 16 in 90 % intervals": Fault(lambda: held(6, 16), HELD_OUT, levels=UNSHOWN),
    "12 of 30 in 90 % intervals": Fault(lambda: held(12, 30), HELD_OUT, levels=UNSHOWN),
    "another table than the forecast": Fault(lambda: other_rows(forecast=False), (REFUSED,)),
    "a forecast of another table": Fault(
        lambda: other_rows(forecast=True), HELD_OUT, silent=RESIDUALS
    ),
    "a forcing whose gap was filled": Fault(
        gap_filled_with_the_last_value,
        RESIDUALS,
        says=("first see whether filled values of a forcing explain it",),
    ),
    "members of two scales under one": Fault(
        members_of_other_scales, (SCALES,), silent=("tails of residuals", "symmetry of residuals")
    ),
    "a member that goes another way": Fault(
        member_that_goes_another_way, (*RESIDUALS, SCALES), says=(f"subject {ODD}",)
    ),
    "a member far from all others": Fault(
        member_far_from_all_others, ("prior of", "spread of", "outlying"), silent=RESIDUALS
    ),
}
