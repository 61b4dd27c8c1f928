"""Networks: the variance of their prior, names, groups, standardised inputs and sizes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import paths, realise

EXACT = 10 * np.sqrt(np.finfo(float).eps)
PRIOR = dist.LogNormal(-2.0, 0.5)


def mlp(inputs=2, outputs=2, width=4, depth=1):
    return eqx.nn.MLP(inputs, outputs, width, depth, activation=jnp.tanh, key=jax.random.key(0))


def realised(network, key=1):
    draw = draw_prior(network, 1, key=jax.random.key(key))
    return realise(network, {path: v[0] for path, v in draw.items()})


class TestPriorVariance:
    draws = 4000
    x = np.array([0.6, -1.2])

    def outputs(self, width, scale):
        network = bd.Network(mlp(width=width), ("a", "b"), ("f", "g"), scale)
        values = dict(zip("ab", jnp.asarray(self.x), strict=True))
        run = jax.jit(jax.vmap(lambda draw: realise(network, draw)(0.0, values, {})["f"]))
        return np.asarray(run(draw_prior(network, self.draws, key=jax.random.key(2))))

    def exact(self, scale):
        """s² (E tanh² z + 1), z ~ N(0, |x|² / 2 + 1): what N(0, 1 / fan-in) weights and N(0, 1)
        biases give.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        z = nodes * np.sqrt(self.x @ self.x / 2 + 1)
        return scale**2 * (weights @ np.tanh(z) ** 2 / weights.sum() + 1)

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        ("width", "scale"), [(4, 1.0), pytest.param(16, 0.05, marks=pytest.mark.slow), (64, 1.0)]
    )
    def test_does_not_grow_with_the_width(self, width, scale):
        squares = self.outputs(width, scale) ** 2
        error = 4 * squares.std() / np.sqrt(self.draws)
        assert abs(squares.mean() - self.exact(scale)) < error
        assert abs(squares.mean() - self.exact(1.2 * scale)) > error
        # So the scale is about the standard deviation.
        assert scale < np.sqrt(self.exact(scale)) < 1.5 * scale


class TestRandomLeaves:
    names = tuple(f"module.layers.{i}.{what}" for i in (0, 1) for what in ("weight", "bias"))

    def test_are_the_arrays(self):
        leaves = paths(bd.Network(mlp(3, 2, width=5), ("a", "b", "t"), ("f", "g")))
        assert tuple(leaves) == self.names
        assert [leaf.shape for leaf in leaves.values()] == [(5, 3), (5,), (2, 5), (2,)]
        assert {leaf.group for leaf in leaves.values()} == {"network"}

    def test_a_scale_to_learn_is_one_of_them(self):
        leaves = paths(bd.Network(mlp(), ("a", "b"), ("f", "g"), scale=PRIOR))
        assert tuple(leaves) == (*self.names, "scale")
        assert (leaves["scale"].group, leaves["scale"].shape) == ("network", ())

    def test_of_science_beside_it_are_not(self):
        science = bd.LogNormalNoise(PRIOR)
        network = bd.Network(mlp(), ("a", "b"), ("f", "g"))
        groups = {path: leaf.group for path, leaf in paths([science, network, science]).items()}
        assert [path for path, group in groups.items() if group == "science"] == [
            "0.scale",
            "2.scale",
        ]

    def test_scale_is_one_number(self, unchecked):
        with pytest.raises(ModelError, match=r"Network\.scale"):
            bd.Network(mlp(), ("a", "b"), ("f", "g"), scale=np.ones(2))


