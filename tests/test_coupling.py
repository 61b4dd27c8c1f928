"""Parts at different scales: known systems, the same equations written in one, layers in order,
gradients, a fit.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from adaptive_checks import (
    check_gradients,
    check_log_density,
    share_in_band,
)
from grids import moments, positions_at
from scipy.integrate import solve_ivp

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.inference import pose
from bayes_dasl.layers import AbstractFilter, AbstractLayer, Prediction
from bayes_dasl.multiscale import Coupling, LayerCoupling, Link
from bayes_dasl.random import paths
from bayes_dasl.unknown_functions import Basis
from bayes_dasl.unknown_functions.bases import BSpline

RTOL = 1e-9
GLOBAL = 100 * RTOL


def given(times, start=None, **forcings):
    """Inputs at `times` driven by the named series."""
    data = xr.Dataset({name: ("time", v) for name, v in forcings.items()}, {"time": times})
    return bd.inputs(data, start=start, forcings=list(forcings))


@eqx.filter_jit
def solve(layer, inputs):
    return layer(inputs)


class Excitable(bd.Module):
    """The fast half of FitzHugh–Nagumo: a voltage that sees a recovery `w` and a current."""

    def __call__(self, t, y, u):
        return {"v": y["v"] - y["v"] ** 3 / 3 - u["w"] + u["current"]}


class Recovery(bd.Module):
    a: bd.Scalar
    b: bd.Scalar

    def __call__(self, t, y, u):
        return {"w": u["voltage"] + self.a - self.b * y["w"]}


def fitzhugh_nagumo(strength=1.0, slowness=12.5, fastness=1.0, tolerance=RTOL, a=0.7):
    field = Coupling(
        {"nerve": Excitable(), "recovery": Recovery(a, 0.8)},
        (Link("recovery.w", "nerve.w", strength), Link("nerve.v", "recovery.voltage")),
        {"nerve": "v", "recovery": ("w",)},
        {"recovery": slowness, "nerve": fastness},
    )
    return bd.ODE(
        field, {"v": -1.0, "w": 1.0}, forcings=("current",), rtol=tolerance, atol=tolerance
    )


class TestFitzHughNagumo:
    times = np.linspace(0.0, 60.0, 13)

    @pytest.mark.thorough
    def test_against_scipy(self):
        for numbers in ((1.0, 12.5, 1.0), (0.8, 5.0, 0.5)):
            strength, slowness, fastness = numbers

            def rates(t, y, strength=strength, slowness=slowness, fastness=fastness):
                v, w = y
                return [
                    (v - v**3 / 3 - strength * w + 0.5) / fastness,
                    (v + 0.7 - 0.8 * w) / slowness,
                ]

            exact = solve_ivp(
                rates, (0, 60), [-1.0, 1.0], "DOP853", self.times, rtol=1e-12, atol=1e-12
            ).y
            layer = fitzhugh_nagumo(*map(jnp.asarray, numbers))
            prediction = solve(layer, given(self.times, current=np.full(13, 0.5)))
            assert bool(prediction.ok)
            for name, values in zip("vw", exact, strict=True):
                np.testing.assert_allclose(prediction.values[name], values, atol=GLOBAL)

    unknown = fitzhugh_nagumo(
        dist.LogNormal(0.0, 0.1), dist.LogNormal(1.0, 0.1), dist.LogNormal(0.0, 0.1), 1e-11
    )

    @pytest.mark.thorough
    def test_gradients_of_the_rates(self):
        states = {"v": jnp.asarray(-0.7), "w": jnp.asarray(0.4)}

        def rates(field):
            return jnp.stack(list(field(0.0, states, {"current": jnp.asarray(0.5)}).values()))

        check_gradients(self.unknown.vector_field, rates, solved=False)

    @pytest.mark.slow
    def test_gradients(self):
        inputs = given([0.0, 1.0, 2.0], current=[0.5, 0.5, 0.5])
        check_gradients(
            self.unknown, lambda realised: jnp.concatenate(list(realised(inputs).values.values()))
        )

    @pytest.mark.slow
    def test_log_density(self):
        times = np.linspace(0, 5, 6)
        values = {"v": ("time", np.sin(times)), "current": ("time", np.full(6, 0.5))}
        data = xr.Dataset(values, {"time": times})
        check_log_density(bd.Model(self.unknown, {"v": bd.NormalNoise(0.5)}), data)


class Slow(bd.Module):
    """The large scale of Lorenz (1996): waves on a circle that feel the sum of the small scale."""

    force: bd.Scalar

    def __call__(self, t, y, u):
        x = y["x"]
        return {
            "x": -jnp.roll(x, 1) * (jnp.roll(x, 2) - jnp.roll(x, -1))
            - x
            + self.force
            - u["small"].sum(-1)
        }


class Fast(bd.Module):
    """The small scale: b times as large, c times as fast; all of it is one circle."""

    b: bd.Scalar

    def __call__(self, t, y, u):
        z = y["z"].ravel()
        waves = -self.b * jnp.roll(z, -1) * (jnp.roll(z, -2) - jnp.roll(z, 1)) - z
        return {"z": waves.reshape(y["z"].shape) + u["large"][:, None]}


class First(bd.Module):
    def __call__(self, t, y, u):
        return {"x0": y["x"][0], "z0": y["z"][0, 0]}


class TestLorenz96:
    """Two scales: x' = … − (h c / b) Σ z, z' = c (… + (h / b) x)."""

    large, small, h, b, c, force = 6, 4, 1.0, 10.0, 10.0, 8.0

    def start(self):
        rng = np.random.default_rng(0)
        return rng.normal(size=self.large), 0.1 * rng.normal(size=(self.large, self.small))

    @pytest.mark.slow
    def test_against_scipy(self):
        x0, z0 = self.start()
        times = np.linspace(0.0, 1.0, 6)

        def rates(t, y):
            x, z = y[: self.large], y[self.large :]
            n, m = self.large, self.large * self.small
            dx = [
                -x[k - 1] * (x[k - 2] - x[(k + 1) % n])
                - x[k]
                + self.force
                - self.h * self.c / self.b * z[k * self.small : (k + 1) * self.small].sum()
                for k in range(n)
            ]
            dz = [
                -self.c * self.b * z[(j + 1) % m] * (z[(j + 2) % m] - z[j - 1])
                - self.c * z[j]
                + self.h * self.c / self.b * x[j // self.small]
                for j in range(m)
            ]
            return np.array(dx + dz)

        exact = solve_ivp(
            rates, (0, 1), np.append(x0, z0), "DOP853", times, rtol=1e-12, atol=1e-12
        ).y
        field = Coupling(
            parts={"slow": Slow(self.force), "fast": Fast(self.b)},
            links=(
                Link("fast.z", "slow.small", self.h * self.c / self.b),
                Link("slow.x", "fast.large", self.h / self.b),
            ),
            states={"slow": ("x",), "fast": ("z",)},
            timescales={"fast": 1 / self.c},
        )
        layer = bd.ODE(field, {"x": x0, "z": z0}, First(), rtol=RTOL, atol=RTOL)
        prediction = solve(layer, given(times))
        assert bool(prediction.ok)
        np.testing.assert_allclose(prediction.values["x0"], exact[0], atol=GLOBAL)
        np.testing.assert_allclose(prediction.values["z0"], exact[self.large], atol=GLOBAL)


def one(name):
    return lambda t, y, u: {name: -y[name]}


PARTS = {
    "parts": {"p": one("x"), "q": one("z")},
    "links": (Link("p.x", "q.seen"),),
    "states": {"p": ("x",), "q": ("z",)},
}
STATE = {"x": jnp.asarray(2.0), "z": jnp.asarray(3.0)}


class TestCoupling:
    def test_each_part_sees_its_own_states_and_what_is_linked(self):
        seen = {}

        def part(name, state):
            def rates(t, y, u):
                seen[name] = (dict(y), dict(u))
                return {state: jnp.asarray(6.0)}

            return rates

        links = (Link("p.x", "q.seen", 0.5), Link("q.z", "q.seen", -1.0), Link("q.z", "p.other"))
        field = Coupling(
            {"p": part("p", "x"), "q": part("q", "z")}, links, PARTS["states"], {"q": 2.0}
        )
        assert field(0.0, STATE, {"rain": jnp.asarray(7.0)}) == {"x": 6.0, "z": 3.0}
        assert seen["p"] == ({"x": 2.0}, {"rain": 7.0, "other": 3.0})
        assert seen["q"] == ({"z": 3.0}, {"rain": 7.0, "seen": 0.5 * 2.0 - 3.0})

    def test_random_leaves_are_science_unless_the_part_is_learned(self):
        field = Coupling(
            {
                "p": Basis(BSpline(0, 1, 5), "x", "x", np.ones(5), level=dist.Normal(0.0, 1.0)),
                "q": one("z"),
            },
            (Link("p.x", "q.seen", dist.LogNormal(0.0, 1.0)),),
            PARTS["states"],
            {"q": dist.LogNormal(0.0, 1.0)},
        )
        groups = {path: leaf.group for path, leaf in paths(field).items()}
        assert groups == {
            "parts.p.level": "network",
            "links.0.strength": "science",
            "timescales.q": "science",
        }

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"links": (Link("r.x", "q.seen"),)}, "a link names 'r'; the parts are p, q"),
            ({"links": (Link("p.x", "r.seen"),)}, "a link names 'r'; the parts are p, q"),
            ({"links": (Link("p.z", "q.seen"),)}, "a link comes from 'p.z'; 'p' has x"),
            ({"states": {"p": ("x",)}}, "states are given for p, but the parts are p, q"),
            ({"states": {"p": ("x",), "q": ("x",)}}, "state 'x' is in 'p' and in 'q'"),
            ({"links": ("p.x",)}, "links must be such as"),
            ({"links": None}, "links must be such as"),
            (
                {"parts": PARTS["parts"] | {"p": dist.Normal(0.0, 1.0)}},
                r"parts\['p'\] must be a function",
            ),
            (
                {"parts": PARTS["parts"] | {"p": bd.ODE(one("x"), {"x": 1.0})}},
                "a function .*, not the layer ODE",
            ),
            ({"timescales": {"r": 1.0}}, "a time scale is given for 'r'"),
            ({"timescales": {"p": 0.0}}, "must be positive, not 0.0"),
            ({"timescales": {"p": np.ones(2)}}, r"timescales\['p'\] must be a number"),
        ],
    )
    def test_refusals(self, unchecked, options, message):
        with pytest.raises(ModelError, match=message):
            Coupling(**(PARTS | options))

    def test_one_link_needs_no_tuple(self, unchecked):
        assert Coupling(**(PARTS | {"links": PARTS["links"][0]})).links == PARTS["links"]

    def test_rates_of_other_states(self):
        with pytest.raises(ModelError, match="part 'p' returns rates for z, but has states x"):
            Coupling(**(PARTS | {"parts": {"p": lambda t, y, u: {"z": 1.0}, "q": one("z")}}))(
                0.0, STATE, {}
            )

    def test_a_forcing_of_the_same_name(self):
        with pytest.raises(
            ModelError, match=r"'q\.seen' is linked, but 'seen' is a forcing of the model too"
        ):
            Coupling(**PARTS)(0.0, STATE, {"seen": jnp.asarray(1.0)})

    @pytest.mark.parametrize("end", ["x", "p.", ".x", ""])
    def test_ends_of_a_link(self, end):
        for ends in ((end, "q.seen"), ("p.x", end)):
            with pytest.raises(ModelError, match=r"from 'part\.value' to 'part\.forcing'"):
                Link(*ends)


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"x": -self.rate * y["x"]}


class Fading(bd.Module):
    """What `Decay` comes to."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"x": jnp.exp(-self.rate * t)}


