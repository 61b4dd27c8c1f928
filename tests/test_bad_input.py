"""Bad input gets a clear error before anything is compiled: the table, and the counter that it is
held to.
"""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import diffrax
import equinox as eqx
import jax
import jax.monitoring
import jax.numpy as jnp
import jaxtyping
import numpy as np
import numpyro.distributions as dist
import pandas as pd
import pytest
import xarray as xr

import bayes_dasl as bd
from bayes_dasl.errors import BayesDaslError, DataError, MismatchError, ModelError, ReadError
from bayes_dasl.inference import AbstractEngine, Finding, Samples
from bayes_dasl.noise import AbstractNoise
from bayes_dasl.prediction import draws_dataset, signature

ENGINE = bd.NUTS(chains=1, warmup=50, draws=1)
SHARED = dist.LogNormal(-1.0, 0.5)
COMPILED = "/jax/core/compile/backend_compile_duration"
# What JAX compiles to convert or join single constants while it traces, and to split keys: nothing
# of a model.
TRIFLES = {
    "jit(stage)", "jit(convert_element_type)", "jit(broadcast_in_dim)", "jit(bitwise_or)",
    "jit(_threefry_seed)", "jit(_threefry_split)", "jit(unstack)",
}  # fmt: skip


class Decay(bd.Module):
    r"""$\dot y = -k\,y$."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


class Resting(bd.Module):
    rest: bd.SteadyState
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * self.rest(t, y, u)["y"]}


def resting_members() -> bd.Model:
    one = bd.ODE(Resting(at_rest(), bd.varying(dist.LogNormal(0.0, 1.0))), {"y": 1.0})
    return bd.Model(bd.Each(one, [1.0, 2.0]), bd.NormalNoise(0.1))


def data_of_members() -> xr.Dataset:
    return data()[["y"]].expand_dims(subject=[1.0, 2.0], axis=1)


def at_rest(rate=1.0) -> bd.SteadyState:
    return bd.SteadyState(Decay(rate), {"y": 1.0})


class Unchecked(eqx.Module):
    """The same without `bd.Module`, so that nothing looks at its shapes when it is built."""

    rate: Any

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


class PlainNoise(AbstractNoise):
    """Noise whose scale is not declared to be one number."""

    spread: Any

    def __call__(self, prediction):
        return dist.Normal(prediction, self.spread)


class Odd(AbstractNoise):
    """Noise that is whatever a function says."""

    of: Any = eqx.field(static=True)
    scale: bd.Scalar = dist.HalfNormal(1.0)

    def __call__(self, prediction):
        return self.of(prediction)


class WithoutMean(dist.Laplace):
    """A distribution that nobody wrote a mean for."""

    @property
    def mean(self):
        raise NotImplementedError


class WithoutDraws(AbstractEngine):
    """An engine that does not say how much it draws."""

    def run(self, problem, *, key, journal, bar):
        raise AssertionError("never run")


def data() -> xr.Dataset:
    times = np.arange(6.0)
    dataset = xr.Dataset(
        {"y": ("time", 2.0 * np.exp(-0.5 * times)), "u": ("time", np.ones(6))}, {"time": times}
    )
    dataset["y"].attrs["units"] = "mg/L"
    return dataset


def model(field=None, noise=None, initial=None, of=bd.ODE, **options) -> bd.Model:
    field = Decay(dist.LogNormal(-1.0, 0.5)) if field is None else field
    layer = of(field, initial={"y": 2.0} if initial is None else initial, **options)
    return bd.Model(layer, bd.NormalNoise(0.1) if noise is None else noise)


def series(name: str, values: Any, **attrs: Any) -> xr.Dataset:
    """The data with other values of one variable, and other attributes."""
    changed = data()
    changed[name] = ("time", np.asarray(values), changed[name].attrs | attrs)
    return changed


def later(values: Any) -> xr.Dataset:
    """More data after the others."""
    return xr.Dataset({"y": ("time", values)}, {"time": 6.0 + np.arange(len(values))})


def at_times(values: Any) -> xr.Dataset:
    return data().assign_coords(time=np.asarray(values))


def at_times_of(index: pd.Index) -> xr.Dataset:
    """The data along an index of pandas, which is no array."""
    return data().assign_coords(time=index)


def shot(knots: tuple[float, ...]) -> bd.Model:
    segments = {"y": dist.LogNormal(np.zeros(len(knots)), 1.0)}
    return bd.Model(
        bd.equations.MultipleShooting(model().layer, knots, segments, gap=0.1), bd.NormalNoise(0.1)
    )


def two_observables() -> bd.Model:
    noise = bd.NormalNoise(SHARED)
    layer = bd.Algebraic(lambda t, y, u: {"a": t, "b": -t})
    return bd.Model(layer, {"a": noise, "b": noise})


def three() -> dist.Distribution:
    """A distribution of the wrong shape."""
    return dist.LogNormal(np.zeros(3), 1.0)


def posterior(of: bd.Model) -> xr.DataTree:
    """What `bd.fit` would return, as far as a forecast looks at it, without any compilation."""
    known = data()[[]]
    known.attrs["start"] = 0.0
    draws = {"layer.vector_field.rate": np.full((1, 4), 0.5)}
    groups = {
        "posterior": draws_dataset(of, draws),
        "observed_data": data()[["y"]],
        "constant_data": known,
    }
    tree = xr.DataTree.from_dict(groups)
    tree.attrs["signature"] = signature(of)
    return tree


def wrong_rates(t, y, u):
    return {"x": y["y"]}


def typing_error(t, y, u):
    return {"y": y["z"]}


class Row(NamedTuple):
    """`broken` returns (model, data) to fit, the arguments of a forecast, another call, or builds
    something itself.
    """

    name: str
    stage: str
    broken: Callable[[], Any]
    error: type[BayesDaslError]
    message: str


def fitted(name: str, broken: Callable[[], Any], error: type[BayesDaslError], message: str) -> Row:
    return Row(name, "fit", broken, error, message)


def built(name: str, broken: Callable[[], Any], error: type[BayesDaslError], message: str) -> Row:
    return Row(name, "build", broken, error, message)


def foretold(
    name: str, broken: Callable[[], Any], error: type[BayesDaslError], message: str
) -> Row:
    return Row(name, "forecast", broken, error, message)


def updated(
    name: str,
    new: Callable[[], xr.Dataset],
    error: type[BayesDaslError],
    message: str,
    **options: Any,
) -> Row:
    return Row(
        name,
        "call",
        lambda: partial(bd.update, model(), posterior(model()), new(), **options),
        error,
        message,
    )


def checked(name: str, error: type[BayesDaslError], message: str, **options: Any) -> Row:
    return Row(
        name,
        "call",
        lambda: partial(bd.updating.check_solver, model(), posterior(model()), **options),
        error,
        message,
    )


TABLE = [
    # times
    fitted("times unsorted", lambda: (model(), data().isel(time=[0, 2, 1, 3])), DataError,
           r"time must increase: time\[2\]=1.0 is not after time\[1\]=2.0"),
    fitted("replicates of a chain of rows",
           lambda: (model(of=bd.filtering.Kalman, diffusion={"y": 0.1}, initial_sd={}), data().isel(time=[0, 1, 1, 2])),
           DataError,
           "time 1 has several rows, but Kalman goes from each row to the next: give it one row"),
    fitted("forcing that differs between replicates",
           lambda: (model(forcings=("u",)), series("u", [1, 1, 2, 1, 1, 1]).assign_coords(time=[0, 1, 1, 2, 3, 4])),
           DataError, "forcing 'u' has two values at time 1: rows of one time are replicates"),
    fitted("time not finite", lambda: (model(), at_times([0, 1, np.nan, 3, 4, 5])),
           DataError, r"time\[2\] is not finite"),
    fitted("time infinite", lambda: (model(), at_times([0, 1, 2, 3, 4, np.inf])),
           DataError, r"time\[5\] is not finite"),
    fitted("times dates", lambda: (model(), at_times(np.datetime64("2020-01-01", "ns") + np.arange(6))), DataError,
           r"the dates of time are not whole days, so say in which unit of time .* units=\{'time': "
           r"'h'\} in the layer"),
    fitted("times text", lambda: (model(), at_times([f"day {i}" for i in range(6)])),
           DataError, "time must be numbers"),
    fitted("no time", lambda: (model(), data().drop_vars("time")), DataError, "need a 1-D "
        "coordinate 'time'"),
    fitted("no data", lambda: (model(), data().isel(time=[])), DataError, "hold no time at all"),
    fitted("data not a dataset", lambda: (model(), data()["y"]),
           DataError, "must be an xarray.Dataset .* not DataArray"),
    fitted("a dose before the data", lambda: (model(jumps=bd.Jump(-1.0, {"y": 1.0})), data()), ModelError,
           "a jump at -1 would never act, since the solve starts at 0: the first time of the "
           "data.*start=-1"),
    fitted("the first of some doses before the start",
           lambda: (model(start=-1.0, jumps=bd.Jump([-2.0, 1.0], {"y": 1.0})), data()), ModelError,
           "a jump at -2 would never act, since the solve starts at -1"),
    fitted("a knot after the data", lambda: (shot(knots=(2.0, 6.0)), data()), ModelError,
           "the knot at 6 lies after the data, which end at 5"),
    fitted("data before the start", lambda: (model(start=1.0), data()),
           DataError, r"before the start of the model at 1"),
    # observables
    fitted("observable all missing", lambda: (model(), series("y", np.full(6, np.nan))), DataError,
           "'y' has no value at all"),
    fitted("observable unknown", lambda: (model(), data().rename(y="z")), DataError,
           "observable 'y' is not in the data; they hold u, z"),
    fitted("datum infinite", lambda: (model(), series("y", [1, 2, np.inf, 4, 5, 6])), DataError,
           "'y' is infinite at time 2; a missing value is NaN"),
    fitted("a fill value", lambda: (model(), series("y", [1, 2, 1e20, 4, 5, 6])), DataError,
           r"observable 'y' is 1e\+20 at time 2, and at most 6 elsewhere: this seems to be a fill "
           r"value"),
    fitted("fill values below zero", lambda: (model(), series("y", [1, 2, -9.96e36, 4, -9.96e36, 6])), DataError,
           r"'y' is -9.96e\+36 at time 2, and at most 6 elsewhere"),
    fitted("a fill value of a forcing", lambda: (model(forcings=("u",)), series("u", [1, 1, 1, 1e20, 1, 1])),
           DataError, r"forcing 'u' is 1e\+20 at time 3"),
    fitted("counts in other units",
           lambda: (model(noise=bd.PoissonNoise()), series("y", 1e15 * np.array([10, 20, 15, 12, 8, 5]))),
           DataError, r"counts up to 2e\+16, which .* no longer tell apart: are they in other "
               r"units"),
    fitted("times periods", lambda: (model(), at_times_of(pd.period_range("2020-01", periods=6, freq="M"))), DataError,
           r"not periods: take their begin, by "
           r"data.assign_coords\(time=data.indexes\['time'\].to_timestamp\(\)\)"),
    fitted("times of a zone", lambda: (model(), at_times_of(pd.date_range("2020-01-01", periods=6, tz="Asia/Tokyo"))),
           DataError, r"not times of a zone: take UTC, by "
               r".*tz_convert\('UTC'\).tz_localize\(None\)\)"),
    fitted("datum zero, log-normal", lambda: (model(noise=bd.LogNormalNoise(0.1)), series("y", [1.0, 2, 3, 0, 5, 6])),
           DataError, "'y' is .* at time 3, which LogNormalNoise rules out: its data are greater "
               "than 0"),
    fitted("datum negative, log-normal",
           lambda: (model(noise=bd.LogNormalNoise(0.1)), series("y", [1, np.nan, 3, 4, -5, 6])),
           DataError, "'y' is .* at time 4, which LogNormalNoise rules out"),
    fitted("counts broken, Poisson", lambda: (model(noise=bd.PoissonNoise()), series("y", [1, 2, 2.5, 3, 4, 5])),
           DataError, r"'y' is 2\.5 at time 2, which PoissonNoise rules out: its data are whole "
               r"numbers, at least 0"),
    fitted("counts broken in the tenth digit, Poisson",
           lambda: (model(noise=bd.PoissonNoise()), series("y", [1, 2, 3 + 1e-9, 3, 4, 5])),
           DataError, r"'y' is 3\.000000001 at time 2, which PoissonNoise rules out"),
    fitted("counts negative, Poisson", lambda: (model(noise=bd.PoissonNoise()), series("y", [1, 2, -1, 3, 4, 5])),
           DataError, "'y' is .* rules out: its data are whole numbers, at least 0"),
    fitted("counts broken, negative binomial",
           lambda: (model(noise=bd.NegativeBinomialNoise(2.0)), series("y", [1, 2, 2.5, 3, 4, 5])),
           DataError, "'y' is .* rules out: its data are whole numbers, at least 0"),
    fitted("observable of two dimensions", lambda: (model(), data()[["y"]].expand_dims(site=2)), DataError,
           "'y' must have the one dimension time"),
    fitted("observable text", lambda: (model(), series("y", list("abcdef"))), DataError, "'y' must "
        "hold numbers"),
    # forcings
    fitted("forcing unknown", lambda: (model(forcings=("rain",)), data()), DataError,
           "forcing 'rain' is not in the data; they hold u, y"),
    fitted("forcing with a gap", lambda: (model(forcings=("u",)), series("u", [1, 1, np.nan, 1, 1, 1])), DataError,
           "forcing 'u' is missing or not finite at time 2"),
    fitted("forcing infinite", lambda: (model(forcings=("u",)), series("u", [1, 1, 1, np.inf, 1, 1])), DataError,
           "forcing 'u' is missing or not finite at time 3"),
    # units
    fitted("units other", lambda: (model(units={"y": "mol/L"}), data()), DataError,
           "'y' is in 'mg/L' but the model works in 'mol/L'"),
    fitted("units not a text", lambda: (model(), series("y", np.ones(6), units=3)), DataError,
           "units of 'y' must be text such as 'mg/L', not 3"),
    fitted("units of a forcing",
           lambda: (model(forcings=("u",), units={"u": "mm"}), series("u", np.ones(6), units="s")),
           DataError, "'u' is in 's' but the model works in 'mm'"),
    fitted("units of a name that is nowhere", lambda: (model(units={"Y": "mg/L"}), data()), ModelError,
           "units are given of 'Y', which ODE does not have: it has y, time"),
    # models
    fitted("model not a model", lambda: (Decay(dist.LogNormal(0.0, 1.0)), data()), ModelError,
           "model must be a bd.Model, not Decay"),
    fitted("nothing random", lambda: (model(Decay(0.5)), data()), ModelError, "nothing in the "
        "model is random"),
    fitted("wrong shape in a plain module", lambda: (model(Unchecked(three())), data()), ModelError,
           r"cannot be evaluated.*look at .*layer.vector_field.rate \(3,\)"),
    fitted("wrong shape in plain noise", lambda: (model(noise=PlainNoise(three())), data()), ModelError,
           r"noise.spread \(3,\)"),
    fitted("wrong shape in an observed state",
           lambda: (model(initial={"y": three()}, observe=lambda t, y, u: {"y": y["y"]}), data()), ModelError,
           r"'y' the shape \(6, 3\), but one number for each time is needed: "
           r"\(6,\).*layer.initial.y \(3,\)"),
    fitted("rates of another state", lambda: (model(wrong_rates, bd.NormalNoise(dist.HalfNormal(1.0))), data()),
           ModelError,
           "returns rates for x but the states are y"),
    fitted("no rates", lambda: (model(lambda t, y, u: None, bd.NormalNoise(dist.HalfNormal(1.0))), data()),
           ModelError,
           "the vector field must return a dict of rates by state, not NoneType"),
    fitted("error in the equation", lambda: (model(typing_error, bd.NormalNoise(dist.HalfNormal(1.0))), data()),
           ModelError,
           "cannot be evaluated: KeyError: 'z': if equations look that up among states or "
           "forcings, it is none"),
    fitted("a function of NumPy in the equation",
           lambda: (model(lambda t, y, u: {"y": -np.exp(y["y"])}, bd.NormalNoise(dist.HalfNormal(1.0))), data()),
           ModelError, "write equations with jax.numpy, such as jnp.exp"),
    fitted("an equation that decides by a value",
           lambda: (model(lambda t, y, u: {"y": y["y"] if y["y"] > 1 else 0.0}, bd.NormalNoise(dist.HalfNormal(1.0))),
                    data()),
           ModelError, "jnp.where"),
    fitted("process noise that ends before the data", lambda: (
        bd.Model(bd.ODE(lambda t, y, u: {"x": -y["x"]}, {"x": 1.0},
                        process_noise=bd.layers.ProcessNoise({"x": dist.HalfNormal(0.1)}, (0.0, 0.5, 2))),
                 bd.NormalNoise(0.1)), data()),
           DataError, "lies beyond the grid of the process noise, which ends at 0.5"),
    fitted("a layer called in an equation", lambda: (model(Resting(at_rest(), dist.LogNormal(0.0, 1.0))), data()),
           ModelError, r"SteadyState is a layer, and cannot be called in an equation; "
               r".*bd\.layers\.find_root\("),
    fitted("a layer called in an equation of each member", lambda: (resting_members(), data_of_members()), ModelError,
           r"SteadyState is a layer, and cannot be called in an equation; "
           r".*bd\.layers\.find_root\("),
    fitted("a layer in place of an equation", lambda: (model(at_rest(dist.LogNormal(0.0, 1.0))), data()), ModelError,
           "SteadyState is a layer, and cannot be called in an equation"),
    fitted("noise that returns no distribution", lambda: (model(noise=Odd(lambda z: z)), data()), ModelError,
           "the noise of 'y' must return a distribution of NumPyro when called, not"),
    fitted("noise without a mean", lambda: (model(noise=Odd(WithoutMean)), data()), ModelError,
           "the noise of 'y' is a WithoutMean, which has no mean: write one"),
    Row("engine without a number of draws", "call", lambda: partial(bd.fit, model(), data(), WithoutDraws()),
        ModelError, "WithoutDraws needs a field `draws`"),
    # what is refused when it is built
    built("units that are no dict", lambda: model(units="g"), ModelError, "units, .* are dicts by "
        "name, .* not 'g'"),
    built("a pair for a number", lambda: Decay((0.1, 1.0)), ModelError,
          r"not \(0.1, 1.0\): between two limits it is bd.between\(0.1, 1\)"),
    built("a class for a number", lambda: Decay(dist.LogNormal), ModelError, "not the class "
        "LogNormal: call it"),
    built("a network for a number", lambda: Decay(bd.Network(eqx.nn.Identity(), ("y",), ("z",))), ModelError,
          "Decay.rate must be a number .* not a Network$"),
    built("a network without names",
          lambda: bd.Residual(Decay(0.5), eqx.nn.Identity()), ModelError,
          r"closure .* Identity knows no names, .* put bd.Network\(module, inputs, outputs\) "
          r"around it"),
    built("draws of two dimensions", lambda: Samples(np.zeros((4, 2)), {}), ModelError,
          r"positions of Samples are \(chain, draw, dimension\), not an array of shape \(4, 2\)"),
    built("a statistic that is not of draws", lambda: Samples(np.zeros((1, 4, 2)), {"lp": np.zeros(4)}), ModelError,
          r"one number for each draw, \(1, 4\): 'lp' is \(4,\)"),
    built("a level that is none", lambda: Finding("fine", "steps", "few"), ModelError,
          "the level of a Finding must be one of good, inconclusive, warning, bad, not .fine."),
    built("wrong shape in a Scalar", lambda: Decay(three()), ModelError,
          r"Decay.rate must be a distribution over one number, but this LogNormal has shape "
          r"\(3,\)"),
    built("text in a Scalar", lambda: Decay("fast"), ModelError, "Decay.rate must be a number .* "
        "not 'fast'"),
    built("no number in a Scalar", lambda: Decay(float("nan")), ModelError, "Decay.rate must be a "
        "number .* not nan"),
    built("a truth value in a Scalar", lambda: Decay(True), ModelError, "Decay.rate must be a "
        "number .* not True"),
    built("a complex number in a Scalar", lambda: Decay(1j), ModelError, "Decay.rate must be a "
        "number .* not 1j"),
    built("array in a Scalar", lambda: Decay(np.ones(2)), ModelError, r"Decay.rate must be .* "
        r"array of shape \(2,\)"),
    built("wrong shape in the initial state", lambda: model(initial={"y": three()}), ModelError,
          r"initial\['y'\] must be a distribution over one number"),
    built("wrong shape in the noise", lambda: bd.NormalNoise(three()),
          ModelError, "NormalNoise.scale must be a distribution"),
    built("noise for what is not predicted", lambda: model(noise={"z": bd.NormalNoise(0.1)}), ModelError,
          "observable 'z' is not an output of the model; its outputs are y"),
    built("noise that is none", lambda: model(noise=0.1), ModelError, "noise must be a noise "
        "model"),
    built("layer that is none", lambda: bd.Model(Decay(0.5), bd.NormalNoise(0.1)), ModelError,
          "layer must be a layer such as bd.ODE, not Decay"),
    built("discrete prior", lambda: model(Decay(dist.Poisson(2.0))), ModelError,
          "'layer.vector_field.rate' has the discrete distribution Poisson"),
    built("a known number as a distribution", lambda: model(Decay(dist.Delta(0.5))), ModelError,
          "'layer.vector_field.rate' has the distribution Delta, which is a known number: write "
          "the number itself"),
    built("masked prior", lambda: model(Decay(dist.LogNormal(0.0, 1.0).mask(False))), ModelError,
          "'layer.vector_field.rate' has a masked distribution"),
    built("improper prior", lambda: model(Decay(dist.ImproperUniform(dist.constraints.positive, (), ()))), ModelError,
          "'layer.vector_field.rate' has the distribution ImproperUniform, which cannot be drawn "
          "from"),
    built("prior reversed", lambda: model(Decay(dist.Uniform(2.0, 1.0))), ModelError,
          "'layer.vector_field.rate' has the distribution Uniform from 2 to 1: the latter must be "
          "larger"),
    built("noise scale that may be negative", lambda: bd.NormalNoise(dist.Normal(0.0, 1.0)), ModelError,
          r"NormalNoise.scale must be positive, .*not Normal\(0, 1\), which may be negative"),
    built("a noise scale that is no number", lambda: bd.NormalNoise(np.nan), ModelError,
          "scale must be .*number"),
    built("noise scale that is negative", lambda: bd.LogNormalNoise(-0.1), ModelError,
          "LogNormalNoise.scale must be positive"),
    built("degrees of freedom that may be negative", lambda: bd.StudentTNoise(0.1, dist.Cauchy()), ModelError,
          "StudentTNoise.df must be positive"),
    built("typical scale that may be negative", lambda: bd.noise.VaryingScale(dist.Normal(), wrong_rates), ModelError,
          "VaryingScale.typical must be positive"),
    built("concentration that is zero", lambda: bd.NegativeBinomialNoise(0.0), ModelError,
          "NegativeBinomialNoise.concentration must be positive"),
    built("start that is random", lambda: model(start=dist.Normal(0.0, 1.0)), ModelError,
          "start must be a known number, the time of the initial states, not"),
    built("one prior in two places", lambda: model(Decay(SHARED), initial={"y": SHARED}), ModelError,
          "'layer.vector_field.rate' and 'layer.initial.y' are one distribution object, of which "
          "two separate"),
    built("one noise for two observables", two_observables, ModelError,
          r"'noise.a' and 'noise.b' are one NormalNoise object.*one noise for all observables is "
          r"bd.Model"),
    built("vector field that is none", lambda: model(3.0), ModelError, "vector_field must be "
        "callable"),
    built("vector field that is random", lambda: model(dist.Normal(0.0, 1.0)), ModelError,
          "vector_field must be callable"),
    built("observe that asks for a state that is none",
          lambda: model(observe=lambda t, y, u: {"y": y["z"]}), ModelError,
          r"observe cannot be evaluated with the states y and the forcings \(none\): KeyError: "
          r"'z'"),
    built("observe that is none", lambda: model(observe={"z": 1}), ModelError, "observe must be a "
        "function"),
    built("forcings that are no names", lambda: model(forcings=5), ModelError, "give the names of "
        "forcings"),
    built("jumps that are none", lambda: model(jumps=5), ModelError, r"jumps must be "
        r"bd.Jump\(time, change\)"),
    built("jump of another shape", lambda: model(jumps=bd.Jump(1.0, {"y": [1.0, 2.0]})), ModelError,
          r"an amount of 'y' in a jump has the shape \(2,\), but the state has \(\)"),
    built("solver of fixed steps", lambda: model(solver=diffrax.Euler()), ModelError,
          "Euler does not choose its steps for one vector field"),
    built("tolerance that is no number", lambda: model(rtol=np.nan), ModelError, "rtol and atol "
        "must be positive"),
    built("steps that are not whole", lambda: model(max_steps=10.5), ModelError, "max_steps at "
        "least 1, whole"),
    built("no state", lambda: model(initial={}), ModelError, "initial must be a dict"),
    built("solver unknown", lambda: model(solver="euler5"), ModelError,
          "unknown solver 'euler5'.*tsit5.*for stiff equations"),
    built("tolerance zero", lambda: model(rtol=0.0), ModelError, "rtol and atol must be positive"),
    built("range reversed", lambda: bd.between(2.0, 1.0), ModelError, "low must be less than high"),
    built("no draws", lambda: bd.NUTS(draws=0),
          ModelError, r"NUTS\(draws=0\): draws must be a whole number, at least 1"),
    built("half a draw", lambda: bd.NUTS(draws=1.5), ModelError, "draws must be a whole number"),
    built("no chains", lambda: bd.NUTS(chains=0), ModelError, "chains must be a whole number, at "
        "least 1"),
    built("one climb", lambda: bd.NUTS(map_starts=1), ModelError, "map_starts must be a whole number, at "
        "least 2"),
    built("warm-up too short", lambda: bd.NUTS(warmup=10), ModelError,
          r"NUTS\(warmup=10\): warmup must be a whole number, at least 25"),
    built("gradient unknown", lambda: bd.NUTS(gradient="backward"), ModelError,
          r"NUTS\(gradient='backward'\): gradient must be one of auto, forward, reverse"),
    built("start unknown", lambda: bd.NUTS(start="prior"), ModelError,
          r"NUTS\(start='prior'\): start must be one of modes, pathfinder, or an engine such as"),
    built("tree without depth", lambda: bd.NUTS(max_tree_depth=0), ModelError, "max_tree_depth "
        "must be"),
    built("acceptance of one", lambda: bd.NUTS(target_acceptance=1.0), ModelError,
          r"NUTS\(target_acceptance=1\.0\): target_acceptance must lie between 0 and 1"),
    built("method unknown", lambda: bd.engines.ManyChain("nuts"), ModelError, "method='nuts'.*the "
        "methods are chees, meads"),
    built("superchains uneven", lambda: bd.engines.ManyChain(chains=100), ModelError,
          "100 chains do not make 16 superchains of equal size: take chains=112"),
    built("warm-up of many chains too short", lambda: bd.engines.ManyChain(warmup=10), ModelError,
          r"ManyChain\(warmup=10\): warmup must be a whole number, at least 48"),
    built("microcanonical in one dimension", lambda: bd.fit(model(), data(), bd.engines.ManyChain("mclmc")), ModelError,
          "at least 2 dimensions, not 1: take method='chees'"),
    built("guide unknown", lambda: bd.engines.SVI("normal"), ModelError, "guide must be one of "
        "laplace, mean_field"),
    built("guide too simple", lambda: bd.fit(model(), data(), bd.engines.SVI("flow")), ModelError,
          "two dimensions or more: take guide='full_rank'"),
    built("learning rate of zero", lambda: bd.engines.SVI(learning_rate=0.0), ModelError, "must "
        "lie between 0 and 1"),
    built("half a step", lambda: bd.engines.SVI(steps=1e3), ModelError, r"steps must be a whole "
        r"number, at least 100"),
    built("moves unknown", lambda: bd.engines.SMC(moves="nuts"), ModelError, "moves must be one of "
        "auto, walk"),
    built("few particles", lambda: bd.engines.SMC(particles=5), ModelError, "particles must be a "
        "whole number, at least 10"),
    built("effective sample size of all", lambda: bd.engines.SMC(target_ess=1.0), ModelError, "must lie between 0 and 1"),
    built("engine a class", lambda: bd.fit(model(), data(), bd.NUTS), ModelError,
          r"engine must be an engine such as bd.NUTS\(\), not <class"),
    built("engine a name", lambda: bd.fit(model(), data(), "nuts"), ModelError, "engine must be an "
        "engine such as"),
    built("device unknown", lambda: bd.fit(model(), data(), ENGINE, device="cuda"), ModelError,
          "there is no device 'cuda': give 'auto' or one of .*cpu"),
    built("checkpoint in a folder of other things",
          lambda: bd.fit(model(), data(), ENGINE, checkpoint=Path(__file__).parent), ReadError,
          "is not empty and holds no checkpoint.*choose another folder"),
    built("resume without a checkpoint", lambda: bd.resume(model(), data(), "nowhere"), ReadError,
          "nowhere holds no checkpoint.*make one with bd.fit"),
    built("key of text", lambda: bd.fit(model(), data(), ENGINE, key="seven"), ModelError,
          "key must be a whole number or a jax.random.key, not 'seven'"),
    built("key broken", lambda: bd.fit(model(), data(), ENGINE, key=1.5), ModelError, "key must be "
        "a whole number"),
    built("split before all data", lambda: bd.split(data(), time=-1.0), DataError,
          "split at -1 leaves one side empty: the data run from 0 to 5"),
    built("split after all data", lambda: bd.split(data(), time=5.0), DataError, "split at 5 "
        "leaves one side empty"),
    built("study with an empty side", lambda: bd.Study("s", model(), data(), split=9.0),
          DataError, "leaves one side empty"),
    built("study with two of a name", lambda: bd.Study("s", model(), data(), 3.0, competitors={"model": model()}),
          ModelError,
          "two models are named 'model'"),
    built("study with a baseline's name", lambda: bd.Study("s", model(), data(), 3.0, competitors={"persistence": model()}),
          ModelError, "'persistence' is the name of a baseline"),
    built("study with no origins", lambda: bd.Study("s", model(), data(), 3.0, origins=0),
          DataError, "origins and horizon are whole numbers from 1 on, not 0 and None: .* say "
              "mix=False"),
    # updates, and the check of the solver
    updated("update with nothing new", lambda: later([np.nan]), DataError,
            "the new data hold no value of y: there is nothing to update by"),
    updated("update with other observables", lambda: later([1.0]).rename(y="z"), DataError,
            "the new data hold no value of y"),
    updated("update with a datum that is known", data, DataError, "the posterior knows 'y' at time "
        "0 already"),
    updated("update without log likelihoods", lambda: later([1.0]), MismatchError, "no group "
        "'log_likelihood'"),
    updated("update by a class", lambda: later([1.0]), ModelError, "engine must be an engine such as", engine=bd.NUTS),
    checked("solver checked by few draws", ModelError, "draws must be at least 25 and factor more than 1", draws=24),
    checked("solver checked by half a draw", ModelError, "draws must be at least 25", draws=1.5),
    checked("solver checked by a coarser one", ModelError, "factor more than 1, not 200 and 0.1", factor=0.1),
    checked("solver checked without log likelihoods", MismatchError, "no group 'log_likelihood'"),
    # forecasts
    foretold("posterior of another model",
             lambda: (model(noise=bd.NormalNoise(dist.HalfNormal(1.0))), posterior(model()), data()), MismatchError,
             "another model: only the model has noise.scale"),
    foretold("posterior of a like-named model",
             lambda: (model(Unchecked(dist.HalfNormal(1.0))), posterior(model()), data()),
             MismatchError, "layer.vector_field.rate is .*Decay.* in the posterior and "
                 ".*Unchecked.* in the model"),
    foretold("no posterior", lambda: (model(), xr.DataTree(), data()), MismatchError, "has no "
        "group 'posterior'"),
    foretold("a forecast as posterior",
             lambda: (model(), posterior(model()).filter(lambda n: n.name != "observed_data"), data()), MismatchError,
             "has no group 'observed_data'; give the result of bd.fit"),
    foretold("forecast before the start", lambda: (model(), posterior(model()), [-1.0, 2.0]), DataError,
             "cannot go back before the start of the model: -1 < 0"),
    foretold("forecast times unsorted", lambda: (model(), posterior(model()), np.array([2.0, 1.0])), DataError,
             "time must increase"),
    foretold("forecast times of two dimensions", lambda: (model(), posterior(model()), np.ones((2, 2))), DataError,
             "times must be a 1-D array"),
    foretold("forecast dates",
             lambda: (model(), posterior(model()), np.array(["2020-01-01", "2020-01-02"], "datetime64[ns]")), DataError,
             "time holds dates here, but numbers in the data of the fit"),
    foretold("forecast without its forcing", lambda: (model(forcings=("u",)), posterior(model()), np.array([6.0, 7.0])),
             DataError, "forcing 'u' is not in the data; a forecast needs it up to 7"),
]  # fmt: skip


def call(row: Row) -> Callable[[], Any]:
    """The call that must fail, its arguments made beforehand."""
    if row.stage == "build":
        return row.broken
    if row.stage == "call":
        return row.broken()
    verb = partial(bd.fit, engine=ENGINE) if row.stage == "fit" else bd.forecast
    return partial(verb, *row.broken())


@pytest.fixture(scope="module", autouse=True)
def nothing_compiled_before():
    """Programs that other tests have compiled would hide a compilation here."""
    jax.clear_caches()


@pytest.fixture(autouse=True)
def as_users_have_it():
    """Without the type checker of the tests, which would refuse some of this input itself."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def compiled():
    """The names of the programs that XLA compiles while a test runs, single operations on constants
    left out.
    """
    programs = []

    def listen(event: str, duration: float, **facts: Any) -> None:
        if event == COMPILED and facts.get("fun_name") not in TRIFLES:
            programs.append(facts.get("fun_name"))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield programs
    jax.monitoring.unregister_event_duration_listener(listen)