class TestValues:
    y, u = {"a": jnp.asarray(3.0), "unused": jnp.asarray(9.0)}, {"b": jnp.asarray(-1.0)}

    def test_by_hand(self):
        network = realised(
            bd.Network(mlp(3), {"b": (1.0, 2.0), "t": (0.0, 1.0), "a": (2.0, 4.0)}, ("f", "g"), 0.3)
        )
        x = np.array([(-1.0 - 1.0) / 2.0, 5.0, (3.0 - 2.0) / 4.0])
        first, second = network.module.layers
        hidden = np.tanh(np.asarray(first.weight) @ x + np.asarray(first.bias))
        expected = 0.3 * (np.asarray(second.weight) @ hidden + np.asarray(second.bias))
        out = network(5.0, self.y, self.u)
        assert tuple(out) == ("f", "g")
        np.testing.assert_allclose([out["f"], out["g"]], expected, rtol=EXACT)

    @pytest.mark.thorough
    def test_the_order_of_inputs_counts_in_a_compiled_function(self):
        call = eqx.filter_jit(lambda network: network(0.0, self.y, self.u)["f"])
        one, other = (
            realised(bd.Network(mlp(), names, ("f", "g"))) for names in (("a", "b"), ("b", "a"))
        )
        for network in (one, other):
            assert float(call(network)) == pytest.approx(
                float(network(0.0, self.y, self.u)["f"]), rel=EXACT
            )
        assert float(call(one)) != pytest.approx(float(call(other)), rel=EXACT)

    @pytest.mark.thorough
    def test_a_program_serves_other_locations_and_widths(self):
        """They are arguments of it, or data that are standardised in another way would need a new
        one.
        """
        made = [
            realised(bd.Network(mlp(), {"a": scaling, "b": scaling}, ("f", "g")))
            for scaling in ((1, 2), (3, 4))
        ]
        texts = [
            str(jax.make_jaxpr(lambda y, net=net: net(0.0, y, self.u))(self.y)) for net in made
        ]
        assert texts[0] == texts[1]

    def test_an_input_that_nobody_gives(self):
        with pytest.raises(ModelError, match="network input rain is none of t, b, a, unused"):
            realised(bd.Network(mlp(), ("a", "rain"), ("f", "g")))(0.0, self.y, self.u)


class TestSizes:
    @pytest.mark.parametrize(
        ("inputs", "outputs", "message"),
        [
            (("a", "b", "c"), ("f", "g"), "does not take a vector of 3 inputs"),
            (("a", "b"), ("f",), r"returns shape \(2,\), but 1 outputs are named: want \(1,\)"),
            ("ab", ("f", "g"), "must be tuples of names"),
            (("a", "b"), "fg", "must be tuples of names"),
        ],
    )
    def test_refused(self, unchecked, inputs, outputs, message):
        with pytest.raises(ModelError, match=message):
            bd.Network(mlp(), inputs, outputs)

    @pytest.mark.parametrize(
        "pair",
        [
            3.0,
            (3.0,),
            (1.0, 2.0, 3.0),
            (0.0, 0.0),
            (0.0, -1.0),
            (np.nan, 1.0),
            (0.0, np.inf),
            "ab",
            None,
        ],
    )
    def test_an_input_without_location_and_width(self, unchecked, pair):
        with pytest.raises(
            ModelError, match=r"input 'b' needs a pair \(location, width\), the width positive, not"
        ):
            bd.Network(mlp(), {"a": (0.0, 1.0), "b": pair}, ("f", "g"))

    @pytest.mark.thorough("0.0")
    @pytest.mark.parametrize("scale", [0.0, -1, np.inf, np.nan])
    def test_a_known_scale_is_positive(self, scale):
        with pytest.raises(ModelError, match=r"Network\.scale must be a positive number"):
            bd.Network.mlp(("a", "b"), ("f", "g"), scale)

    def test_dropout_layers_are_left_out(self):
        first, second = mlp().layers
        module = eqx.nn.Sequential([first, eqx.nn.Dropout(0.1), second])
        with pytest.raises(
            ModelError,
            match=r"leave dropout layers out: the engine bd\.engines\.MCDropout needs none",
        ):
            bd.Network(module, ("a", "b"), ("f", "g"))
        with pytest.raises(ModelError, match="does not take a vector of 2 inputs") as others:
            bd.Network(mlp(3), ("a", "b"), ("f", "g"))
        assert "dropout" not in str(others.value)