class Filled(bd.Module):
    """A slow store that is filled by what it sees, and by rain."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"z": u["inflow"] + u["rain"] - self.rate * y["z"]}


def layers(rate=1.0, strength=2.0, points=129, tolerance=1e-10, slow=0.3):
    options = {"rtol": tolerance, "atol": tolerance}
    fast = bd.ODE(Decay(rate), {"x": 1.0}, units={"x": "mm"}, **options)
    store = bd.ODE(
        Filled(slow),
        {"z": 0.5},
        forcings=("inflow", "rain"),
        units={"rain": "mm", "inflow": "mm"},
        **options,
    )
    # The order of the dict does not matter.
    return LayerCoupling(
        {"store": store, "fast": fast}, (Link("fast.x", "store.inflow", strength),), points
    )


class TestLayers:
    times = np.array([0.0, 0.4, 1.1, 2.0])

    def exact(self, t, strength=2.0):
        """z' = s e^(−t) + 0.7 − 0.3 z, z(0) = 0.5."""
        return (
            strength * (np.exp(-0.3 * t) - np.exp(-t)) / 0.7
            + 0.7 / 0.3 * (1 - np.exp(-0.3 * t))
            + 0.5 * np.exp(-0.3 * t)
        )

    def run(self, points, times=times, start=None, **options):
        return solve(
            layers(points=points, **options), given(times, start, rain=np.full(len(times), 0.7))
        )

    @pytest.mark.slow
    def test_values_and_order_in_the_points(self):
        sizes = np.array([17, 33])
        errors = []
        for size in sizes:
            prediction = self.run(int(size))
            np.testing.assert_allclose(prediction.values["x"], np.exp(-self.times), atol=1e-8)
            errors.append(np.abs(prediction.values["z"] - self.exact(self.times)).max())
        orders = -np.diff(np.log(errors)) / np.log((sizes[1:] - 1) / (sizes[:-1] - 1))
        np.testing.assert_allclose(orders, 2, atol=0.02)
        # A straight line misses h² / 8 of the curvature, here at most 2, over 2 units of time.
        assert errors[-1] < 2 * 2 * (2 / 32) ** 2 / 8

    @pytest.mark.thorough
    def test_what_is_joined(self):
        prediction, coupled = self.run(17), layers()
        assert bool(prediction.ok)
        assert set(prediction.values) == set(coupled.outputs) == {"x", "z"}
        assert coupled.order == ("fast", "store")
        assert coupled.forcings == ("rain",)
        assert coupled.units == {"rain": "mm", "x": "mm"}
        assert coupled.states == 2
        fast = solve(coupled.layers["fast"], given(self.times)).stats["steps"]
        assert prediction.stats["steps"] > fast > 0

    @pytest.mark.thorough
    def test_starts_before_the_first_time(self):
        times = np.array([0.4, 0.7, 1.1, 2.0])
        prediction = self.run(17, times=times, start=0.0)
        np.testing.assert_allclose(
            prediction.values["z"], self.exact(times), atol=2 * 2 * (2 / 16) ** 2 / 8
        )

    @pytest.mark.thorough
    def test_one_time_only(self):
        passed = lambda t, y, u: {"z": u["inflow"] + u["rain"]}  # noqa: E731
        parts = {
            "store": bd.Algebraic(passed, forcings=("inflow", "rain")),
            "fast": bd.Algebraic(Fading(1.0)),
        }
        coupled = LayerCoupling(parts, (Link("fast.x", "store.inflow", 2.0),), 5)
        prediction = solve(coupled, given([0.0], rain=[0.7]))
        assert bool(prediction.ok)
        assert {name: v.tolist() for name, v in prediction.values.items()} == {
            "x": [1.0],
            "z": [2.7],
        }

    @pytest.mark.slow
    def test_one_time_only_of_solvers(self):
        prediction = self.run(5, times=np.array([0.0]))
        assert bool(prediction.ok)
        assert {name: v.tolist() for name, v in prediction.values.items()} == {
            "x": [1.0],
            "z": [0.5],
        }

    @pytest.mark.slow
    def test_failure_of_one_is_failure_of_all(self):
        fast = bd.ODE(lambda t, y, u: {"x": y["x"] ** 2}, {"x": 1.0}, max_steps=64)
        coupled = eqx.tree_at(lambda c: c.layers["fast"], layers(), fast)
        prediction = solve(coupled, given(self.times, rain=np.zeros(4)))
        assert not bool(prediction.ok)
        assert all(np.isfinite(v).all() for v in prediction.values.values())

    @pytest.mark.slow
    def test_gradients(self):
        """Through a closed form that drives an equation."""
        unknown = dist.LogNormal(0.0, 0.3)
        fast = bd.Algebraic(Fading(unknown))
        store = bd.ODE(
            Filled(unknown), {"z": 0.5}, forcings=("inflow", "rain"), rtol=1e-11, atol=1e-11
        )
        coupled = LayerCoupling(
            {"fast": fast, "store": store}, (Link("fast.x", "store.inflow", unknown),), 17
        )
        inputs = given(self.times, rain=np.full(4, 0.7))
        check_gradients(coupled, lambda c: jnp.concatenate(list(c(inputs).values.values())))

    @pytest.mark.slow
    def test_gradients_through_two_solvers(self):
        unknown = dist.LogNormal(0.0, 0.3)
        inputs = given(self.times, rain=np.full(4, 0.7))
        coupled = layers(unknown, unknown, points=17, tolerance=1e-11, slow=unknown)
        check_gradients(coupled, lambda c: jnp.concatenate(list(c(inputs).values.values())))

    @pytest.mark.thorough
    def test_three_in_a_row(self):
        """Each a copy of the last: the strengths multiply."""
        first = bd.Algebraic(Fading(1.0))
        copies = {
            f"copy{i}": bd.Algebraic(
                lambda t, y, u, i=i: {f"seen{i}": u["seen"]}, forcings=("seen",)
            )
            for i in (1, 2)
        }
        links = (Link("copy1.seen1", "copy2.seen", 3.0), Link("first.x", "copy1.seen", 2.0))
        coupled = LayerCoupling({"first": first, **copies}, links, points=257)
        assert coupled.order == ("first", "copy1", "copy2")
        values = solve(coupled, given(self.times)).values
        np.testing.assert_allclose(
            values["seen1"], 2 * np.exp(-self.times), atol=2 * (2 / 256) ** 2 / 8
        )
        np.testing.assert_allclose(
            values["seen2"], 6 * np.exp(-self.times), atol=2 * 6 * (2 / 256) ** 2 / 8
        )


