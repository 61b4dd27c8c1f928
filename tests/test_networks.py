"""Networks: the variance of their prior, names, groups, standardised inputs and sizes."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest

import bayes_dasl as bd
from bayes_dasl._errors import ModelError
from bayes_dasl.random import draw_prior, paths, realise

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
        """s² (E tanh² z + 1), z ~ N(0, |x|² / 2 + 1): what N(0, 1 / fan-in) weights and N(0, 1) biases give."""
        nodes, weights = np.polynomial.hermite_e.hermegauss(80)
        z = nodes * np.sqrt(self.x @ self.x / 2 + 1)
        return scale**2 * (weights @ np.tanh(z) ** 2 / weights.sum() + 1)

    @pytest.mark.parametrize(("width", "scale"), [(4, 1.0), (16, 0.05), (64, 1.0)])
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
        assert [path for path, group in groups.items() if group == "science"] == ["0.scale", "2.scale"]

    def test_scale_is_one_number(self, unchecked):
        with pytest.raises(ModelError, match=r"Network\.scale"):
            bd.Network(mlp(), ("a", "b"), ("f", "g"), scale=np.ones(2))


class TestValues:
    y, u = {"a": jnp.asarray(3.0), "unused": jnp.asarray(9.0)}, {"b": jnp.asarray(-1.0)}

    def test_by_hand(self):
        network = realised(bd.Network(mlp(3), {"b": (1.0, 2.0), "t": (0.0, 1.0), "a": (2.0, 4.0)}, ("f", "g"), 0.3))
        x = np.array([(-1.0 - 1.0) / 2.0, 5.0, (3.0 - 2.0) / 4.0])
        first, second = network.module.layers
        hidden = np.tanh(np.asarray(first.weight) @ x + np.asarray(first.bias))
        expected = 0.3 * (np.asarray(second.weight) @ hidden + np.asarray(second.bias))
        out = network(5.0, self.y, self.u)
        assert tuple(out) == ("f", "g")
        np.testing.assert_allclose([out["f"], out["g"]], expected, rtol=EXACT)

    def test_the_order_of_inputs_counts_in_a_compiled_function(self):
        call = eqx.filter_jit(lambda network: network(0.0, self.y, self.u)["f"])
        one, other = (realised(bd.Network(mlp(), names, ("f", "g"))) for names in (("a", "b"), ("b", "a")))
        for network in (one, other):
            assert float(call(network)) == pytest.approx(float(network(0.0, self.y, self.u)["f"]), rel=EXACT)
        assert float(call(one)) != pytest.approx(float(call(other)), rel=EXACT)

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