@pytest.mark.thorough(
    "wrong shape in plain noise",
    "wrong shape in an observed state",
    "microcanonical in one dimension",
    "guide too simple",
    "checkpoint in a folder of other things",
    "key of text",
    "key broken",
    "update without log likelihoods",
    "solver checked without log likelihoods",
)
@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_bad_input_is_refused_before_compilation(row, compiled):
    failing = call(row)
    compiled.clear()
    with pytest.raises(row.error, match=row.message) as caught:
        failing()
    assert compiled == []
    assert isinstance(caught.value, BayesDaslError)
    assert isinstance(caught.value, (ValueError, OSError))


@pytest.mark.thorough(
    "wrong shape in plain noise",
    "wrong shape in an observed state",
    "noise that returns no distribution",
    "noise without a mean",
)
@pytest.mark.parametrize(
    "row", [row for row in TABLE if row.stage == "fit"], ids=lambda row: row.name
)
def test_check_reports_the_same_fault(row, compiled):
    broken = row.broken()
    compiled.clear()
    found = bd.check(*broken)
    assert compiled == []
    assert found.level == "bad"
    assert found.verdict == "Not ready to fit: data and model."
    with pytest.raises(row.error) as caught:
        bd.fit(*broken, ENGINE)
    # `check` names every fault, with its place in the user's code; `fit` raises one of them.
    said = [finding.message.partition(", at test_bad_input.py:")[0] for finding in found.findings]
    assert str(caught.value) in said
    assert all(finding.remedy for finding in found.findings)


def test_the_table_names_each_case_once():
    assert len({row.name for row in TABLE}) == len(TABLE)


@pytest.mark.thorough
def test_compilations_are_counted(compiled):
    """A good call compiles the solver, so that the counts of zero above mean something."""
    fc = bd.forecast(model(), posterior(model()), data())
    np.testing.assert_allclose(fc["conditional_mean"]["y"][0, 0], data()["y"], rtol=1e-5)
    assert "jit(run)" in compiled, compiled  # that of `parted`, which pushes draws


@pytest.mark.thorough
def test_good_data_are_not_refused(compiled):
    """What looks like a fault but is none: gaps in an observable, whole counts as floats, units
    spelt with spaces.
    """
    ragged = series("y", [1, np.nan, 3, 4, np.nan, 6], units=" mg/L")
    from bayes_dasl.model import check_data

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        observed = check_data(model(noise=bd.PoissonNoise(), units={"y": "mg/L"}), ragged)
    assert int(jnp.isnan(observed["y"]).sum()) == 2