class Plain(AbstractLayer):
    """A layer of any kind, to be refused."""

    names: tuple[str, ...] = eqx.field(static=True)
    forcings: tuple[str, ...] = eqx.field(static=True)
    fields: dict = eqx.field(static=True, default_factory=dict)
    coordinate: str = eqx.field(static=True, default="time")
    start: float | None = eqx.field(static=True, default=None)
    units: dict = eqx.field(static=True, default_factory=dict)

    @property
    def outputs(self):
        return self.names

    @property
    def index(self):
        return self.coordinate

    @property
    def dims(self):
        return self.fields

    def __call__(self, inputs):
        raise NotImplementedError


class Filter(Plain, AbstractFilter):
    pass


class Told(Plain):
    """A layer with all that a prediction can hold: its values are its times."""

    kind: str = eqx.field(static=True, default="step")
    fine: bool = eqx.field(static=True, default=True)

    @property
    def interpolation(self):
        return {name: self.kind for name in self.forcings if name != "inflow"}

    def __call__(self, inputs):
        values, gap = {self.names[0]: inputs.times}, {"gap": jnp.ones(2) * len(inputs.times)}
        variances = {self.names[0]: 2 * inputs.times}
        return Prediction(values, jnp.asarray(self.fine), {"steps": jnp.asarray(3)}, gap, variances)


