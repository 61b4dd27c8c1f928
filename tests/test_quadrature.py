"""Quadrature against closed forms: exactness, orders of convergence, virial coefficients,
gradients.
"""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gamma

from bayes_dasl.equations import integrate, integrate_between
from bayes_dasl.errors import ModelError

ALGEBRA = 10 * np.sqrt(np.finfo(float).eps)
ROUNDING = 100 * np.finfo(float).eps


class TestRule:
    @pytest.mark.parametrize("nodes", [1, 2, 5])
    def test_exact_for_polynomials_up_to_their_degree(self, nodes):
        def missed(degree):
            exact = (2.0 ** (degree + 1) - 0.5 ** (degree + 1)) / (degree + 1)
            return abs(float(integrate(lambda x: x**degree, 0.5, 2.0, nodes=nodes)) / exact - 1)

        assert missed(2 * nodes - 1) < ROUNDING
        assert missed(2 * nodes) > 1e6 * ROUNDING

    @pytest.mark.thorough("1", "3")
    @pytest.mark.parametrize("nodes", [1, 2, 3])
    def test_order_in_panels(self, nodes):
        errors = [
            abs(integrate(jnp.exp, 0.0, 2.0, nodes=nodes, panels=n) - np.expm1(2.0))
            for n in (8, 16)
        ]
        assert np.log2(errors[0] / errors[1]) == pytest.approx(2 * nodes, abs=0.05)

    @pytest.mark.thorough
    def test_geometric_in_nodes(self):
        """Poles at ±i, and [−1, 1]: each node gains the factor (1 + √2)²."""
        errors = [
            abs(integrate(lambda x: 1 / (1 + x**2), -1.0, 1.0, nodes=n) - np.pi / 2)
            for n in (5, 10, 15)
        ]
        rates = [(early / late) ** 0.2 for early, late in itertools.pairwise(errors)]
        assert rates == pytest.approx([(1 + np.sqrt(2)) ** 2] * 2, rel=0.05)

    def test_every_kind_of_value(self):
        both = integrate(lambda x: {"a": x, "b": jnp.stack([x**2, jnp.ones(())])}, 0.0, 3.0)
        assert float(both["a"]) == pytest.approx(4.5, rel=ROUNDING)
        np.testing.assert_allclose(both["b"], [9.0, 3.0], rtol=ROUNDING)

    def test_limits_the_other_way_round(self):
        assert float(integrate(jnp.exp, 1.0, 0.0)) == pytest.approx(-np.expm1(1.0), rel=ROUNDING)


class TestInfinite:
    @pytest.mark.thorough("2-0.5")
    @pytest.mark.parametrize("scale", [0.5, 1.0, 4.0])
    @pytest.mark.parametrize("power", [2, 4, 7])
    def test_powers(self, power, scale):
        value = integrate(lambda x: (1 + x) ** -power, 1.0, math.inf, scale=scale, nodes=40)
        assert float(value) == pytest.approx(2.0 ** (1 - power) / (power - 1), rel=ALGEBRA)

    @pytest.mark.thorough
    def test_a_gaussian(self):
        value = integrate(lambda x: jnp.exp(-(x**2) / 2), 0.0, math.inf, nodes=60)
        assert float(value) == pytest.approx(np.sqrt(np.pi / 2), rel=1e-9)


def lennard_jones(temperature, nodes=20):
    """B₂ / (2πNσ³/3) at k T / ε."""

    def integrand(r):
        return -3 * jnp.expm1(-4 * (r**-12 - r**-6) / temperature) * r**2

    return integrate_between(integrand, (0.0, 0.6, 0.8, 1.0, 1.4, 2.0, math.inf), nodes=nodes)


value_and_slope = jax.jit(jax.value_and_grad(lennard_jones))


def series(temperature, derivative=False):
    """Hirschfelder, Curtiss & Bird (1954), equation 3.6-3."""
    j = np.arange(80)
    power = -(2 * j + 1) / 4
    factors = np.array(
        [-(2.0 ** (i + 0.5)) / (4 * math.factorial(i)) * gamma((2 * i - 1) / 4) for i in j]
    )
    terms = power * temperature ** (power - 1) if derivative else temperature**power
    return float(np.sum(factors * terms))


