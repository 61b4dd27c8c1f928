"""Science plus a learned correction, by hand."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from curves import Gaps
from sifting import Sifting

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.random import paths

solve = eqx.filter_jit(lambda layer, inputs: layer(inputs))

Y = {"prey": jnp.asarray(2.0), "predator": jnp.asarray(0.5)}
U = {"light": jnp.asarray(3.0)}


def science(t, y, u):
    return {"prey": 1.1 * y["prey"], "predator": -0.4 * y["predator"] + t}


def closure(t, y, u):
    return {"prey": 0.25 * u["light"] - y["predator"]}


# The correction of prey is 0.25 · 3 − 0.5 = 0.25, for each unit of prey if it is relative.
@pytest.mark.parametrize(("relative", "prey"), [(False, 2.2 + 0.25), (True, 2.2 + 2.0 * 0.25)])
def test_correction(relative, prey):
    rates = bd.Residual(science, closure, relative=relative)(7.0, Y, U)
    assert rates == {"prey": pytest.approx(prey), "predator": pytest.approx(-0.2 + 7.0)}


def test_the_default_adds():
    assert bd.Residual(science, closure)(7.0, Y, U) == bd.Residual(
        science, closure, relative=False
    )(7.0, Y, U)


@pytest.mark.parametrize("relative", [False, True])
def test_a_correction_of_nothing_changes_nothing(relative):
    assert bd.Residual(science, lambda t, y, u: {}, relative=relative)(7.0, Y, U) == science(
        7.0, Y, U
    )


def test_the_rates_of_the_science_are_left_alone():
    rates = {"prey": jnp.asarray(1.0), "predator": jnp.asarray(2.0)}
    bd.Residual(lambda t, y, u: rates, closure)(0.0, Y, U)
    assert rates == {"prey": 1.0, "predator": 2.0}


def test_a_correction_of_an_unknown_state_is_refused():
    with pytest.raises(
        ModelError, match="the closure corrects 'wolf'; the science has prey, predator"
    ):
        bd.Residual(science, lambda t, y, u: {"wolf": jnp.asarray(1.0)})(0.0, Y, U)


def test_only_the_closure_is_of_the_network():
    class Growth(bd.Module):
        rate: bd.Scalar

        def __call__(self, t, y, u):
            return {"y": self.rate * y["y"]}

    net = eqx.nn.MLP(1, 1, 2, 1, key=jax.random.key(0))
    hybrid = bd.Residual(Growth(dist.Normal(0.0, 1.0)), bd.Network(net, ("y",), ("y",)))
    groups = {path: leaf.group for path, leaf in paths(hybrid).items()}
    assert groups.pop("science.rate") == "science"
    assert set(groups.values()) == {"network"}
    assert len(groups) == 4


@pytest.mark.thorough
def test_a_relative_correction_keeps_a_state_positive():
    """y' = y · (−5) decays to e⁻¹⁰, where the additive correction −5 crosses zero; both in one
    solve.
    """

    def still(t, y, u):
        return {"y": jnp.zeros(())}

    def rates(t, y, u):
        each = {
            relative: bd.Residual(still, lambda t, y, u: {"y": -5.0}, relative)
            for relative in (True, False)
        }
        return {
            name: each[name == "relative"](t, {"y": value}, u)["y"] for name, value in y.items()
        }

    layer = bd.ODE(rates, {"relative": 1.0, "added": 1.0}, rtol=1e-9, atol=1e-12)
    end = solve(layer, bd.inputs(xr.Dataset(coords={"time": [0.0, 2.0]}))).values
    assert float(end["relative"][-1]) == pytest.approx(np.exp(-10.0), rel=1e-6)
    assert float(end["added"][-1]) == pytest.approx(-9.0)


class Decay(bd.Module):
    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": -self.rate * y["y"]}


class Decayed(bd.Module):
    """What is left of 2 by decay, as a formula."""

    rate: bd.Scalar

    def __call__(self, t, y, u):
        return {"y": 2.0 * jnp.exp(-self.rate * t)}


TIMES = np.array([0.0, 0.5, 2.0])
DATA = xr.Dataset({"rain": ("time", [1.0, 2.0, 4.0])}, {"time": TIMES})


def decay(rate, **options):
    return bd.ODE(Decay(rate), {"y": 2.0}, rtol=1e-10, atol=1e-10, **options)


def formula(rate):
    return bd.Algebraic(Decayed(rate))


def predicted(hybrid, name="y"):
    return solve(hybrid, bd.inputs(DATA)).values[name]


def exact(rate):
    return 2.0 * np.exp(-rate * TIMES)


class TestLayers:
    """The same combinators, of whole layers; every value in closed form."""

    def test_a_residual_on_the_output(self):
        hybrid = bd.Residual(
            formula(0.7), lambda t, y, u: {"y": 0.1 * t + u["rain"] * y["y"]}, extra=("rain",)
        )
        assert (hybrid.outputs, hybrid.forcings) == (("y",), ("rain",))
        prediction = solve(hybrid, bd.inputs(DATA))
        assert bool(prediction.ok)
        np.testing.assert_allclose(
            prediction.values["y"], exact(0.7) * (1 + DATA["rain"].values) + 0.1 * TIMES, rtol=1e-8
        )

    def test_a_relative_residual_on_the_output(self):
        hybrid = bd.Residual(formula(0.7), lambda t, y, u: {"y": 0.1 * t}, relative=True)
        np.testing.assert_allclose(predicted(hybrid), exact(0.7) * (1 + 0.1 * TIMES), rtol=1e-8)

    def test_a_series(self):
        hybrid = bd.Series(formula(0.7), lambda t, y, u: {"log": jnp.log(y["y"]) + y["science.y"]})
        assert hybrid.outputs == ("log",)
        np.testing.assert_allclose(
            predicted(hybrid, "log"), np.log(exact(0.7)) + exact(0.7), rtol=1e-8
        )

    def test_side_by_side_with_a_function(self):
        hybrid = bd.Parallel({"slow": formula(0.1), "line": lambda t, y, u: {"y": u["rain"]}}, jnp.array([0.25, 0.75]),
                             extra=("rain",))  # fmt: skip
        values = predicted(hybrid)
        np.testing.assert_allclose(
            values, 0.25 * exact(0.1) + 0.75 * DATA["rain"].values, rtol=1e-8
        )

    def test_a_gate_sees_time_and_what_the_models_say(self):
        def gate(t, y, u):
            return {"slow": t * y["slow.y"], "fast": jnp.zeros(())}

        hybrid = bd.Parallel({"slow": formula(0.1), "fast": formula(2.0)}, gate)
        values = predicted(hybrid)
        share = 1 / (1 + np.exp(-TIMES * exact(0.1)))
        np.testing.assert_allclose(values, share * exact(0.1) + (1 - share) * exact(2.0), rtol=1e-7)

    def test_a_hierarchy(self):
        hybrid = bd.Hierarchical(
            {"slow": formula(0.1), "fast": formula(2.0)},
            lambda t, y, u: {"sum": y["slow.y"] + 3 * y["fast.y"]},
        )
        np.testing.assert_allclose(predicted(hybrid, "sum"), exact(0.1) + 3 * exact(2.0), rtol=1e-8)

    def test_they_nest(self):
        inner = bd.Parallel({"slow": formula(0.1), "fast": formula(2.0)}, jnp.array([0.5, 0.5]))
        hybrid = bd.Series(
            bd.Residual(inner, lambda t, y, u: {"y": jnp.ones(())}),
            lambda t, y, u: {"z": 2 * y["y"]},
        )
        np.testing.assert_allclose(predicted(hybrid, "z"), exact(0.1) + exact(2.0) + 2.0, rtol=1e-8)

    @pytest.mark.thorough
    def test_health_and_work_are_those_of_all_parts(self):
        """Two solves in one; the parts have one program, as only their rates differ."""
        sound, lost = (decay(jnp.asarray(rate), max_steps=256) for rate in (0.1, 1e9))
        weights = jnp.array([0.5, 0.5])
        apart = [solve(layer, bd.inputs(DATA)) for layer in (sound, lost)]
        assert [bool(each.ok) for each in apart] == [True, False]
        prediction = solve(bd.Parallel({"sound": sound, "lost": lost}, weights), bd.inputs(DATA))
        assert not bool(prediction.ok)
        assert np.isfinite(prediction.values["y"]).all()
        assert int(prediction.stats["steps"]) == sum(int(each.stats["steps"]) for each in apart)
        both = bd.Parallel(
            {"sound": sound, "lost": decay(jnp.asarray(2.0), max_steps=256)}, weights
        )
        good = solve(both, bd.inputs(DATA))
        assert bool(good.ok)
        np.testing.assert_allclose(good.values["y"], (exact(0.1) + exact(2.0)) / 2, rtol=1e-8)

    @pytest.mark.thorough
    def test_a_fit_of_a_layer_hybrid(self):
        """A decay seen with an offset that the science does not have."""
        rng = np.random.default_rng(0)
        times = np.linspace(0, 4, 40)
        data = xr.Dataset(
            {"y": ("time", 2 * np.exp(-0.7 * times) + 0.5 + rng.normal(0, 0.05, 40))},
            {"time": times},
        )

        class Offset(bd.Module):
            value: bd.Scalar

            def __call__(self, t, y, u):
                return {"y": self.value}

        layer = bd.Residual(formula(dist.LogNormal(0.0, 0.3)), Offset(dist.Normal(0.0, 0.5)))
        post = bd.fit(
            bd.Model(layer, bd.NormalNoise(0.05)), data, Sifting(proposals=100_000), progress=False
        )
        for name, truth in (("rate", 0.7), ("value", 0.5)):
            draws = post["posterior"][name]
            assert abs(float(draws.mean()) - truth) < 4 * float(draws.std())
            assert float(draws.std()) < 0.05


class TestFields:
    """The combinators of vector fields, point by point."""

    def test_a_series_reads_states_and_rates(self):
        hybrid = bd.Series(
            science, lambda t, y, u: {"prey": y["prey"] + y["science.prey"], "predator": t}
        )
        assert hybrid(7.0, Y, U) == {"prey": pytest.approx(2.0 + 2.2), "predator": 7.0}

    def test_a_name_that_is_no_state_needs_no_prefix(self):
        hybrid = bd.Series(
            lambda t, y, u: {"uptake": 3 * y["prey"]}, lambda t, y, u: {"prey": -y["uptake"]}
        )
        assert hybrid(0.0, Y, U) == {"prey": pytest.approx(-6.0)}

    def test_shares(self):
        other = lambda t, y, u: {"prey": 0.0, "predator": 1.0}  # noqa: E731
        rates = bd.Parallel({"a": science, "b": other}, jnp.array([0.75, 0.25]))(7.0, Y, U)
        assert rates == {
            "prey": pytest.approx(0.75 * 2.2),
            "predator": pytest.approx(0.75 * 6.8 + 0.25),
        }

    def test_a_hierarchy_of_vector_fields(self):
        hybrid = bd.Hierarchical(
            {"a": science, "b": closure}, lambda t, y, u: {"prey": y["a.prey"] * y["b.prey"]}
        )
        assert hybrid(7.0, Y, U) == {"prey": pytest.approx(2.2 * 0.25)}

    def test_uniform_shares_are_the_default(self):
        parallel = bd.Parallel({"a": science, "b": science})
        assert [leaf.shape for leaf in paths(parallel).values()] == [(2,)]

    def test_totals_are_conserved_whatever_a_network_says(self):
        wild = lambda t, y, u: {"a": 3.0 * y["b"], "b": jnp.sin(y["a"]), "c": y["a"] ** 2}  # noqa: E731
        field = bd.hybrid.Conserve(
            wild, {"mass": {"a": 1.0, "b": 1.0}, "charge": {"b": 2.0, "c": -1.0}}
        )
        rates = field(
            0.0, {name: jnp.asarray(v) for name, v in zip("abc", (1.3, 0.4, 2.0), strict=True)}, {}
        )
        assert float(rates["a"] + rates["b"]) == pytest.approx(0.0, abs=1e-14)
        assert float(2 * rates["b"] - rates["c"]) == pytest.approx(0.0, abs=1e-14)
        # What keeps the totals is left alone.
        kept = bd.hybrid.Conserve(
            lambda t, y, u: {"a": -1.0, "b": 1.0}, {"mass": {"a": 1.0, "b": 1.0}}
        )
        assert kept(0.0, {}, {}) == {"a": pytest.approx(-1.0), "b": pytest.approx(1.0)}


def driven(**options):
    return bd.ODE(
        lambda t, y, u: {"y": u["rain"] - y["y"]}, {"y": 2.0}, forcings=("rain",), **options
    )


class TestNonsense:
    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: bd.Parallel({"a": science}), "at least two"),
            (
                lambda: bd.Parallel({"a": science, "b": science}, jnp.ones(3)),
                "2 models, but weights of shape",
            ),
            (
                lambda: bd.Parallel({"a": science, "b": science}, jnp.array([1.0, 1.0])),
                "not negative and sum to 1",
            ),
            (
                lambda: bd.Parallel({"a": science, "b": science}, [-1.0, 2.0]),
                "not negative and sum to 1",
            ),
            (
                lambda: bd.Parallel({"a": science, "b": science}, dist.Normal(0, 1).expand([2])),
                "as Dirichlet is, not",
            ),
            (
                lambda: bd.Parallel({"a": science, "b": science}, "half"),
                "must be an array, a distribution or a gate",
            ),
            (lambda: bd.Hierarchical({}, closure), "sciences must be a dict"),
            (lambda: bd.hybrid.Conserve(science, {}), "totals must name"),
            (lambda: bd.hybrid.Conserve(science, {"a": 1.0}), "totals must be a dict of dicts"),
            (
                lambda: bd.hybrid.Conserve(decay(1.0), {"m": {"a": 1.0}}),
                "vector_field must be a function .*, not the layer ODE",
            ),
            (lambda: bd.Residual(science, None), "closure must be a function"),
            (lambda: bd.Residual(science, dist.Normal(0.0, 1.0)), "closure must be a function"),
            (
                lambda: bd.Residual(science, decay(1.0)),
                "closure must be a function .*, not the layer ODE",
            ),
            (lambda: bd.Residual(1.0, closure), "science must be a function"),
            (lambda: bd.Residual(science, closure, orthogonal=True), "orthogonal takes the data"),
            (
                lambda: bd.Series(decay(1.0), decay(2.0)),
                "network must be a function .*, not the layer ODE",
            ),
            (lambda: bd.Hierarchical({"a": decay(1.0)}, None), "network must be a function"),
            (lambda: bd.Hierarchical({"a": None}, closure), r"sciences\['a'\] must be a function"),
            (lambda: bd.Parallel({"a": science, "b": 2.0}), r"models\['b'\] must be a function"),
            (
                lambda: bd.Parallel({"a": science, "b": science}, decay(1.0)),
                "a gate must be a function",
            ),
            (
                lambda: bd.ODE(bd.Residual(decay(1.0), closure), {"y": 1.0})(bd.inputs(DATA)),
                "this Residual joins layers, so it is a layer itself",
            ),
            (
                lambda: bd.hybrid.Conserve(science, {"m": {"a": 1.0}, "n": {"a": 2.0}}),
                "depend on each other",
            ),
            (
                lambda: bd.hybrid.Conserve(science, {"m": {"wolf": 1.0}})(0.0, Y, U),
                "weigh wolf; the states are prey",
            ),
            (
                lambda: bd.Model(bd.Residual(science, closure), bd.NormalNoise(1.0)),
                "put it into a bd.ODE",
            ),
            (
                lambda: bd.Parallel({"a": science, "b": closure}, jnp.ones(2) / 2)(0.0, Y, U),
                "must return the same",
            ),
            (
                lambda: bd.Parallel({"a": driven(interpolation={"rain": "step"}), "b": driven()}),
                "interpolation of 'rain': 'step' in 'a' but 'linear' in 'b'; choose one",
            ),
            (
                lambda: bd.Hierarchical(
                    {"a": driven(units={"rain": "mm"}), "b": driven(units={"rain": "m"})}, closure
                ),
                "units of 'rain': 'mm' in 'a' but 'm' in 'b'; choose one",
            ),
            (
                lambda: bd.Parallel({"a": science, "b": science}, lambda t, y, u: {"a": 1.0})(
                    0.0, Y, U
                ),
                "a logit for each of a, b",
            ),
        ],
    )
    def test_is_refused(self, unchecked, build, message):
        with pytest.raises(ModelError, match=message):
            build()


class TestInAModel:
    """What a hybrid of layers needs from the data, and what it passes on."""

    def test_forcings_of_the_science_come_from_the_data(self):
        wet = bd.Algebraic(lambda t, y, u: {"y": u["rain"] * t}, forcings=("rain",))
        hybrid = bd.Residual(wet, lambda t, y, u: {"y": u["sun"]}, extra=("sun",))
        assert hybrid.forcings == ("rain", "sun")
        data = DATA.assign(sun=("time", [0.1, 0.2, 0.3]), y=("time", [2.0, 2.0, 2.0]))
        model = bd.Model(hybrid, bd.NormalNoise(dist.HalfNormal(1.0)))
        values = solve(model.layer, model.inputs(data)).values["y"]
        np.testing.assert_allclose(
            values, DATA["rain"].values * TIMES + data["sun"].values, rtol=1e-8
        )

    def test_a_layer_without_a_start_takes_that_of_the_others(self):
        curve = bd.Algebraic(lambda t, y, u: {"y": t})
        for models in (
            {"a": decay(0.7, start=-1.0), "b": curve},
            {"a": curve, "b": decay(0.7, start=-1.0)},
        ):
            model = bd.Model(bd.Parallel(models, jnp.array([0.5, 0.5])), bd.NormalNoise(1.0))
            assert model.layer.start == -1.0
            assert float(model.inputs(DATA.assign(y=DATA["rain"])).start) == -1.0

    @pytest.mark.thorough
    def test_mismatches_of_all_parts_count(self):
        gaps = {"near": np.array([0.5]), "far": np.array([3.0, -1.0])}
        both = bd.Parallel(
            {name: Gaps(gap=gap) for name, gap in gaps.items()}, jnp.array([0.5, 0.5])
        )(bd.inputs(DATA))
        assert {name: tuple(v.tolist()) for name, v in both.constraint_residuals.items()} == {
            "near.knots": (0.5,), "far.knots": (3.0, -1.0)
        }  # fmt: skip
        assert float(both.log_factor) == pytest.approx(-0.5 * (0.5**2 + 3.0**2 + 1.0))