@pytest.mark.thorough
def test_all_that_predictions_hold_is_joined():
    layers = {
        "a": Told(("x",), ("rain",), units={"rain": "mm"}),
        "b": Told(("z",), ("inflow", "sun")),
    }
    coupled = LayerCoupling(layers, (LINK,), points=5)
    assert (coupled.interpolation, coupled.units) == (
        {"rain": "step", "sun": "step"},
        {"rain": "mm"},
    )
    times = np.array([0.0, 0.3, 1.0])
    joined = coupled(given(times, rain=np.zeros(3), sun=np.zeros(3)))
    assert {name: v.tolist() for name, v in joined.values.items()} == {
        "x": times.tolist(),
        "z": times.tolist(),
    }
    assert {name: v.tolist() for name, v in joined.variances.items()} == {
        n: (2 * times).tolist() for n in "xz"
    }
    assert {name: v.tolist() for name, v in joined.constraint_residuals.items()} == {
        "a.gap": [8.0, 8.0],
        "b.gap": [3.0, 3.0],
    }
    assert int(joined.stats["steps"]) == 6


@pytest.mark.thorough("True-True")
@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_failure_of_one_is_failure_of_all(first, second):
    layers = {"a": Told(("x",), (), fine=first), "b": Told(("z",), ("inflow",), fine=second)}
    joined = LayerCoupling(layers, (LINK,), points=5)(given(np.array([0.0, 0.3, 1.0])))
    assert bool(joined.ok) is (first and second)
    assert all(np.isfinite(v).all() for v in joined.values.values())


