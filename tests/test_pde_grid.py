"""Grids, interpolation between their cells, and boundary conditions that contradict."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from pdes import order

from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.pde import Dirichlet, FiniteVolume, Flux, Grid, Neumann, Periodic, Robin
from bayes_dasl.pde.boundary import condition
from bayes_dasl.pde.grid import each, entry, evaluate
from bayes_dasl.random import paths

ROUND_OFF = 10 * np.sqrt(np.finfo(float).eps)
PLANE = Grid(depth=(-1.0, 3.0, 8), east=(0.0, 1.0, 5))


class TestGrid:
    def test_cells_lie_between_faces(self):
        np.testing.assert_allclose(PLANE.centres("depth"), np.arange(8) / 2 - 0.75)
        np.testing.assert_allclose(PLANE.faces("depth"), np.arange(9) / 2 - 1)
        assert PLANE.names == ("depth", "east")
        assert PLANE.shape == (8, 5)
        assert PLANE.width("depth") == 0.5
        assert PLANE.cell_volume == pytest.approx(0.5 * 0.2)

    def test_places_follow_the_order_of_the_axes(self):
        places = PLANE.places
        assert places["depth"].shape == places["east"].shape == (8, 5)
        np.testing.assert_allclose(places["depth"][:, 0], PLANE.centres("depth"))
        np.testing.assert_allclose(places["east"][0], PLANE.centres("east"))

    def test_integral(self):
        # The midpoint rule is exact for straight lines.
        values = jnp.asarray(2 * PLANE.places["depth"] + 3 * PLANE.places["east"])
        assert PLANE.integral(values) == pytest.approx(4 * (2 * 1.0 + 3 * 0.5))

    def test_is_static(self):
        assert jax.tree.leaves(PLANE) == []
        assert Grid(x=(0, 1, 8)) == Grid(x=(0.0, 1.0, 8)) != Grid(x=(0.0, 1.0, 9))

    @pytest.mark.parametrize(
        ("axes", "message"),
        [
            ({}, "one or two axes"),
            (dict.fromkeys("xyz", (0.0, 1.0, 8)), "one or two axes"),
            ({"x": (1.0, 1.0, 8)}, "must run from a low to a higher number"),
            ({"x": (0.0, np.inf, 8)}, "must run from a low to a higher number"),
            ({"x": (0.0, 1.0, 3)}, "at least 4"),
            ({"x": (0.0, 1.0, 8.5)}, "whole number of cells"),
            ({"x": (0.0, "far", 8)}, "axis 'x' must be"),
        ],
    )
    def test_refusals(self, unchecked, axes, message):
        with pytest.raises(ModelError, match=message):
            Grid(**axes)


class TestInterpolation:
    at = np.array([-1.0, -0.75, 0.1, 1.234, 3.0])

    @pytest.mark.thorough
    @pytest.mark.parametrize("degree", [1, 3])
    def test_is_exact_for_polynomials_up_to_the_sides(self, degree):
        polynomial = np.polynomial.Polynomial([1.0, -2.0, 0.5, 0.3][: degree + 1])
        values = jnp.asarray(polynomial(PLANE.places["depth"]) * (1 + PLANE.places["east"]))
        found = PLANE.interpolate(values, degree, depth=self.at, east=np.array([0.0, 0.37]))
        np.testing.assert_allclose(
            found, polynomial(self.at)[:, None] * [1.0, 1.37], atol=ROUND_OFF
        )

    @pytest.mark.thorough
    def test_gives_the_cells_themselves(self):
        values = jnp.asarray(np.random.default_rng(0).normal(size=PLANE.shape))
        centres = {name: PLANE.centres(name) for name in PLANE.names}
        for degree in (1, 3):
            np.testing.assert_allclose(
                PLANE.interpolate(values, degree, **centres), values, atol=1e-13
            )

    @pytest.mark.thorough
    def test_one_number_drops_the_axis(self):
        values = jnp.asarray(PLANE.places["depth"])
        assert PLANE.interpolate(values, depth=0.3).shape == (5,)
        assert PLANE.interpolate(values, depth=0.3, east=0.5) == pytest.approx(0.3)

    @pytest.mark.thorough
    @pytest.mark.parametrize("degree", [1, 3])
    def test_has_no_preferred_side(self, degree):
        grid, values = Grid(x=(0.0, 1.0, 9)), jnp.asarray(np.random.default_rng(0).normal(size=9))
        at = np.array([0.05, 0.31, 0.68])
        mirrored = grid.interpolate(values[::-1], degree, x=1 - at)
        np.testing.assert_allclose(grid.interpolate(values, degree, x=at), mirrored, atol=1e-12)

    @pytest.mark.thorough("0.0-1")
    @pytest.mark.parametrize("degree", [1, 3])
    @pytest.mark.parametrize("at", [0.0, 0.999, 1.0])
    def test_across_the_ends_of_a_periodic_axis(self, degree, at):
        """As well as anywhere inside: shifted by four cells, the same values give the same."""
        grid = Grid(x=(0.0, 1.0, 8))
        values = jnp.sin(2 * np.pi * grid.centres("x") + 0.5)
        inside = grid.interpolate(jnp.roll(values, 4), degree, x=(at + 0.5) % 1.0)
        assert float(grid.interpolate(values, degree, ("x",), x=at)) == pytest.approx(
            float(inside), abs=1e-12
        )

    @pytest.mark.thorough
    @pytest.mark.parametrize("degree", [1, 3])
    def test_order(self, degree):
        at, errors = np.linspace(0, 1, 2001), []
        for cells in (16, 32, 64):
            grid = Grid(x=(0.0, 1.0, cells))
            found = grid.interpolate(jnp.exp(jnp.asarray(grid.centres("x"))), degree, x=at)
            errors.append(np.abs(found - np.exp(at)).max())
        np.testing.assert_allclose(order(errors)[-1], degree + 1, atol=0.2)

    def test_outside_is_refused(self):
        values = jnp.zeros(PLANE.shape)
        with pytest.raises(
            DataError, match=r"depth=3\.01 lies outside the grid, which runs from -1 to 3"
        ):
            PLANE.interpolate(values, depth=np.array([0.0, 3.01]))
        with pytest.raises(
            DataError, match="'height' is no axis of the grid, which has depth, east"
        ):
            PLANE.interpolate(values, height=0.0)


class TestPointwise:
    def test_functions_see_single_numbers(self):
        def function(t, y, u):
            assert jnp.shape(y["a"]) == jnp.shape(u["x"]) == jnp.shape(u["rain"]) == ()
            return {"a": t + y["a"] * u["x"] + u["rain"], "one": 1.0}

        a, x = jnp.arange(6.0).reshape(2, 3), jnp.arange(3.0)
        found = each(function, 0.5, {"a": a}, {"x": x, "rain": 2.0}, (2, 3))
        np.testing.assert_allclose(found["a"], 2.5 + a * x)
        np.testing.assert_allclose(found["one"], np.ones((2, 3)))

    def test_entry(self):
        assert entry(3.0, "a", "it") == 3.0
        assert entry({"b": 3.0}, "a", "it") == 3.0
        assert entry({"b": 3.0, "a": 2.0}, "a", "it") == 2.0
        for several in ({"b": 3.0, "c": 2.0}, {}):
            with pytest.raises(ModelError, match="one entry or one named 'a' is needed"):
                entry(several, "a", "it")

    def test_arrays_at_a_point_are_refused(self):
        with pytest.raises(
            ModelError,
            match=r"it must give one number at each point, but gives an array of shape \(3",
        ):
            evaluate(lambda t, y, u: jnp.ones(3), 0.0, {}, {}, (4,), "a", "it")


LINE = Grid(x=(0.0, 1.0, 8))
WALL, OPEN = Flux(0.0), Dirichlet(1.0)


class TestBoundary:
    def test_lookup(self):
        by_side = {"x_low": WALL, "x_high": OPEN}
        assert condition(WALL, "a", "x", "low") is WALL
        assert condition(by_side, "a", "x", "high") is OPEN
        assert condition({"x": OPEN}, "a", "x", "low") is OPEN
        assert condition({"a": by_side, "b": {"x": OPEN}}, "b", "x", "low") is OPEN
        with pytest.raises(
            ModelError, match="field 'c' has no boundary conditions; those with some are a"
        ):
            condition({"a": by_side}, "c", "x", "low")

    def test_values_are_leaves(self):
        level, rate = dist.Normal(0.0, 1.0), dist.HalfNormal(1.0)
        law = FiniteVolume(
            LINE, boundary={"x_low": Dirichlet(level), "x_high": Robin(rate, 1.0, 0.0)}
        )
        assert set(paths(law)) == {"boundary.x_low.value", "boundary.x_high.a"}

    @pytest.mark.parametrize(
        ("boundary", "message"),
        [
            ({"x_low": WALL}, "the side x_high has no boundary condition"),
            ({}, "the side x_low has no boundary condition"),
            ({"x_low": Periodic(), "x_high": WALL}, "x is periodic at one end only"),
            ({"x": WALL, "y": WALL}, "'y' is no side of the grid; its sides are x_high, x_low"),
            ({"x": WALL, "x_high": OPEN}, "a condition for both 'x' and 'x_high'"),
            ({"x_low": 0.0, "x_high": WALL}, "x_low needs a condition such as"),
            (0.0, "boundary must be a condition, or a dict"),
            (
                {"a": {"x": Periodic()}, "b": {"x": WALL}},
                "x is periodic for one field but not for another",
            ),
            ({"a": {"x_low": WALL}}, "the side x_high has no boundary condition"),
            (
                Dirichlet(np.ones(3)),
                r"a value of Dirichlet at x_low has the shape \(3,\), but \(\) is needed",
            ),
            (Neumann(dist.Normal(jnp.zeros(2), 1.0)), r"has the shape \(2,\)"),
            (Neumann("steep"), "must be a number, an array, a distribution or a function"),
        ],
    )
    def test_contradictions(self, unchecked, boundary, message):
        with pytest.raises(ModelError, match=message):
            FiniteVolume(LINE, boundary=boundary)

    def test_an_array_along_a_side(self):
        FiniteVolume(
            PLANE,
            boundary={"depth_low": Dirichlet(np.ones(5)), "depth_high": WALL, "east": Periodic()},
        )
        with pytest.raises(
            ModelError, match=r"at depth_low has the shape \(8,\), but \(\) or \(5,\) is needed"
        ):
            FiniteVolume(
                PLANE,
                boundary={
                    "depth_low": Dirichlet(np.ones(8)),
                    "depth_high": WALL,
                    "east": Periodic(),
                },
            )

    def test_a_condition_that_says_nothing(self):
        with pytest.raises(ModelError, match="needs an a or a b other than zero"):
            Robin(0.0, 0, 1.0)
        Robin(dist.HalfNormal(1.0), 0.0, 1.0)