class TestVirial:
    @pytest.mark.parametrize("temperature", [0.5, 0.8, 1.0, 3.418, 8.0, 20.0])
    def test_lennard_jones(self, temperature):
        value, slope = value_and_slope(temperature)
        assert float(value) == pytest.approx(series(temperature), abs=1e-8)
        assert float(slope) == pytest.approx(series(temperature, derivative=True), abs=1e-7)

    def test_the_series_is_the_published_one(self):
        """Hirschfelder, Curtiss & Bird (1954), table I-B; the Boyle temperature."""
        assert series(1.0) == pytest.approx(-2.5380814, abs=1e-7)
        assert series(3.417928) == pytest.approx(0.0, abs=1e-6)

    @pytest.mark.thorough
    def test_converges_in_nodes(self):
        errors = [abs(float(lennard_jones(0.7, nodes)) - series(0.7)) for nodes in (4, 8, 16)]
        assert errors[0] > 30 * errors[1] > 1000 * errors[2]

    def test_hard_spheres(self):
        def virial(diameter):
            return integrate_between(
                lambda r: 2 * jnp.pi * jnp.where(r < diameter, 1.0, 0.0) * r**2,
                (0.0, diameter, math.inf),
                nodes=2,
            )

        value, slope = jax.jit(jax.value_and_grad(virial))(1.3)
        assert float(value) == pytest.approx(2 * np.pi / 3 * 1.3**3, rel=ROUNDING)
        # The jump moves with its edge.
        assert float(slope) == pytest.approx(2 * np.pi * 1.3**2, rel=ROUNDING)

    @pytest.mark.thorough
    def test_square_well(self):
        def virial(p):
            def integrand(r):
                well = jnp.where(r < p["width"] * p["diameter"], -jnp.expm1(p["depth"]), 0.0)
                return 2 * jnp.pi * jnp.where(r < p["diameter"], 1.0, well) * r**2

            edges = (0.0, p["diameter"], p["width"] * p["diameter"], math.inf)
            return integrate_between(integrand, edges, nodes=3)

        def exact(p):
            well = (p["width"] ** 3 - 1) * jnp.expm1(p["depth"])
            return 2 * jnp.pi / 3 * p["diameter"] ** 3 * (1 - well)

        p = {"diameter": 0.9, "width": 1.6, "depth": 0.7}
        (ours, slopes), (value, closed) = (
            jax.jit(jax.value_and_grad(f))(p) for f in (virial, exact)
        )
        assert float(ours) == pytest.approx(float(value), rel=ROUNDING)
        forward = jax.jit(jax.jacfwd(virial))(p)
        for name in p:
            assert float(slopes[name]) == pytest.approx(float(closed[name]), rel=ROUNDING), name
            assert float(forward[name]) == pytest.approx(float(closed[name]), rel=ROUNDING), name


@pytest.mark.thorough
def test_gradients_in_limits_parameters_and_scale():
    def value(rate, low, high):
        return integrate(lambda x: jnp.exp(-rate * x), low, high)

    rate, low, high = 0.7, jnp.asarray([0.1, 0.4]), jnp.asarray([2.0, 3.0])
    slopes = jax.jit(jax.vmap(jax.grad(value, argnums=(0, 1, 2)), (None, 0, 0)))(rate, low, high)
    ends = [np.exp(-rate * np.asarray(x)) for x in (low, high)]
    by_rate = sum(
        sign * e * (x / rate + 1 / rate**2)
        for sign, e, x in zip((-1, 1), ends, (low, high), strict=True)
    )
    np.testing.assert_allclose(slopes[0], by_rate, rtol=ALGEBRA)
    np.testing.assert_allclose(slopes[1], -ends[0], rtol=ALGEBRA)
    np.testing.assert_allclose(slopes[2], ends[1], rtol=ALGEBRA)

    def by_scale(scale):
        return integrate(lambda x: (1 + x) ** -3.0, 0.0, math.inf, scale=scale, nodes=40)

    assert float(jax.jit(jax.grad(by_scale))(2.0)) == pytest.approx(0.0, abs=ALGEBRA)


class TestRefusals:
    @pytest.mark.parametrize(
        "option", [{"nodes": 0}, {"panels": 0}, {"nodes": 2.5}, {"panels": -1}]
    )
    def test_counts(self, unchecked, option):
        name = next(iter(option))
        with pytest.raises(ModelError, match=f"{name} must be a whole number of at least 1"):
            integrate(jnp.exp, 0.0, 1.0, **option)

    @pytest.mark.parametrize("limits", [(-math.inf, 0.0), (math.inf, 0.0), (0.0, -math.inf)])
    def test_limits(self, limits):
        with pytest.raises(ModelError, match=r"only high may be math\.inf"):
            integrate(jnp.exp, *limits)

    def test_edges(self):
        with pytest.raises(ModelError, match="at least two edges, not 1"):
            integrate_between(jnp.exp, (0.0,))