def test_the_unit_of_time_is_that_of_the_layers():
    layers = {
        "a": Told(("x",), (), units={"time": "h"}),
        "b": Told(("z",), ("inflow",), units={"time": "h", "y": "g"}),
    }
    assert LayerCoupling(layers, (LINK,), points=5).units == {"time": "h"}


A, B = Plain(("x",), ("back",)), Plain(("z",), ("inflow",))
LINK = Link("a.x", "b.inflow")


@pytest.mark.parametrize(
    ("layers", "links", "message"),
    [
        ({"a": A, "b": B}, (Link("c.x", "b.inflow"),), "a link names 'c'; the parts are a, b"),
        ({"a": A, "b": B}, (Link("a.z", "b.inflow"),), "a link comes from 'a.z'; 'a' has x"),
        (
            {"a": A, "b": B},
            (Link("a.x", "b.rain"),),
            "'b.rain' is linked, but the forcings of 'b' are inflow",
        ),
        (
            {"a": A, "b": B},
            (LINK, Link("b.z", "a.back")),
            "circle: . → . → .; couple the vector fields",
        ),
        ({"a": A, "b": B}, (Link("a.x", "a.back"),), "circle: a → a"),
        ({"a": A, "b": Plain(("x",), ("inflow",))}, (LINK,), "output 'x' is in 'a' and in 'b'"),
        ({"a": Plain(("x",), (), {"x": ("place",)}), "b": B}, (LINK,), "'a.x' is a field"),
        ({"a": A, "b": Plain(("z",), ("inflow",), coordinate="row")}, (LINK,), "the same index"),
        (
            {"a": Plain(("x",), (), start=0.0), "b": Plain(("z",), ("inflow",), start=1.0)},
            (LINK,),
            "the same start",
        ),
        (
            {"a": Filter(("x",), ()), "b": B},
            (LINK,),
            "'a' must be a layer that needs no observations, not Filter",
        ),
        (
            {"a": one("x"), "b": B},
            (LINK,),
            "'a' must be a layer that needs no observations, not function",
        ),
    ],
)
def test_layers_that_do_not_fit(unchecked, layers, links, message):
    with pytest.raises(ModelError, match=message):
        LayerCoupling(layers, links)