class TestPriors:
    def test_scales_by_layer(self):
        wide = bd.Network(mlp(), ("a", "b"), ("f", "g"), prior=bd.networks.fan_in(2.0, bias=0.5))
        spread = {
            p: float(leaf.distribution.variance.max()) ** 0.5 for p, leaf in paths(wide).items()
        }
        assert spread["module.layers.0.weight"] == pytest.approx(2.0 / np.sqrt(2))
        assert spread["module.layers.1.weight"] == pytest.approx(2.0 / np.sqrt(4))
        assert spread["module.layers.0.bias"] == 0.5

    def test_of_ones_own(self):
        def prior(name, weight):
            scale = 3.0 if name.startswith("layers.1") else 1.0
            return dist.Laplace(0.0, scale).expand(weight.shape).to_event(weight.ndim)

        leaves = paths(bd.Network(mlp(), ("a", "b"), ("f", "g"), prior=prior))
        assert float(leaves["module.layers.1.bias"].distribution.variance[0]) == pytest.approx(18.0)
        with pytest.raises(
            ModelError, match=r"'layers\.0\.weight' must be a distribution of shape \(4, 2\)"
        ):
            bd.Network(mlp(), ("a", "b"), ("f", "g"), prior=lambda name, weight: dist.Normal(0, 1))

    @pytest.mark.parametrize(
        ("random", "left"), [("last", "1"), (("layers.0",), "0"), ("layers.1", "1")]
    )
    def test_some_layers_are_known(self, random, left):
        module = mlp()
        network = bd.Network(module, ("a", "b"), ("f", "g"), random=random)
        assert set(paths(network)) == {
            f"module.layers.{left}.{part}" for part in ("weight", "bias")
        }
        other = 1 - int(left)
        np.testing.assert_array_equal(
            network.module.layers[other].weight, module.layers[other].weight
        )

    @pytest.mark.parametrize("random", ["first", ("layers.0", "layers.7"), ()])
    def test_layers_that_there_are_not(self, random):
        with pytest.raises(
            ModelError, match=r"random must be 'all', 'last' or some of layers\.0, layers\.1"
        ):
            bd.Network(mlp(), ("a", "b"), ("f", "g"), random=random)

    @pytest.mark.slow
    def test_sparse_weights_are_a_horseshoe(self):
        network = bd.Network(mlp(width=30), ("a", "b"), ("f", "g"), prior=bd.networks.sparse(2.0))
        leaves = paths(network)
        assert leaves["module.layers.1.weight.weights.z"].shape == (60,)
        assert {leaf.group for leaf in leaves.values()} == {"network"}
        draws = draw_prior(network, 2000, key=jax.random.key(0))
        of = jax.jit(jax.vmap(lambda draw: realise(network, draw).module.layers[1].weight()))
        weights = np.asarray(of({path: values[:200] for path, values in draws.items()}))
        assert weights.shape == (200, 2, 30)
        share = (np.abs(weights) > 0.3).mean()
        assert 0.01 < share < 0.2  # few matter, and some do
        out = realised(network)(0.0, {"a": jnp.array(0.3), "b": jnp.array(-0.2)}, {})
        assert set(out) == {"f", "g"}

    def test_a_perceptron_from_names(self):
        network = bd.Network.mlp(("a", "b", "t"), ("f",), 0.1, width=5, depth=2, random="last")
        assert set(paths(network)) == {"module.layers.2.weight", "module.layers.2.bias"}
        assert network.module.activation is jnp.tanh


def test_what_fades_goes_to_zero_far_from_its_inputs():
    inputs = {"x": (1.0, 0.5)}
    whole, fading = (
        bd.Network.mlp(inputs, ("g",), 1.0, random="last", fades=fades) for fades in (False, True)
    )
    draw = {path: values[0] for path, values in draw_prior(whole, 1, key=jax.random.key(0)).items()}
    at = lambda network, x: float(realise(network, draw)(0.0, {"x": jnp.asarray(x)}, {})["g"])  # noqa: E731
    assert at(fading, 1.3) == pytest.approx(at(whole, 1.3), rel=0.01)
    assert abs(at(fading, 30.0)) < 1e-6 * abs(at(whole, 30.0))


def test_fourier_features_have_the_variance_and_the_length_of_a_process():
    """Without the trend the covariance of g(0) and g(d) is that of a squared-exponential kernel."""
    network = bd.Network.fourier({"x": (0.0, 1.0)}, ("g",), size=200, length=1.5)
    draws = draw_prior(network, 4000, key=jax.random.key(0))
    weight = draws["module.last.weight"].at[..., -1].set(0.0)
    draws |= {"module.last.weight": weight, "module.last.bias": 0.0 * draws["module.last.bias"]}
    x = jnp.asarray([0.0, 1.5])
    found = np.asarray(jax.vmap(lambda draw: realise(network, draw)(0.0, {"x": x}, {})["g"])(draws))
    np.testing.assert_allclose(
        np.cov(found.T), [[1.0, np.exp(-0.5)], [np.exp(-0.5), 1.0]], atol=0.1
    )
    with pytest.raises(ModelError, match="size must be a whole number from 1 on"):
        bd.Network.fourier({"x": (0.0, 1.0)}, ("g",), size=0)
