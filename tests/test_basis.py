"""Unknown functions: features against SciPy and NumPy, priors, shapes, gradients, and a fit."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from adaptive_checks import (
    EXACT,
    check_gradients,
    check_log_density,
    over_prior,
    realised,
    share_in_band,
)
from numpy.polynomial import chebyshev, legendre
from scipy import interpolate
from scipy.integrate import solve_ivp
from scipy.optimize import minimize
from scipy.stats import norm

import bayes_dasl as bd
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.random import paths, realise
from bayes_dasl.unknown_functions import Basis
from bayes_dasl.unknown_functions.bases import (
    RBF,
    BSpline,
    Fourier,
    HilbertGP,
    Horseshoe,
    NormalShrinkage,
    Polynomial,
    Product,
    RandomWalk,
)
from bayes_dasl.unknown_functions.bases.families import mean_square

LOW, HIGH = -1.0, 2.0
INSIDE = np.linspace(LOW, HIGH, 40)[:-1]
OUTSIDE = np.array([-7.0, LOW, HIGH, 5.0])
FAMILIES = {
    "spline": BSpline(LOW, HIGH, 9),
    "bumps": RBF(LOW, HIGH, 9),
    "harmonics": Fourier(LOW, HIGH, 7),
    "legendre": Polynomial(LOW, HIGH, 3),
    "chebyshev": Polynomial(LOW, HIGH, 3, "chebyshev"),
}
GP = HilbertGP(LOW, HIGH, 20, length=0.6, amplitude=0.8)


class TestBSpline:
    @pytest.mark.thorough("2", "3", "4")
    @pytest.mark.parametrize("degree", range(5))
    def test_against_scipy(self, degree):
        family = BSpline(LOW, HIGH, 7, degree)
        knots = LOW + (HIGH - LOW) / (7 - degree) * np.arange(-degree, 8)
        exact = interpolate.BSpline.design_matrix(INSIDE, knots, degree).toarray()
        np.testing.assert_allclose(family(INSIDE) * np.sqrt(mean_square(degree)), exact, atol=EXACT)

    @pytest.mark.thorough("0", "3", "4")
    @pytest.mark.parametrize("degree", range(5))
    def test_integrals_against_scipy(self, degree):
        family = BSpline(LOW, HIGH, 7, degree)
        width = (HIGH - LOW) / (7 - degree)
        knots = LOW + width * np.arange(-degree, 8)
        exact = [interpolate.BSpline(knots, row, degree).antiderivative() for row in np.eye(7)]
        values = np.stack([(f(INSIDE) - f(LOW)) / width for f in exact], axis=-1)
        np.testing.assert_allclose(family.integrals(INSIDE), values, atol=EXACT)
        assert float(family.integrals(HIGH).sum()) == pytest.approx(7 - degree)

    @pytest.mark.parametrize("degree", [1, 2, 3])
    def test_order_of_approximation(self, degree):
        """The error of the best spline falls as the interval of knots to the power of degree +
        1.
        """
        x = np.linspace(0, 1, 400)
        sizes = np.array([8, 16, 32])

        def error(size):
            features = np.asarray(jax.jit(BSpline(0, 1, int(size) + degree, degree))(x))
            return np.abs(
                features @ np.linalg.lstsq(features, np.sin(5 * x))[0] - np.sin(5 * x)
            ).max()

        orders = -np.diff(np.log([error(s) for s in sizes])) / np.log(2)
        np.testing.assert_allclose(orders, degree + 1, atol=0.4)


class TestPolynomial:
    @pytest.mark.parametrize(
        ("kind", "vander"), [("legendre", legendre.legvander), ("chebyshev", chebyshev.chebvander)]
    )
    @pytest.mark.parametrize(("lowest", "degree"), [(0, 0), (0, 1), (0, 6), (1, 1), (1, 3), (2, 2)])
    def test_against_numpy(self, kind, vander, lowest, degree):
        family = Polynomial(LOW, HIGH, degree, kind, lowest=lowest)
        features = np.asarray(family(INSIDE))
        assert features.shape[-1] == family.size
        exact = vander((2 * INSIDE - LOW - HIGH) / (HIGH - LOW), degree)[:, lowest:]
        nodes, weights = legendre.leggauss(20)
        scale = np.sqrt(np.sum(weights @ vander(nodes, degree)[:, lowest:] ** 2) / 2)
        np.testing.assert_allclose(features, exact / scale, atol=EXACT)

    def test_legendre_is_orthogonal(self):
        nodes, weights = legendre.leggauss(8)
        features = np.asarray(Polynomial(-1, 1, 4)(nodes))
        gram = features.T @ (weights[:, None] * features)
        np.testing.assert_allclose(gram - np.diag(np.diag(gram)), 0, atol=EXACT)


def test_harmonics_are_orthogonal_and_periodic():
    family = Fourier(LOW, HIGH, 9)
    x = np.linspace(LOW, HIGH, 50, endpoint=False)
    features = np.asarray(family(x))
    np.testing.assert_allclose(features.T @ features / 50, np.eye(9) / 9, atol=EXACT)
    np.testing.assert_allclose(family(x + 2 * (HIGH - LOW)), features, atol=EXACT)


def test_bumps_by_hand():
    h = (HIGH - LOW) / (9 - 3)
    centres = np.linspace(LOW - h, HIGH + h, 9)
    exact = np.exp(-0.5 * ((INSIDE[:, None] - centres) / h) ** 2) / np.pi**0.25
    np.testing.assert_allclose(FAMILIES["bumps"](INSIDE), exact, rtol=EXACT)


class TestHilbertGP:
    """The feature products are Σ_j S(ω_j) φ_j φ_j / L, whose full series is the kernel and its
    mirror images.
    """

    def kernels(self, kernel, length):
        def exact(r):
            if kernel == "squared_exponential":
                return np.exp(-0.5 * (r / length) ** 2)
            s = np.sqrt(3 if kernel == "matern32" else 5) * r / length
            return (1 + s + (s**2 / 3 if kernel == "matern52" else 0)) * np.exp(-s)

        return exact

    @pytest.mark.thorough("squared_exponential")
    @pytest.mark.parametrize("kernel", ["squared_exponential", "matern32", "matern52"])
    def test_against_the_exact_kernel(self, kernel):
        length, boundary, half, many = 0.6, 2.5, (HIGH - LOW) / 2, 4000
        exact = self.kernels(kernel, length)(np.abs(INSIDE[:, None] - INSIDE))
        full = np.asarray(HilbertGP(LOW, HIGH, many, length, 1.5, kernel, boundary)(INSIDE))
        # The nearest image lies twice as far as the boundary of the wider interval, and there are
        # two sides.
        images = 2 * self.kernels(kernel, length)(2 * (boundary - 1) * half)
        for size in (10, 20, 80, many):
            features = np.asarray(HilbertGP(LOW, HIGH, size, length, 1.5, kernel, boundary)(INSIDE))
            error = np.abs(features @ features.T / 1.5**2 - exact).max()
            tail = np.sum(full[:, size:] ** 2 / 1.5**2, axis=1).max()
            # Further images add less than a tenth to the nearest.
            assert error < tail + 1.1 * images + EXACT, size
        assert error < 0.01

    @pytest.mark.thorough
    def test_the_default_length_is_what_it_resolves(self):
        family = HilbertGP(LOW, HIGH, 30)
        shortest, longest = family.resolved_lengths
        # Riutort-Mayol et al.: m = 1.75 c / (ℓ / S) and c ≥ 3.2 ℓ / S.
        assert 1.75 * 1.5 / (shortest / 1.5) == pytest.approx(30)
        assert 3.2 * longest / 1.5 == pytest.approx(1.5)
        leaves = paths(family)
        low, high = leaves["length"].distribution.icdf(jnp.asarray([0.025, 0.975]))
        assert (float(low), float(high)) == pytest.approx((shortest, longest))
        assert isinstance(leaves["amplitude"].distribution, dist.HalfNormal)
        for length in (shortest, longest):
            kernel = self.kernels("squared_exponential", length)
            features = np.asarray(HilbertGP(LOW, HIGH, 30, length, 1.0)(INSIDE))
            # What lies beyond the last frequency, twice where a sine is 1, and the image in the
            # nearer boundary.
            tail = 4 * norm.sf(1.75 * np.pi / 2)
            assert np.abs(
                features @ features.T - kernel(INSIDE[:, None] - INSIDE)
            ).max() < tail + kernel(1.5)
        assert kernel(1.5) > 0.05  # at the very ends a longer process would be wrong

    def test_over_data_it_spans_them_and_is_as_large_as_said(self):
        data = xr.Dataset(
            {"heat": ("time", [3.0, np.nan, 8.0, 5.0])}, {"time": [10.0, 11.0, 12.0, 30.0]}
        )
        family = HilbertGP.over(data, "heat", unit=0.2)
        assert (family.low, family.high) == pytest.approx((0.5, 10.5))
        assert float(paths(family)["amplitude"].distribution.scale) == 0.2
        assert "length" in paths(family)
        assert HilbertGP.over(data, "heat", None).amplitude == 1.0
        of_time = HilbertGP.over(data, "t", 1.0, 30, "matern52")
        assert (of_time.low, of_time.high, of_time.size, of_time.kernel) == pytest.approx(
            (0.0, 40.0, 30, "matern52")
        )

    def test_time_is_that_of_the_rows_whatever_stands_beside_them(self):
        rows = xr.Dataset({"y": ("time", [1.0, 2.0])}, {"time": [100.0, 110.0]})
        both = xr.Dataset(
            {"weight": ("subject", [60.0, 70.0, 80.0])}, {"subject": [1, 2, 3]}
        ).merge(rows)
        assert HilbertGP.over(both, "t", 1.0).low == pytest.approx(95.0)

    def test_over_data_that_say_no_range_it_is_refused(self):
        data = xr.Dataset(
            {"heat": ("time", [3.0, 3.0])},
            {"time": np.array(["2001-01-01", "2001-01-02"], "M8[ns]")},
        )
        for name, unit, said in (
            *(("cold", 1.0, "have no 'cold'"), ("heat", 1.0, "no two values")),
            ("heat", 0.0, "positive number"),
        ):
            with pytest.raises((DataError, ModelError), match=said):
                HilbertGP.over(data, name, unit)


@pytest.mark.thorough("spline", "bumps")
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "harmonics"])
def test_held_constant_outside(name):
    features = np.asarray(FAMILIES[name](OUTSIDE))
    np.testing.assert_array_equal(features[[0, 3]], features[[1, 2]])


# What the docstring of Polynomial says of its ends; the others are flat.
SPREAD = dict.fromkeys(FAMILIES, (0.97, 1.03)) | {"legendre": (0.85, 1.61), "chebyshev": (0.9, 1.4)}


@pytest.mark.thorough("spline")
@pytest.mark.parametrize("name", FAMILIES)
def test_scale_is_the_prior_standard_deviation(name):
    draws, scale = 4000, 0.3
    basis = Basis(FAMILIES[name], "x", "g", NormalShrinkage(FAMILIES[name].size, 0.1), scale=3.0)
    x = np.linspace(LOW, HIGH, 61)
    values = over_prior(basis, lambda b: b(0.0, {"x": jnp.asarray(x)}, {})["g"], draws)
    ratio = values.std(0) / scale
    error = 4 / np.sqrt(2 * draws)
    low, high = SPREAD[name]
    assert ratio.min() > low - error
    assert ratio.max() < high + error
    # The mean over the domain is a trapezoidal one, hence the ends count half.
    mean = np.trapezoid(ratio**2, x) / (HIGH - LOW)
    assert mean == pytest.approx(1, abs=2 * error)


@pytest.mark.parametrize("shape", [{}, {"positive": True}, {"monotone": "increasing"}])
def test_prepared_for_a_solve_a_function_is_the_same(shape):
    family = (
        BSpline(0.0, 2.0, 6)
        if "monotone" in shape
        else HilbertGP(0.0, 2.0, 6, length=0.7, amplitude=0.4)
    )
    weights = jnp.linspace(-1.0, 1.5, family.size)
    function = Basis(family, "x", "y", weights, level=0.2, scale=3.0, **shape)
    once = function.prepared()
    value = lambda basis: jax.value_and_grad(lambda x: basis(0.0, {"x": x}, {})["y"])(0.8)  # noqa: E731
    np.testing.assert_allclose(value(once), value(function), rtol=1e-12)
    assert once.prepared() is once and once is not function


def test_amplitude_is_the_prior_standard_deviation_of_a_process():
    values = over_prior(
        Basis(GP, "x", "g"), lambda b: b(0.0, {"x": jnp.asarray(INSIDE)}, {})["g"], 4000
    )
    assert np.abs(values.std(0) / 0.8 - 1).max() < 0.02 + 4 / np.sqrt(2 * 4000)


class TestThrough:
    """A function that passes through a point exactly, whatever its weights."""

    @pytest.mark.parametrize("shape", [{}, {"positive": True}, {"monotone": "decreasing"}])
    def test_it_passes_through_its_point(self, shape):
        family = (
            BSpline(LOW, HIGH, 6)
            if "monotone" in shape
            else HilbertGP(LOW, HIGH, 8, length=0.7, amplitude=2.0)
        )
        options = {"level": 0.2} if shape.get("positive") else {"scale": 3.0}
        for weights in np.random.default_rng(0).normal(size=(2, family.size)):
            free = Basis(family, "x", "g", weights, **options, **shape)
            tied = Basis(family, "x", "g", weights, through=(0.5, 1.3), **options, **shape)
            at = jnp.asarray([0.5, -0.4, 1.7])
            before, after = (basis(0.0, {"x": at}, {})["g"] for basis in (free, tied))
            assert float(after[0]) == pytest.approx(1.3, abs=1e-12)
            if shape.get("positive"):
                np.testing.assert_allclose(
                    (after - 0.2) / 1.1, (before - 0.2) / (before[0] - 0.2), rtol=1e-12
                )
            else:
                np.testing.assert_allclose(after - 1.3, before - before[0], atol=1e-12)
            np.testing.assert_allclose(tied.prepared()(0.0, {"x": at}, {})["g"], after, atol=1e-12)

    def test_a_point_of_several_inputs(self):
        family = Product(BSpline(LOW, HIGH, 5), Polynomial(0.0, 1.0, 2))
        tied = Basis(family, ("x", "z"), "g", jnp.arange(15.0), through=((0.5, 0.3), 1.0))
        assert float(
            tied(0.0, {"x": jnp.asarray(0.5), "z": jnp.asarray(0.3)}, {})["g"]
        ) == pytest.approx(1.0, abs=1e-12)

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"through": (9.0, 1.0)},
                r"through must be a point of the range \[-1, 2\] and a value",
            ),
            ({"through": ((0.0, 0.0), 1.0)}, "through must be a point of the range"),
            ({"through": 1.0}, r"through must be a point \(x0, value\), such as"),
            ({"through": (0.0, np.nan)}, "finite numbers"),
            ({"through": (0.0, 1.0), "level": dist.Normal(0.0, 1.0)}, "leave `level` out"),
            ({"through": (0.0, 1.0), "positive": True, "scale": 2.0}, "leave `scale` out"),
            ({"through": (0.0, 1.0), "positive": True, "level": 1.5}, "cannot pass through 1"),
        ],
    )
    def test_other_points_are_refused(self, unchecked, options, message):
        with pytest.raises(ModelError, match=message):
            Basis(GP, "x", "g", **options)


class TestCall:
    y, u = {"a": jnp.asarray(0.3)}, {"b": jnp.asarray(1.7)}

    @pytest.mark.thorough("a-0.3")
    @pytest.mark.parametrize(("name", "x"), [("a", 0.3), ("b", 1.7), ("t", 0.9)])
    def test_a_state_a_forcing_or_time(self, name, x):
        weights = np.arange(9.0)
        basis = Basis(FAMILIES["spline"], name, "g", weights, level=2.0, scale=0.5)
        out = basis(0.9, self.y, self.u)
        assert list(out) == ["g"]
        assert float(out["g"]) == pytest.approx(2.0 + 0.5 * float(FAMILIES["spline"](x) @ weights))

    @pytest.mark.thorough
    def test_of_arrays(self):
        basis = realised(Basis(Product(FAMILIES["spline"], FAMILIES["legendre"]), ("a", "b"), "g"))
        a, b = np.random.default_rng(0).normal(size=(2, 3, 4))
        call = eqx.filter_jit(basis)
        out = call(0.0, {"a": jnp.asarray(a)}, {"b": jnp.asarray(b)})["g"]
        assert out.shape == (3, 4)
        one = call(0.0, {"a": jnp.asarray(a[1, 2])}, {"b": jnp.asarray(b[1, 2])})["g"]
        assert float(out[1, 2]) == pytest.approx(float(one))

    @pytest.mark.parametrize("input", [("t", "x"), ("x", "t")])
    def test_a_product_of_a_number_and_a_field(self, input):
        basis = Basis(
            Product(BSpline(0, 1, 5), BSpline(0, 1, 6)), input, "g", np.sin(np.arange(30.0))
        )
        x = jnp.linspace(0.1, 0.9, 4)
        call = eqx.filter_jit(basis)
        each = [float(call(0.3, {"x": value}, {})["g"]) for value in x]
        np.testing.assert_allclose(call(0.3, {"x": x}, {})["g"], each, rtol=1e-12)

    def test_a_product_by_hand(self):
        first, second = FAMILIES["spline"], FAMILIES["legendre"]
        weights = np.random.default_rng(0).normal(size=(first.size, second.size))
        basis = Basis(Product(first, second), ("a", "b"), "g", weights.ravel())
        exact = np.asarray(first(0.3)) @ weights @ np.asarray(second(1.7))
        assert float(basis(0.0, self.y, self.u)["g"]) == pytest.approx(float(exact))

    def test_a_product_with_a_process_has_its_scale_already(self):
        leaves = paths(Basis(Product(HilbertGP(0, 1, 8), BSpline(0, 1, 5)), ("a", "b"), "g"))
        assert set(leaves) == {"weights", "family.families.0.length", "family.families.0.amplitude"}

    def test_an_input_that_nobody_gives(self):
        with pytest.raises(ModelError, match="basis input rain is none of t, b, a"):
            realised(Basis(FAMILIES["spline"], "rain", "g"))(0.0, self.y, self.u)

    def test_its_leaves_are_of_the_network(self):
        leaves = paths(
            bd.Residual(
                bd.Network, Basis(HilbertGP(LOW, HIGH, 10), "a", "g", level=dist.Normal(0.0, 1.0))
            )
        )
        assert {path: leaf.group for path, leaf in leaves.items()} == {
            f"closure.{name}": "network"
            for name in ("family.length", "family.amplitude", "weights", "level")
        }
        leaves = paths(Basis(FAMILIES["spline"], "a", "g"))
        assert {path: leaf.group for path, leaf in leaves.items()} == {
            "weights.z": "network",
            "weights.scale": "network",
        }


class TestShapes:
    x = np.linspace(LOW - 1, HIGH + 1, 301)

    def values(self, weights, **options):
        basis = Basis(BSpline(LOW, HIGH, 9), "x", "g", weights, level=0.4, scale=1.5, **options)
        return np.asarray(eqx.filter_jit(basis)(0.0, {"x": jnp.asarray(self.x)}, {})["g"])

    @pytest.mark.thorough
    @pytest.mark.parametrize(("monotone", "sign"), [("increasing", 1), ("decreasing", -1)])
    def test_monotone_by_construction(self, monotone, sign):
        def value(weights, x):
            basis = Basis(
                BSpline(LOW, HIGH, 9), "x", "g", weights, level=0.4, scale=1.5, monotone=monotone
            )
            return basis(0.0, {"x": x}, {})["g"]

        both = jax.jit(jax.vmap(jax.vmap(jax.value_and_grad(value, 1), (None, 0)), (0, None)))
        weights = 3 * np.random.default_rng(0).normal(size=(50, 9))
        values, slopes = both(jnp.asarray(weights), jnp.asarray(self.x))
        inside = (self.x > LOW) & (self.x < HIGH)
        assert (sign * slopes[:, inside] > 0).all()
        assert (sign * slopes >= 0).all()
        np.testing.assert_allclose(values.min(axis=1), 0.4, rtol=EXACT)

    @pytest.mark.parametrize("monotone", ["increasing", "decreasing"])
    def test_without_weights_it_is_a_line(self, monotone):
        line = np.clip((self.x - LOW) / (HIGH - LOW), 0, 1)
        exact = 0.4 + 1.5 * (line if monotone == "increasing" else 1 - line)
        np.testing.assert_allclose(self.values(np.zeros(9), monotone=monotone), exact, atol=EXACT)

    @pytest.mark.thorough
    def test_positive(self):
        for weights in 3 * np.random.default_rng(0).normal(size=(50, 9)):
            plain = (self.values(weights) - 0.4) / 1.5
            positive = self.values(weights, positive=True)
            assert (positive > 0.4).all()
            np.testing.assert_allclose(positive, 0.4 + 1.5 * np.exp(plain), rtol=EXACT)


X = {"x": jnp.asarray([-0.7, 0.2, 1.4])}
BASES = {
    **{name: Basis(family, "x", "g") for name, family in FAMILIES.items()},
    "process": Basis(HilbertGP(LOW, HIGH, 12), "x", "g"),
    "matern32": Basis(
        HilbertGP(LOW, HIGH, 12, dist.LogNormal(0.0, 0.3), kernel="matern32"), "x", "g"
    ),
    "matern52": Basis(
        HilbertGP(LOW, HIGH, 12, dist.LogNormal(0.0, 0.3), kernel="matern52"), "x", "g"
    ),
    "horseshoe": Basis(BSpline(LOW, HIGH, 6), "x", "g", Horseshoe(6)),
    "walk": Basis(BSpline(LOW, HIGH, 6), "x", "g", RandomWalk(6), dist.Normal(0.0, 1.0)),
    "positive": Basis(
        BSpline(LOW, HIGH, 6), "x", "g", scale=dist.LogNormal(0.0, 0.3), positive=True
    ),
    "increasing": Basis(
        BSpline(LOW, HIGH, 6), "x", "g", scale=dist.LogNormal(0.0, 0.3), monotone="increasing"
    ),
    "product": Basis(Product(BSpline(LOW, HIGH, 5), Fourier(0, 1, 3)), ("x", "t"), "g"),
}


@pytest.mark.slow
def test_gradients():
    """Of every family and shape, in one program."""
    check_gradients(
        BASES,
        lambda bases: jnp.concatenate([basis(0.3, X, {})["g"] for basis in bases.values()]),
        width=1e-3,
        solved=False,
    )


@pytest.mark.slow
def test_gradient_in_its_input():
    """By central differences of the fourth order; inside a solver this is what an implicit method
    needs.
    """
    bases, h = [realised(basis) for basis in BASES.values()], 1e-3

    def values(x):
        return jnp.stack([basis(0.3, {"x": x}, {})["g"] for basis in bases])

    x = jnp.asarray([-0.71, 0.2, 1.4])
    at, slopes = jax.jit(jax.vmap(lambda x: jax.jvp(values, (x,), (jnp.ones(3),))))(
        x + h * jnp.asarray([0.0, -2, -1, 1, 2])[:, None]
    )
    numerical = (at[1] - 8 * at[2] + 8 * at[3] - at[4]) / (12 * h)
    np.testing.assert_allclose(slopes[0], numerical, rtol=1e-6, atol=1e-6)


class TestInAnEquation:
    """Decay at an unknown rate: y' = −g(y), where the truth saturates."""

    times = np.linspace(0.0, 4.0, 30)
    places = jnp.linspace(0.3, 2.9, 21)

    def truth(self, y):
        return 1.2 * y / (0.5 + y)

    def model(self, level=0.0, noise=0.02, tolerance=1e-8):
        growth = Basis(BSpline(0.0, 3.2, 7), "y", "y", level=level)
        field = bd.Residual(lambda t, y, u: {"y": jnp.zeros(())}, growth)
        return bd.Model(
            bd.ODE(field, {"y": 3.0}, rtol=tolerance, atol=tolerance), bd.NormalNoise(noise)
        )

    def data(self):
        exact = solve_ivp(
            lambda t, y: -self.truth(y), (0, 4), [3.0], t_eval=self.times, rtol=1e-10, atol=1e-10
        ).y[0]
        noise = 0.02 * np.random.default_rng(1).normal(size=exact.shape)
        return xr.Dataset({"y": ("time", exact + noise)}, {"time": self.times})

    @pytest.mark.slow
    def test_gradients_through_the_solver(self):
        layer = bd.ODE(Basis(BSpline(0.0, 3.2, 5), "y", "y"), {"y": 1.5}, rtol=1e-11, atol=1e-11)
        inputs = bd.inputs(xr.Dataset(coords={"time": [0.0, 0.2, 0.4]}))
        check_gradients(layer, lambda realised: realised(inputs).values["y"])

    @pytest.mark.slow
    def test_log_density_and_its_top(self):
        """The most probable rate is about the true one."""
        # The level keeps y in the range of the splines, at whose ends the slope of g jumps.
        problem, density = check_log_density(self.model(level=-0.5, tolerance=1e-11), self.data())
        start = np.zeros(problem.dimension)
        top = minimize(
            lambda x: [-np.asarray(v) for v in density(jnp.asarray(x))], start, jac=True
        ).x
        model = realise(problem.model, problem.constrain(jnp.asarray(top)))
        rate = -model.layer.vector_field.closure(0.0, {"y": self.places}, {})["y"]
        np.testing.assert_allclose(rate, self.truth(np.asarray(self.places)), atol=0.1)

    @pytest.mark.slow
    def test_recovers_the_rate(self):
        model = self.model()
        post = bd.fit(model, self.data(), bd.NUTS(chains=2, warmup=150, draws=150), key=0)
        rate = lambda m: -m.layer.vector_field.closure(0.0, {"y": self.places}, {})["y"]  # noqa: E731
        share, width = share_in_band(model, post, rate, self.truth(np.asarray(self.places)))
        assert share >= 0.8
        assert np.median(width) < 0.2