STEPS, LINES = Told(("x",), ("rain",)), Told(("z",), ("inflow", "rain"), kind="linear")


@pytest.mark.parametrize(
    ("layers", "link", "message"),
    [
        (
            {"a": STEPS, "b": LINES},
            LINK,
            "interpolation of 'rain': 'step' in 'a' but 'linear' in 'b'",
        ),
        (
            {"a": A, "b": Told(("z",), ("flow",))},
            Link("a.x", "b.flow"),
            "'b.flow' is linked, so it is linear",
        ),
        (
            {
                "a": Plain(("x",), ("rain",), units={"rain": "mm"}),
                "b": Told(("z",), ("inflow", "rain"), units={"rain": "m"}),
            },
            LINK,
            "units of 'rain': 'mm' in 'a' but 'm' in 'b'",
        ),
    ],
)
def test_one_forcing_is_read_in_one_way(unchecked, layers, link, message):
    with pytest.raises(ModelError, match=message):
        LayerCoupling(layers, (link,))


def test_too_few_points():
    with pytest.raises(ModelError, match="points must be at least 2, not 1"):
        LayerCoupling({"a": A, "b": B}, (LINK,), points=1)


class TestFit:
    """A fast decay drives a slow store: the strength of the link is learned from the store."""

    times = np.linspace(0.0, 8.0, 25)

    def coupled(self, strength):
        fast = bd.ODE(Decay(0.5), {"x": 2.0})
        field = lambda t, y, u: {"z": u["inflow"] - 0.6 * y["z"]}  # noqa: E731
        store = bd.ODE(field, {"z": 0.5}, forcings=("inflow",))
        return LayerCoupling(
            {"fast": fast, "store": store}, (Link("fast.x", "store.inflow", strength),), points=33
        )

    def exact(self):
        return np.asarray(solve(self.coupled(0.8), given(self.times)).values["z"])

    def data(self):
        exact = self.exact()
        noisy = exact + 0.03 * np.random.default_rng(2).normal(size=exact.shape)
        return xr.Dataset({"z": ("time", noisy)}, {"time": self.times})

    def model(self):
        return bd.Model(self.coupled(dist.LogNormal(0.0, 1.0)), {"z": bd.NormalNoise(0.03)})

    @pytest.mark.slow
    def test_the_posterior_knows_the_strength(self):
        """There is one unknown number, so a grid will do."""
        strengths = np.linspace(0.65, 0.95, 61)
        problem = pose(self.model(), self.data())
        positions = positions_at(problem, strengths)
        density = np.array(
            [*map(jax.jit(lambda position: problem.log_density(position)), positions)]
        )
        mean, sd = moments(strengths, positions, density)
        assert abs(mean - 0.8) < 3 * sd < 0.1

    @pytest.mark.slow
    def test_recovers_the_strength_and_what_it_drives(self):
        exact, model = self.exact(), self.model()
        post = bd.fit(model, self.data(), bd.NUTS(chains=2, warmup=50, draws=100), key=0)
        share, width = share_in_band(
            model, post, lambda m: m.layer(given(self.times)).values["z"], exact
        )
        assert share >= 0.8
        assert width.max() < 0.1
        strength = post["posterior"]["strength"].values.ravel()
        assert abs(strength.mean() - 0.8) < 3 * strength.std() < 0.1
