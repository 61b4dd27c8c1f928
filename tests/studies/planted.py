"""Faults of sampling and of models, planted one by one, for the study of verdicts."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.inference import AbstractEngine

from . import planted_functions, planted_numbers, planted_observations
from .families import TIMES, UNTIL, Fading, curve, driven, fading, line, template
from .planting import (
    LINE,
    MIXING,
    NORMAL,
    RESIDUALS,
    RNG,
    SLOPED,
    UNKNOWN,
    Fault,
    Judged,
    fitted,
    level,
    series,
    wandering,
)


def constant_for_a_line() -> Judged:
    return fitted(level(dist.Normal(0.0, 5.0)), SLOPED)


def prior_against_data() -> Judged:
    return fitted(level(dist.Normal(0.0, 0.5), bd.NormalNoise(0.5)), series(50.0 + 0.5 * NORMAL))


def minutes_for_hours() -> Judged:
    data = series(5.0 * np.exp(-0.5 * 60 * (TIMES / 60)) + 0.1 * NORMAL).assign_coords(
        time=TIMES / 60
    )
    train, test = bd.split(data, time=UNTIL / 60)
    model = curve(
        fading,
        bd.NormalNoise(0.1),
        amount=dist.LogNormal(1.5, 0.5),
        rate=dist.LogNormal(np.log(0.5), 0.3),
    )
    post = bd.fit(model, train, key=1, progress=False)
    return Judged(post, bd.forecast(model, post, data), test)


def outliers() -> Judged:
    y = SLOPED["y"].values.copy()
    far = RNG(1).choice(TIMES.size, TIMES.size // 5, replace=False)
    y[far] += RNG(2).choice([-1, 1], far.size) * 10.0
    return fitted(curve(line, bd.NormalNoise(dist.HalfNormal(5.0)), **LINE), series(y))


def skewed_noise() -> Judged:
    return fitted(
        curve(line, UNKNOWN, **LINE), series(1.0 + TIMES + RNG(3).exponential(size=TIMES.size) ** 2)
    )


def relative_noise_taken_for_absolute() -> Judged:
    y = np.exp(0.9 * TIMES + 0.5 * NORMAL)
    model = curve(lambda t, u, amount, rate: amount * jnp.exp(rate * t), bd.NormalNoise(dist.HalfNormal(30.0)),
                  amount=dist.LogNormal(0.0, 0.5), rate=dist.Normal(1.0, 0.3))  # fmt: skip
    return fitted(model, series(y))


def noise_known_too_small() -> Judged:
    return fitted(curve(line, bd.NormalNoise(0.25), **LINE), SLOPED)


def poisson_for_bursts() -> Judged:
    model = curve(
        lambda t, u, level: jnp.exp(level + 0.0 * t), bd.PoissonNoise(), level=dist.Normal(3.0, 1.0)
    )
    return fitted(model, series(RNG(4).negative_binomial(2, 2 / (2 + 20), TIMES.size)))


def correlated_residuals() -> Judged:
    return fitted(level(dist.Normal(0.0, 2.0)), series(1.0 + wandering(0.9, 5)))


def missing_forcing() -> Judged:
    at = template(6)
    return fitted(level(dist.Normal(0.0, 2.0)), series(1.0 + 2.0 * at["x"].values + 0.3 * NORMAL))


def wrong_forcing() -> Judged:
    data = series(1.0 + 2.0 * template(6)["x"].values + 0.3 * NORMAL, x=template(7)["x"].values)
    return fitted(
        curve(driven, UNKNOWN, forcings=("x",), level=dist.Normal(0, 2), gain=dist.Normal(0, 1)),
        data,
    )


def season_left_out() -> Judged:
    return fitted(
        curve(line, UNKNOWN, **LINE), series(1.0 + 0.3 * TIMES + np.sin(3 * TIMES) + 0.3 * NORMAL)
    )


def regime_that_changes() -> Judged:
    y = 1.0 + 0.3 * TIMES + 0.5 * NORMAL - np.where(TIMES > UNTIL, 2.0 * (TIMES - UNTIL), 0.0)
    return fitted(curve(line, UNKNOWN, **LINE), series(y))


def half_of_the_intervals() -> Judged:
    """Noise that is 2.44 times as large after the fit: of a normal half lies within 0.67, nine
    tenths within 1.64.
    """
    y = 1.0 + 0.3 * TIMES + np.where(TIMES > UNTIL, 2.44, 1.0) * 0.5 * NORMAL
    return fitted(curve(line, UNKNOWN, **LINE), series(y))


def growth_that_saturates() -> Judged:
    """Growth that is nearly exponential in the data that were fitted, and saturates after them."""
    y = 10.0 / (1 + np.exp(-1.2 * (TIMES - 4.2))) + 0.3 * NORMAL
    model = curve(lambda t, u, amount, rate: amount * jnp.exp(rate * t), UNKNOWN,
                  amount=dist.LogNormal(-2.0, 1.0), rate=dist.Normal(1.0, 0.3))  # fmt: skip
    return fitted(model, series(y))


def polynomial(t, u, numbers):
    return sum(numbers[i] * (t / 4) ** i for i in range(8))


def worse_than_its_science() -> Judged:
    """A correction by a polynomial that the data do not ask for, beside the line alone."""
    wild = curve(polynomial, UNKNOWN, numbers=dist.Normal(0.0, 20.0).expand([8]).to_event(1))
    return fitted(wild, SLOPED, science=curve(line, UNKNOWN, **LINE))


def baseline_that_wins() -> Judged:
    return fitted(curve(lambda t, u, bend: bend * t**2, bd.NormalNoise(0.05), bend=dist.Normal(0.0, 5.0)),
                  series(RNG(8).normal(size=TIMES.size)))  # fmt: skip


def beyond_the_upper_bound() -> Judged:
    y = 5.0 * np.exp(-1.3 * TIMES) + 0.1 * NORMAL
    return fitted(
        curve(
            fading,
            bd.NormalNoise(0.1),
            amount=dist.LogNormal(1.5, 0.5),
            rate=dist.Uniform(0.0, 1.0),
        ),
        series(y),
    )


def below_the_lower_bound() -> Judged:
    truncated: Any = dist.TruncatedNormal(3.0, 1.0, low=2.0)
    return fitted(level(truncated), series(1.0 + 0.5 * NORMAL))


def factors_of_one_rate() -> Judged:
    """Of two factors the data see the product alone."""
    rates = {"one": dist.LogNormal(0.0, 0.5), "other": dist.LogNormal(0.0, 0.5)}
    return fitted(
        curve(
            lambda t, u, one, other: 5.0 * jnp.exp(-one * other * t), bd.NormalNoise(0.1), **rates
        ),
        FADED,
    )


def factors_under_uniform_priors() -> Judged:
    rates = {"one": dist.Uniform(0.0, 10.0), "other": dist.Uniform(0.0, 10.0)}
    return fitted(
        curve(
            lambda t, u, one, other: 5.0 * jnp.exp(-one * other * t), bd.NormalNoise(0.1), **rates
        ),
        FADED,
    )


def step_too_fast_to_see() -> Judged:
    """A delay that is over before the first datum: the data set no upper limit to its rate."""

    def delayed(t, u, rate, delay):
        return 5.0 * jnp.exp(-rate * t) * (1.0 - jnp.exp(-delay * (t + 0.1)))

    rates = {"rate": dist.LogNormal(-0.5, 0.5), "delay": dist.LogUniform(1e-3, 1e5)}
    return fitted(curve(delayed, bd.NormalNoise(0.1), **rates), FADED)


def law_that_does_not_hold() -> Judged:
    model = curve(line, bd.NormalNoise(0.5), **LINE)
    law = {"flat": lambda values, given: jnp.mean(jnp.diff(values["y"])) / 0.001}
    return fitted(bd.Model(model.layer, model.noise, constraints=law), SLOPED)


class Offset(bd.Module):
    value: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.value}


FADED = series(5.0 * np.exp(-0.6 * TIMES) + 0.1 * NORMAL)


def correction_in_place_of_a_parameter() -> Judged:
    field = bd.Residual(Fading(bd.between(0.2, 2.0)), Offset(dist.Normal(0.0, 0.5)), relative=True)
    return fitted(bd.Model(bd.ODE(field, {"y": 5.0}, start=0.0), bd.NormalNoise(0.1)), FADED)


def solver_too_coarse() -> Judged:
    """A tolerance of 0.3, where the noise is 0.05; by an engine that takes no trajectories, which
    would be long.
    """
    field = Fading(bd.between(0.2, 2.0))
    model = bd.Model(bd.ODE(field, {"y": 5.0}, start=0.0, rtol=0.3, atol=0.3), bd.NormalNoise(0.05))
    judged = fitted(
        model,
        series(5.0 * np.exp(-0.6 * TIMES) + 0.05 * NORMAL),
        bd.engines.SVI("laplace", draws=250),
    )
    return judged._replace(post=bd.updating.check_solver(model, judged.post))


class Exploding(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": self.rate * y["y"] ** 2}


def solves_that_fail() -> Judged:
    """The equation ends at t = 1 / rate, for most draws before the forecast does."""
    model = bd.Model(
        bd.ODE(Exploding(bd.between(0.05, 0.3)), {"y": 1.0}, start=0.0, max_steps=256),
        bd.NormalNoise(0.5),
    )
    y = 1 / np.maximum(1 - 0.19 * TIMES, 0.05) + 0.5 * NORMAL
    return fitted(model, series(y).isel(time=TIMES <= 6.0))


def of_a_line(engine: AbstractEngine) -> Callable[[], Judged]:
    return lambda: fitted(curve(line, bd.NormalNoise(0.5), **LINE), SLOPED, engine)


def of_a_network(engine: AbstractEngine) -> Callable[[], Judged]:
    """A wave by a small network, told by few data."""
    network = bd.Network(
        eqx.nn.MLP(1, 1, 8, 1, jnp.tanh, key=jax.random.key(0)), {"t": (3.0, 2.0)}, ("y",), 2.0
    )
    model = bd.Model(bd.Algebraic(network), bd.NormalNoise(0.1))
    return lambda: fitted(model, series(np.sin(2 * TIMES) + 0.1 * NORMAL), engine)


def bent(engine: AbstractEngine) -> Callable[[], Judged]:
    """A posterior along a parabola, of which two numbers are told by their square."""
    model = curve(lambda t, u, one, other: other - 4.0 * one**2 + 0.0 * t, bd.NormalNoise(0.2),
                  one=dist.Normal(0.0, 1.0), other=dist.Normal(0.0, 10.0))  # fmt: skip
    return lambda: fitted(model, series(1.0 + 0.2 * NORMAL), engine)


def two_roots() -> Judged:
    model = curve(
        lambda t, u, root: root**2 + 0.0 * t, bd.NormalNoise(0.1), root=dist.Normal(0.0, 2.0)
    )
    return fitted(model, series(2.25 + 0.1 * NORMAL))


def interchangeable_terms() -> Judged:
    def two(t, u, fast, slow):
        return jnp.exp(-fast * t) + jnp.exp(-slow * t)

    rates = {"fast": dist.LogNormal(0.0, 1.0), "slow": dist.LogNormal(0.0, 1.0)}
    return fitted(
        curve(two, bd.NormalNoise(0.02), **rates),
        series(np.exp(-2 * TIMES) + np.exp(-0.3 * TIMES) + 0.02 * NORMAL),
    )


def few_draws() -> Judged:
    return of_a_line(bd.NUTS(warmup=25, draws=6))()


def short_run() -> Judged:
    return of_a_line(bd.NUTS(warmup=100, draws=30))()


def one_chain() -> Judged:
    return of_a_line(bd.NUTS(chains=1))()


def altered(group: str, change: Callable[[xr.Dataset], xr.Dataset]) -> Callable[[], Judged]:
    """A sound fit of a line of which one group is made to look as after a fault."""

    def make() -> Judged:
        judged = of_a_line(bd.NUTS())()
        for tree in (
            judged.post,
            judged.forecast,
        ):  # a forecast holds the draws that it was made from
            if tree is not None and group in tree.children:
                tree[group] = xr.DataTree(change(tree[group].to_dataset()))
        return judged

    return make


def moved_chain(posterior: xr.Dataset) -> xr.Dataset:
    return posterior.assign(
        level=posterior["level"] + 6 * posterior["level"].std() * (posterior["chain"] == 2)
    )


def frozen(posterior: xr.Dataset) -> xr.Dataset:
    """Every chain stays where it began: its steps were so long that nothing was accepted, or of no
    length.
    """
    return posterior.map(
        lambda v: v.copy(data=np.broadcast_to(v.values[:, :1], v.shape)), keep_attrs=True
    )


def creeping(posterior: xr.Dataset) -> xr.Dataset:
    """Steps far too short: neighbours are all but the same."""
    shape = posterior["level"].shape
    walk = np.cumsum(RNG(9).normal(size=shape), axis=1) / np.sqrt(shape[1])
    return posterior.assign(slope=posterior["slope"].copy(data=1.0 + 0.1 * walk))


def diverging(stats: xr.Dataset) -> xr.Dataset:
    return stats.assign(
        diverging=stats["diverging"].copy(
            data=RNG(10).uniform(size=stats["diverging"].shape) < 0.03
        )
    )


def stiff_energy(stats: xr.Dataset) -> xr.Dataset:
    walk = np.cumsum(RNG(11).normal(size=stats["energy"].shape), axis=1)
    return stats.assign(energy=stats["energy"].copy(data=walk))


SHORT = bd.Descent(steps=1500, patience=None)
SPREAD = "spread of the draws"
FAULTS: dict[str, Fault] = {
    "a constant fitted to a line": Fault(constant_for_a_line, ("order of residuals",)),
    "a prior N(0, 0.5) against data at 50": Fault(prior_against_data, ("prior of",)),
    "minutes taken for hours": Fault(minutes_for_hours, ("prior of",)),
    "a fifth gross outliers under normal noise": Fault(outliers, ("tails of residuals",)),
    "skewed noise taken for normal": Fault(
        skewed_noise, ("tails of residuals", "symmetry of residuals")
    ),
    "relative noise taken for absolute": Fault(relative_noise_taken_for_absolute, RESIDUALS),
    "noise known to be half of what it is": Fault(noise_known_too_small, ("size of residuals",)),
    "bursts of counts taken for Poisson": Fault(poisson_for_bursts, ("size of residuals",)),
    "correlated residuals": Fault(correlated_residuals, ("order of residuals",)),
    "a forcing left out": Fault(missing_forcing, ("order of residuals",)),
    "another forcing": Fault(wrong_forcing, ("order of residuals", "held-out data")),
    "a season left out": Fault(season_left_out, ("order of residuals",)),
    "a regime that changes after the fit": Fault(regime_that_changes, ("held-out data",)),
    "growth that saturates after the fit": Fault(growth_that_saturates, ("held-out data",)),
    "a forecast that covers half at 90 %": Fault(half_of_the_intervals, ("held-out data",)),
    "a hybrid that loses to its science": Fault(worse_than_its_science, ("against science",)),
    "a baseline that wins": Fault(
        baseline_that_wins, ("against climatology", "against persistence")
    ),
    "a truth above a chosen bound": Fault(beyond_the_upper_bound, ("upper bound of rate",)),
    "a truth below a chosen bound": Fault(below_the_lower_bound, ("lower bound of level",)),
    "two factors of one rate": Fault(factors_of_one_rate, ("identifiability of one and other",)),
    "two factors under uniform priors": Fault(
        factors_under_uniform_priors, ("identifiability of one and other",)
    ),
    "a step too fast to see": Fault(step_too_fast_to_see, ("identifiability of delay",)),
    "a law that does not hold": Fault(law_that_does_not_hold, ("constraint flat", *RESIDUALS)),
    "a correction in place of a parameter": Fault(
        correction_in_place_of_a_parameter, ("confounding",)
    ),
    "a solver that is too coarse": Fault(solver_too_coarse, ("solver accuracy",)),
    "solves that fail": Fault(solves_that_fail, ("solver failures",)),
    "SWAG on a line": Fault(of_a_line(bd.engines.SWAG(descent=SHORT)), (SPREAD,)),
    "members that are anchored only": Fault(
        of_a_line(bd.DeepEnsemble(bootstrap=False, descent=SHORT)), (SPREAD,)
    ),
    "members told apart by their starts": Fault(
        of_a_line(bd.DeepEnsemble(anchored=False, bootstrap=False, descent=SHORT)), (SPREAD,)
    ),
    "Laplace of the last layer": Fault(
        of_a_network(bd.engines.Laplace("last", descent=SHORT)), (SPREAD,)
    ),
    "dropout": Fault(of_a_network(bd.engines.MCDropout(descent=SHORT)), (SPREAD, "point estimate")),
    "a point for a posterior": Fault(of_a_line(bd.Joint(descent=SHORT)), ("point estimate",)),
    "Laplace of a bent posterior": Fault(bent(bd.engines.Laplace(descent=SHORT)), (SPREAD,)),
    "a diagonal guide of a bent posterior": Fault(
        bent(bd.engines.SVI("mean_field")), ("variational guide",)
    ),
    "chains in two roots": Fault(two_roots, ("modes",)),
    "terms that can change places": Fault(interchangeable_terms, ("modes", *MIXING)),
    "six draws": Fault(few_draws, MIXING),
    "thirty draws a chain": Fault(short_run, MIXING),
    "one chain": Fault(one_chain, ("single chain",)),
    "a chain elsewhere": Fault(altered("posterior", moved_chain), MIXING),
    "chains that never move": Fault(altered("posterior", frozen), MIXING),
    "steps far too short": Fault(altered("posterior", creeping), MIXING),
    "divergences in three of a hundred draws": Fault(
        altered("sample_stats", diverging), ("divergences",)
    ),
    "an energy that hardly changes": Fault(altered("sample_stats", stiff_energy), ("BFMI",)),
}
FAULTS |= planted_observations.FAULTS | planted_numbers.FAULTS | planted_functions.FAULTS