class TestRefusals:
    @pytest.mark.parametrize(
        "build",
        [
            lambda low, high: BSpline(low, high, 5),
            lambda low, high: RBF(low, high, 5),
            lambda low, high: Fourier(low, high, 5),
            lambda low, high: Polynomial(low, high, 3),
            lambda low, high: HilbertGP(low, high, 10),
        ],
    )
    @pytest.mark.parametrize(
        ("low", "high"), [(1.0, 1.0), (2.0, 1.0), (0.0, np.inf), (np.nan, 1.0)]
    )
    def test_ranges(self, build, low, high):
        with pytest.raises(ModelError, match="low must be less than high"):
            build(low, high)

    @pytest.mark.parametrize(
        ("build", "message"),
        [
            (lambda: BSpline(0, 1, 3), "more splines than the degree"),
            (lambda: BSpline(0, 1, 3, -1), "more splines than the degree"),
            (lambda: RBF(0, 1, 3), "at least 4 bumps"),
            (lambda: Fourier(0, 1, 4), "odd size"),
            (lambda: Polynomial(0, 1, -1), "no polynomials from degree 0 to -1"),
            (lambda: Polynomial(0, 1, 2, lowest=3), "no polynomials from degree 3 to 2"),
            (lambda: Polynomial(0, 1, 2, "hermite"), "legendre or chebyshev"),
            (lambda: HilbertGP(0, 1, 10, kernel="cubic"), "kernel of squared_exponential"),
            (lambda: HilbertGP(0, 1, 10, boundary=1.0), "boundary of at least 1.2"),
            (lambda: HilbertGP(0, 1, 5), "give more than 5.6"),
            (lambda: HilbertGP(0, 1, 10, length=np.ones(2)), "HilbertGP.length must be a number"),
            (lambda: Product(BSpline(0, 1, 5)), "two or more families"),
            (
                lambda: Product(BSpline(0, 1, 5), Product(BSpline(0, 1, 5), BSpline(0, 1, 5))),
                "of one number each",
            ),
        ],
    )
    def test_families(self, unchecked, build, message):
        with pytest.raises(ModelError, match=message):
            build()

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"weights": np.ones(6)}, r"shape \(6,\), but the family has 5 features"),
            ({"weights": NormalShrinkage(4)}, r"shape \(4,\), but the family has 5 features"),
            ({"weights": dist.Normal(0.0, 1.0)}, r"shape \(\), but the family has 5 features"),
            ({"weights": "wide"}, "weights must be NormalShrinkage"),
            ({"input": ("x", "y")}, "the family takes 1 inputs, not x, y"),
            ({"output": ("x", "y")}, "output must be one name"),
            ({"monotone": "up"}, "'increasing' or 'decreasing', not 'up'"),
            ({"monotone": "increasing", "family": Fourier(0, 1, 5)}, "needs a BSpline family"),
            ({"monotone": "increasing", "positive": True}, "not `positive` too"),
            ({"positive": True, "scale": -1.0}, "must be positive"),
            ({"monotone": "decreasing", "scale": dist.Normal(0.0, 1.0)}, "must be positive"),
            ({"monotone": "decreasing", "scale": dist.Uniform(-1.0, 1.0)}, "must be positive"),
            (
                {"positive": True, "scale": dist.TruncatedNormal(0.0, 1.0, low=-2.0)},
                "must be positive",
            ),
            ({"positive": True, "scale": jnp.asarray(-1.0)}, "must be positive"),
            ({"positive": True, "scale": np.float32(0.0)}, "must be positive"),
            ({"level": np.ones(2)}, "Basis.level must be a number"),
        ],
    )
    def test_bases(self, unchecked, options, message):
        with pytest.raises(ModelError, match=message):
            Basis(**({"family": BSpline(0, 1, 5), "input": "x", "output": "g"} | options))

    @pytest.mark.parametrize(
        "scale",
        [dist.Uniform(0.0, 1.0), dist.LogNormal(0.0, 1.0), dist.Gamma(2.0), jnp.asarray(2.0)],
    )
    def test_a_scale_that_cannot_be_negative(self, scale):
        Basis(BSpline(0, 1, 5), "x", "g", scale=scale, positive=True)
