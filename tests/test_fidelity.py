"""A cheap and a costly model of one thing: by hand, the pair of Forrester, gradients, refusals."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from adaptive_checks import EXACT, check_gradients, check_log_density, share_in_band

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.layers import AbstractFilter, AbstractLayer, Prediction
from bayes_dasl.multiscale import MultiFidelity
from bayes_dasl.prediction import draws_of
from bayes_dasl.random import paths
from bayes_dasl.unknown_functions import Basis
from bayes_dasl.unknown_functions.bases import BSpline, HilbertGP, Polynomial


class Curve(AbstractLayer):
    """A function of time (and forcings) as a layer; `field` gives outputs a second dimension."""

    function: object
    names: tuple[str, ...] = eqx.field(static=True)
    forcings: tuple[str, ...] = eqx.field(static=True, default=())
    units: dict = eqx.field(static=True, default_factory=dict)
    fields: dict = eqx.field(static=True, default_factory=dict)
    ok: bool = eqx.field(static=True, default=True)

    @property
    def outputs(self):
        return self.names

    @property
    def dims(self):
        return self.fields

    @property
    def interpolation(self):
        return dict.fromkeys(self.forcings, "step")

    def __call__(self, inputs):
        values = jax.vmap(lambda t: self.function(t, {}, inputs.forced(t)))(inputs.times)
        return Prediction(
            {n: v if self.ok else jnp.ones_like(v) for n, v in values.items()}, jnp.asarray(self.ok)
        )


class Filter(Curve, AbstractFilter):
    pass


def given(times, **forcings):
    data = xr.Dataset({name: ("time", v) for name, v in forcings.items()}, {"time": times})
    return bd.inputs(data, forcings=list(forcings))


def waves(t, y, u):
    return {"a": jnp.sin(t), "b": jnp.cos(t)}


TIMES = np.array([0.0, 0.5, 1.7])


class TestByHand:
    def correction(self, t, y, u):
        return {"fine": t * y["b"] + u["rain"]}

    def layer(self, ratio):
        low = Curve(waves, ("a", "b"), ("sun",), {"a": "m", "sun": "lux"})
        return MultiFidelity(low, {"fine": "a", "other": "b"}, ratio, self.correction, ("rain",))

    @pytest.mark.parametrize(("ratio", "factors"), [(2.0, (2.0, 2.0)), ("function", (3.0, -1.0))])
    def test_values(self, ratio, factors):
        if ratio == "function":
            ratio = lambda t, y, u: {"fine": 3.0, "other": -1.0}  # noqa: E731
        out = self.layer(ratio)(given(TIMES, sun=np.ones(3), rain=np.arange(3.0)))
        assert bool(out.ok)
        a, b = np.sin(TIMES), np.cos(TIMES)
        exact = {
            "a": a,
            "b": b,
            "fine": factors[0] * a + TIMES * b + np.arange(3.0),
            "other": factors[1] * b,
        }
        assert set(out.values) == set(exact)
        for name in exact:
            np.testing.assert_allclose(out.values[name], exact[name], atol=EXACT)

    def test_what_it_says_of_itself(self):
        layer = self.layer(1.0)
        assert layer.outputs == ("a", "b", "fine", "other")
        assert layer.forcings == ("sun", "rain")
        assert layer.interpolation == {"sun": "step"}
        assert layer.units == {"a": "m", "sun": "lux", "fine": "m"}
        assert (layer.index, layer.start, layer.states) == ("time", None, 0)

    @pytest.mark.thorough
    def test_fields(self):
        low = Curve(lambda t, y, u: {"a": t * jnp.arange(4.0)}, ("a",), fields={"a": ("place",)})
        delta = Basis(BSpline(-1, 9, 5), "a", "fine", np.zeros(5), level=1.0)
        layer = MultiFidelity(low, {"fine": "a"}, 2.0, delta)
        assert layer.dims == {"a": ("place",), "fine": ("place",)}
        np.testing.assert_allclose(
            layer(given(TIMES)).values["fine"], 2 * TIMES[:, None] * np.arange(4) + 1
        )

    @pytest.mark.parametrize(("low_ok", "shift"), [(False, 2.0), (True, -2.0)])
    def test_failure_of_the_cheap_one_or_of_the_correction(self, low_ok, shift):
        low = Curve(waves, ("a", "b"), ok=low_ok)
        out = MultiFidelity(
            low, {"fine": "a"}, 2.0, lambda t, y, u: {"fine": jnp.log(y["a"] + shift)}
        )(given(TIMES))
        assert not bool(out.ok)
        assert np.isfinite(out.values["fine"]).all()

    def test_groups(self):
        unknown = dist.Normal(1.0, 1.0)
        delta = Basis(Polynomial(0, 1, 1), "t", "fine", np.ones(2), level=unknown)
        leaves = paths(MultiFidelity(Curve(waves, ("a", "b")), {"fine": "a"}, unknown, delta))
        assert {p: leaf.group for p, leaf in leaves.items()} == {
            "ratio": "science",
            "discrepancy.level": "network",
        }

    @pytest.mark.thorough
    def test_gradients(self):
        class Decayed(eqx.Module):
            first: object

            def __call__(self, t, y, u):
                return {"a": self.first * jnp.exp(-t)}

        low = Curve(Decayed(dist.LogNormal(0.0, 0.3)), ("a",))
        layer = MultiFidelity(
            low, {"fine": "a"}, dist.Normal(1.0, 0.5), Basis(BSpline(-1.0, 4.0, 5), "a", "fine")
        )
        inputs = given(TIMES)
        check_gradients(
            layer, lambda m: jnp.concatenate(list(m(inputs).values.values())), width=1e-3
        )


def forrester(x):
    """The costly function of Forrester, Sóbester & Keane (2007); its cheap one is 0.5 of it + 10 (x
    − 0.5) − 5.
    """
    return (6 * x - 2) ** 2 * np.sin(12 * x - 4)


def cheap(x):
    return 0.5 * forrester(x) + 10 * (x - 0.5) - 5


class TestForrester:
    """Four costly data cannot show the minimum; eleven cheap ones can."""

    costly_places, cheap_places = np.array([0.0, 0.4, 0.6, 1.0]), np.linspace(0, 1, 11)
    grid = np.linspace(0, 1, 41)

    def curve(self, name):
        process = HilbertGP(0, 1, 14, length=bd.between(0.1, 0.5), amplitude=dist.HalfNormal(10.0))
        return Curve(Basis(process, "t", name), (name,))

    def data(self):
        times = np.union1d(self.cheap_places, self.costly_places)
        rows = {"cheap": (cheap, self.cheap_places), "costly": (forrester, self.costly_places)}
        values = {
            name: np.where(np.isin(times, at), f(times), np.nan) for name, (f, at) in rows.items()
        }
        return xr.Dataset({name: ("time", v) for name, v in values.items()}, {"time": times})

    def model(self):
        line = Basis(
            Polynomial(0, 1, 1), "t", "costly", dist.Normal(0.0, 20.0).expand((2,)).to_event(1)
        )
        layer = MultiFidelity(self.curve("cheap"), {"costly": "cheap"}, dist.Normal(1.0, 1.0), line)
        return bd.Model(layer, {"cheap": bd.NormalNoise(0.1), "costly": bd.NormalNoise(0.1)})

    def error(self, model, data):
        post = bd.fit(model, data, bd.NUTS(chains=2, warmup=200, draws=200), key=0)
        costly = lambda m: m.layer(given(self.grid)).values["costly"]  # noqa: E731
        draws = {path: jnp.asarray(v) for path, v in draws_of(model, post).items()}
        values = np.asarray(jax.jit(jax.vmap(lambda d: costly(bd.random.realise(model, d))))(draws))
        share, _ = share_in_band(model, post, costly, forrester(self.grid))
        return np.sqrt(np.mean((values.mean(0) - forrester(self.grid)) ** 2)), share, post

    @pytest.mark.thorough
    def test_log_density(self):
        check_log_density(self.model(), self.data())

    @pytest.mark.slow
    def test_cheap_data_help(self):
        both, share, post = self.error(self.model(), self.data())
        alone = bd.Model(self.curve("costly"), bd.NormalNoise(0.1))
        times = self.costly_places
        few, _, _ = self.error(
            alone, xr.Dataset({"costly": ("time", forrester(times))}, {"time": times})
        )
        assert both < 0.2 * few
        assert share >= 0.8
        ratio = post["posterior"]["ratio"].values.ravel()
        assert abs(ratio.mean() - 2) < 3 * ratio.std() < 0.5


LOW = Curve(waves, ("a", "b"))


def no_correction(t, y, u):
    return {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"low": waves}, "low must be a layer that needs no observations, not function"),
        (
            {"low": Filter(waves, ("a", "b"))},
            "low must be a layer that needs no observations, not Filter",
        ),
        ({"costly": {}}, "costly must name what is predicted"),
        ({"costly": {"fine": "c"}}, "'fine' builds on 'c'; the cheap layer has a, b"),
        ({"costly": {"b": "a"}}, "'b' is an output of the cheap layer"),
        (
            {"discrepancy": 1.0},
            r"discrepancy must be a function \(t, y, u\) that returns a dict, .*, not 1.0",
        ),
        ({"discrepancy": dist.Normal(0.0, 1.0)}, "discrepancy must be a function"),
        ({"discrepancy": LOW}, "discrepancy must be a function .*, not the layer Curve"),
        ({"ratio": LOW}, "ratio must be a function .*, not the layer Curve"),
        ({"ratio": np.ones(2)}, "MultiFidelity.ratio must be a number"),
        (
            {"ratio": dist.Normal(jnp.zeros(2), 1.0)},
            "MultiFidelity.ratio must be a distribution over one number",
        ),
    ],
)
def test_refused_when_built(unchecked, options, message):
    with pytest.raises(ModelError, match=message):
        MultiFidelity(
            **(
                {"low": LOW, "costly": {"fine": "a"}, "ratio": 1.0, "discrepancy": no_correction}
                | options
            )
        )


@pytest.mark.parametrize(
    ("ratio", "discrepancy", "message"),
    [
        (
            1.0,
            lambda t, y, u: {"a": t},
            "the discrepancy returns 'a'; the costly names are fine, other",
        ),
        (
            lambda t, y, u: {"a": t},
            no_correction,
            "the ratio returns 'a'; the costly names are fine, other",
        ),
        (lambda t, y, u: {"fine": t}, no_correction, "the ratio has no value for other"),
        (
            1.0,
            Basis(BSpline(0, 1, 5), "rain", "fine", np.ones(5)),
            "basis input rain is none of t, a, b",
        ),
    ],
)
def test_refused_when_called(ratio, discrepancy, message):
    layer = MultiFidelity(LOW, {"fine": "a", "other": "b"}, ratio, discrepancy)
    with pytest.raises(ModelError, match=message):
        layer(given(TIMES))
