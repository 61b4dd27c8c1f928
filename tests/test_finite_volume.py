"""Finite volumes against closed forms: order, conservation, no new extremes, and functions as
coefficients.
"""

from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from jax.flatten_util import ravel_pytree
from pdes import order
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.special import erfc

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.pde import Dirichlet, FiniteVolume, Flux, Grid, Neumann, Periodic, Robin
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise

ROUND_OFF = 1e-12
FINE = 1e-9
END = 0.05


@eqx.filter_jit
def rate(law, t, fields, u):
    return law(t, fields, u)


def integrated(law, start, times, tolerance=FINE):
    """The fields at some times from 0, by SciPy: what is asked of a law is its rates."""
    flat, unravel = ravel_pytree(
        {name: jnp.broadcast_to(v, law.grid.shape) for name, v in start.items()}
    )
    step = jax.jit(lambda t, y: ravel_pytree(law(t, unravel(y), {}))[0])
    found = solve_ivp(step, (0.0, times[-1]), flat, "DOP853", times, rtol=tolerance, atol=tolerance)
    assert found.success
    return jax.vmap(unravel)(jnp.asarray(found.y.T))


def errors_at_end(law_of, exact, cells, end=END):
    """The largest error of each field for every number of cells."""
    found: dict[str, list[float]] = {}
    for count in cells:
        law = law_of(count)
        x = law.grid.centres("x")
        values = integrated(law, {k: v(x, 0.0) for k, v in exact.items()}, [end])
        for name, form in exact.items():
            found.setdefault(name, []).append(float(np.abs(values[name][0] - form(x, end)).max()))
    return found


# The slab of Carslaw & Jaeger: insulated at 0, losing heat at 1; z tan z is the Biot number.
BIOT = 2.0
Z = brentq(lambda z: z * np.tan(z) - BIOT, 0.1, 1.5)

SLOW = 0.2
CLOSED_FORMS = {
    "sine": lambda x, t: np.sin(np.pi * x) * np.exp(-(np.pi**2) * t),
    "cosine": lambda x, t: np.cos(np.pi * x) * np.exp(-(np.pi**2) * t),
    "slab": lambda x, t: np.cos(Z * x) * np.exp(-(Z**2) * t),
    "driven": lambda x, t: np.exp(x + t),
    "fluxes": lambda x, t: np.exp(-x + t),
    "step": lambda x, t: erfc(x / np.sqrt(4 * SLOW * t)) if t else np.zeros_like(x),
}
BOUNDARIES = {
    "sine": {"x": Dirichlet(0.0)},
    "cosine": {"x": Neumann(0.0)},
    "slab": {"x_low": Flux(0.0), "x_high": Robin(BIOT, 1.0, 0.0)},
    # The outward derivative is −∂u/∂x at the low end.
    "driven": {
        "x_low": Neumann(lambda t, y, u: -jnp.exp(t)),
        "x_high": Dirichlet(lambda t, y, u: jnp.exp(u["x"] + t)),
    },
    # The outward flux −∂u/∂n is −exp(t) at 0, where the field falls inwards, and exp(t − 1) at 1.
    "fluxes": {
        "x_low": Flux(lambda t, y, u: -jnp.exp(t)),
        "x_high": Flux(lambda t, y, u: jnp.exp(t - 1)),
    },
    "step": {"x_low": Dirichlet(1.0), "x_high": Neumann(0.0)},
}
DIFFUSION = {name: SLOW if name == "step" else 1.0 for name in BOUNDARIES}


@pytest.fixture(scope="module")
def errors():
    law_of = lambda n: FiniteVolume(Grid(x=(0.0, 1.0, n)), DIFFUSION, boundary=BOUNDARIES)  # noqa: E731
    return errors_at_end(law_of, CLOSED_FORMS, (32, 64))


class TestDiffusion:
    @pytest.mark.parametrize("name", CLOSED_FORMS)
    def test_is_of_second_order_with_every_boundary(self, errors, name):
        assert order(errors[name])[-1] == pytest.approx(2.0, abs=0.15)
        assert errors[name][-1] < 1e-3

    def test_varying_in_place_and_state(self):
        """u = exp(−t) (1 + x) solves ∂u/∂t = ∂/∂x(D ∂u/∂x) − u − exp(−t) D' with any D(x); here D =
        u too.
        """

        def source(t, y, u):
            # D = x + u: D' = 1 + exp(−t), so that the flux's divergence is exp(−t) (1 + exp(−t)).
            return {"c": -y["c"] - jnp.exp(-t) * (1 + jnp.exp(-t))}

        sides = {
            "x_low": Dirichlet(lambda t, y, u: jnp.exp(-t)),
            "x_high": Neumann(lambda t, y, u: jnp.exp(-t)),
        }
        conductivity = lambda t, y, u: {"conductivity": u["x"] + y["c"]}  # noqa: E731
        law = FiniteVolume(Grid(x=(0.0, 1.0, 8)), conductivity, reaction=source, boundary=sides)
        straight = jnp.asarray(1 + law.grid.centres("x"))
        # The exact solution is a straight line, for which every difference here is exact.
        for t in (0.0, 0.7):
            found = rate(law, jnp.asarray(t), {"c": np.exp(-t) * straight}, {})["c"]
            np.testing.assert_allclose(found, -np.exp(-t) * straight, rtol=ROUND_OFF)

    @pytest.mark.thorough
    def test_varying_smoothly(self):
        """Eigenfunction of an exponential medium: D = exp(x), u = exp(−x) (1 − x)…, by a
        manufactured source.
        """

        def law_of(count):
            def source(t, y, u):
                x = u["x"]
                # u = exp(t) sin x, D = 1 + x²: ∂/∂x(D ∂u/∂x) = exp(t) (2 x cos x − (1 + x²) sin x).
                return {
                    "c": jnp.exp(t) * (jnp.sin(x) - 2 * x * jnp.cos(x) + (1 + x**2) * jnp.sin(x))
                }

            sides = {"x_low": Neumann(lambda t, y, u: -jnp.exp(t)),
                     "x_high": Neumann(lambda t, y, u: jnp.exp(t) * jnp.cos(1.0))}  # fmt: skip
            spread = lambda t, y, u: 1 + u["x"] ** 2  # noqa: E731
            return FiniteVolume(Grid(x=(0.0, 1.0, count)), spread, reaction=source, boundary=sides)

        errors = errors_at_end(law_of, {"c": lambda x, t: np.exp(t) * np.sin(x)}, (16, 32))
        assert order(errors["c"])[-1] == pytest.approx(2.0, abs=0.1)

    def test_layers_of_material(self):
        """With the harmonic mean the steady flux through two materials is exact, wherever the cells
        are.
        """
        grid = Grid(x=(0.0, 1.0, 8))
        conductivity = np.where(grid.centres("x") < 0.5, 1.0, 10.0)
        law = FiniteVolume(
            grid, conductivity, boundary={"x_low": Dirichlet(1.0), "x_high": Dirichlet(0.0)}
        )
        flux = 1 / (0.5 / 1.0 + 0.5 / 10.0)
        x = grid.centres("x")
        steady = np.where(x < 0.5, 1 - flux * x, flux * (1 - x) / 10)
        np.testing.assert_allclose(
            law.fluxes(0.0, {"c": jnp.asarray(steady)}, {})["c"]["x"], flux, rtol=ROUND_OFF
        )

    @pytest.mark.thorough
    def test_two_dimensions_separate(self):
        """The product of two decaying modes, with another boundary along each axis and unequal
        sides.
        """

        def error(count):
            grid = Grid(x=(0.0, 1.0, count), y=(0.0, 2.0, count))
            law = FiniteVolume(
                grid,
                0.5,
                boundary={"x": Dirichlet(0.0), "y_low": Neumann(0.0), "y_high": Flux(0.0)},
            )
            start = np.sin(np.pi * grid.places["x"]) * np.cos(np.pi * grid.places["y"] / 2)
            found = integrated(law, {"c": start}, [0.1])["c"][0]
            exact = start * np.exp(-0.5 * (np.pi**2 + (np.pi / 2) ** 2) * 0.1)
            return np.abs(found - exact).max()

        assert order([error(8), error(16)])[0] == pytest.approx(2.0, abs=0.1)


class TestAdvection:
    @staticmethod
    @cache
    def stepping(limiter, count):
        """The rates with any velocity."""
        grid = Grid(x=(0.0, 1.0, count))

        def law(velocity):
            return FiniteVolume(grid, velocity=velocity, boundary=Periodic(), limiter=limiter)

        return grid, jax.jit(lambda t, y, velocity: law(velocity)(t, {"c": y}, {})["c"])

    def wave(self, limiter, count, shape, end, velocity=1.0):
        grid, step = self.stepping(limiter, count)
        start, times = shape(grid.centres("x")), np.linspace(0.0, end, 9)
        found = solve_ivp(
            step, (0.0, end), start, "DOP853", times, rtol=1e-8, atol=1e-8, args=(velocity,)
        )
        return grid, found.y.T

    # Measured in the mean: a limiter is of first order at the two crests, whatever it is elsewhere.
    @pytest.mark.thorough("van_leer-2.0-1.0", "minmod-2.0--1.0")
    @pytest.mark.parametrize(
        ("limiter", "expected", "velocity"),
        [
            ("upwind", 1.0, 1.0),
            ("upwind", 1.0, -1.0),
            ("van_leer", 2.0, 1.0),
            ("minmod", 2.0, -1.0),
            pytest.param("van_leer", 2.0, -1.0, marks=pytest.mark.slow),
            pytest.param("minmod", 2.0, 1.0, marks=pytest.mark.slow),
        ],
    )
    def test_order(self, limiter, expected, velocity):
        def error(count):
            grid, values = self.wave(limiter, count, lambda x: np.sin(2 * np.pi * x), 0.5, velocity)
            return np.abs(
                values[-1] - np.sin(2 * np.pi * (grid.centres("x") - 0.5 * velocity))
            ).mean()

        assert order([error(64), error(128)])[0] == pytest.approx(expected, abs=0.2)

    @pytest.mark.thorough("van_leer", "minmod")
    @pytest.mark.parametrize("limiter", ["upwind", "van_leer", "minmod"])
    def test_a_square_wave_gets_no_new_extremes(self, limiter):
        _, values = self.wave(
            limiter, 64, lambda x: np.where(np.abs(x - 0.4) < 0.15, 1.0, 0.0), 1.0
        )
        variation = np.abs(np.diff(values, axis=1, append=values[:, :1])).sum(axis=1)
        assert variation[0] == 2
        assert np.diff(variation).max() < 1e-6
        assert values.min() > -1e-6
        assert values.max() < 1 + 1e-6

    @pytest.mark.thorough
    def test_a_limiter_keeps_more_of_a_square_wave(self):
        square = lambda x: np.where(np.abs(x - 0.4) < 0.15, 1.0, 0.0)  # noqa: E731
        lost = {k: np.abs(self.wave(k, 64, square, 1.0)[1][-1] - square((np.arange(64) + 0.5) / 64)).mean()
                for k in ("upwind", "minmod", "van_leer")}  # fmt: skip
        assert lost["van_leer"] < lost["minmod"] < lost["upwind"]

    @pytest.mark.thorough
    @pytest.mark.parametrize("limiter", ["upwind", "van_leer", "minmod"])
    def test_derivatives_away_from_kinks(self, limiter):
        def law(v):
            return FiniteVolume(
                Grid(x=(0.0, 1.0, 6)), 0.1, v, boundary=Dirichlet(0.3), limiter=limiter
            )

        rate = lambda p: law(p[0])(0.0, {"c": p[1:]}, {})["c"]  # noqa: E731
        at, step = jnp.asarray([0.7, *np.random.default_rng(1).normal(size=6)]), 1e-5
        moved = at + step * np.concatenate([np.eye(7), -np.eye(7)])
        every = jax.jit(
            lambda at, moved: (jax.jacfwd(rate)(at), jax.jacrev(rate)(at), jax.vmap(rate)(moved))
        )
        forward, reverse, values = every(at, moved)
        np.testing.assert_allclose(forward, (values[:7] - values[7:]).T / (2 * step), atol=1e-6)
        np.testing.assert_allclose(reverse, forward, atol=1e-12)

    @pytest.mark.parametrize("limiter", ["upwind", "van_leer", "minmod"])
    def test_no_place_of_a_periodic_line_is_special(self, limiter):
        for velocity in (1.0, -1.0):
            law = FiniteVolume(
                Grid(x=(0.0, 1.0, 9)),
                0.1,
                jnp.asarray(velocity),
                boundary=Periodic(),
                limiter=limiter,
            )
            field = random_fields(law.grid, "c")["c"]
            rolled = rate(law, 0.0, {"c": jnp.roll(field, 4)}, {})["c"]
            np.testing.assert_allclose(
                rolled, jnp.roll(rate(law, 0.0, {"c": field}, {})["c"], 4), rtol=ROUND_OFF
            )

    @pytest.mark.thorough
    @pytest.mark.parametrize("velocity", [2.0, pytest.param(-2.0, marks=pytest.mark.slow)])
    def test_inflow_and_outflow(self, velocity):
        """What flows in is the boundary's value; what flows out leaves without a trace."""
        grid = Grid(x=(0.0, 1.0, 64))
        inside, outside = ("x_low", "x_high") if velocity > 0 else ("x_high", "x_low")
        sides = {inside: Dirichlet(lambda t, y, u: 1 + 0.5 * jnp.sin(5 * t)), outside: Neumann(0.0)}
        law = FiniteVolume(grid, velocity=velocity, boundary=sides)
        found = integrated(law, {"c": 1.0}, [2.0])["c"][0]
        far = grid.centres("x") if velocity > 0 else 1 - grid.centres("x")
        np.testing.assert_allclose(found, 1 + 0.5 * np.sin(5 * (2 - far / 2)), atol=0.01)

    @pytest.mark.slow
    def test_burgers_moves_its_shock_with_the_mean_speed(self):
        """A velocity that depends on the field: flux u²/2, whose shock between 1 and 0 moves with
        1/2.
        """
        grid = Grid(x=(0.0, 1.0, 64))
        law = FiniteVolume(grid, velocity=lambda t, y, u: y["c"] / 2, boundary={"x_low": Dirichlet(1.0),
                                                                                "x_high": Neumann(0.0)})  # fmt: skip
        start = np.where(grid.centres("x") < 0.25, 1.0, 0.0)
        found = integrated(law, {"c": start}, [1.0])["c"][0]
        assert grid.integral(found) == pytest.approx(0.25 + 0.5, abs=1e-6)
        assert grid.interpolate(found, x=0.65) > 0.99
        assert grid.interpolate(found, x=0.85) < 0.01

    @pytest.mark.thorough
    def test_rotation_in_two_dimensions(self):
        """A solid rotation turns a hill by a quarter; one function returns both components."""
        grid = Grid(x=(-1.0, 1.0, 32), y=(-1.0, 1.0, 32))
        turn = lambda t, y, u: {"x": -u["y"], "y": u["x"]}  # noqa: E731
        hill = lambda x, y: np.exp(-20 * ((x - 0.4) ** 2 + y**2))  # noqa: E731
        start = hill(grid.places["x"], grid.places["y"])
        law = FiniteVolume(grid, velocity=turn, boundary=Neumann(0.0))
        found = integrated(law, {"c": start}, [np.pi / 2], 1e-5)["c"][0]
        turned = hill(grid.places["y"], -grid.places["x"])
        assert np.abs(found - turned).mean() < 0.01 < np.abs(found - start).mean()


@pytest.mark.parametrize(
    "velocity", [lambda t, y, u: {"x": 1.0}, {"c": lambda t, y, u: {"x": 1.0}}, {"x": 1.0}]
)
def test_a_velocity_along_one_axis_moves_nothing_along_the_other(velocity):
    """A field that varies along y alone does not change when it moves along x."""
    law = FiniteVolume(PLANE, velocity=velocity, boundary=Periodic())
    fields = {"c": jnp.broadcast_to(jnp.sin(jnp.arange(5.0)), (8, 5))}
    assert np.abs(rate(law, 0.0, fields, {})["c"]).max() < ROUND_OFF


def random_fields(grid, *names):
    rng = np.random.default_rng(3)
    return {name: jnp.asarray(1 + rng.random(grid.shape)) for name in names}


class TestConservation:
    plane = Grid(x=(0.0, 1.0, 9), y=(-1.0, 1.0, 7))

    def law(self, boundary, **options):
        diffusion = lambda t, y, u: 0.1 + y["c"] ** 2 * u["x"]  # noqa: E731
        velocity = {"x": lambda t, y, u: 1.5 + u["y"] + y["c"], "y": -0.7}
        return FiniteVolume(self.plane, diffusion, velocity, boundary=boundary, **options)

    @pytest.mark.parametrize(
        ("limiter", "boundary"),
        [
            ("van_leer", Periodic()),
            ("van_leer", Flux(0.0)),
            ("upwind", {"x": Periodic(), "y": Flux(0.0)}),
            ("minmod", {"x": Periodic(), "y": Flux(0.0)}),
        ],
    )
    def test_nothing_is_lost(self, limiter, boundary):
        fields = random_fields(self.plane, "c")
        found = rate(self.law(boundary, limiter=limiter), 0.3, fields, {})["c"]
        assert abs(found.sum()) < ROUND_OFF * np.abs(found).sum()

    @pytest.mark.parametrize(
        "boundary", [Dirichlet(2.0), Neumann(0.3), Robin(1.0, 0.5, 2.0), Flux(0.7)]
    )
    def test_what_is_lost_flows_out(self, boundary):
        fields, law = random_fields(self.plane, "c"), self.law(boundary)
        both = eqx.filter_jit(lambda law: (law(0.3, fields, {})["c"], law.outflow(0.3, fields, {})))
        found, outflow = both(law)
        assert set(outflow) == {
            f"c_outflow_{side}" for side in ("x_low", "x_high", "y_low", "y_high")
        }
        lost = float(sum(outflow.values()))
        assert abs(lost) > 0.1
        assert float(self.plane.integral(found)) == pytest.approx(-lost, rel=ROUND_OFF)

    @pytest.mark.thorough
    def test_over_a_solve(self):
        grid = Grid(x=(0.0, 1.0, 16))
        law = FiniteVolume(grid, 0.02, 1.0, boundary=Periodic())
        values = integrated(law, random_fields(grid, "c"), [0.0, 0.5, 2.0])["c"]
        np.testing.assert_allclose(values.sum(axis=1), values[0].sum(), rtol=ROUND_OFF)

    def test_a_given_flux_is_what_flows_out(self):
        law = self.law({"x_low": Flux(0.7), "x_high": Flux(-0.2), "y": Periodic()})
        outflow = eqx.filter_jit(lambda law: law.outflow(0.0, random_fields(self.plane, "c"), {}))(
            law
        )
        # The side of the x axis is 2 long.
        assert outflow["c_outflow_x_low"] == pytest.approx(1.4)
        assert outflow["c_outflow_x_high"] == pytest.approx(-0.4)
        assert outflow["c_outflow_y_low"] == pytest.approx(-outflow["c_outflow_y_high"])

    def test_the_flux_into_a_closed_form(self):
        """At a Neumann side what flows out by diffusion is −D times the outward derivative."""
        grid = Grid(x=(0.0, 1.0, 8))
        sides = {"x_low": Neumann(2.0), "x_high": Neumann(dist.Normal(0.0, 1.0))}
        law = realise(
            FiniteVolume(grid, 3.0, boundary=sides), {"boundary.x_high.gradient": jnp.asarray(-1.0)}
        )
        outflow = law.outflow(0.0, random_fields(grid, "c"), {})
        assert outflow == {
            "c_outflow_x_low": pytest.approx(-6.0),
            "c_outflow_x_high": pytest.approx(3.0),
        }


class TestReaction:
    grid = Grid(x=(0.0, 1.0, 6))

    def test_a_vector_field_of_scalars(self):
        class Competition(bd.Module):
            rate: bd.Scalar

            def __call__(self, t, y, u):
                assert jnp.shape(y["a"]) == ()
                return {
                    "a": self.rate * y["a"] * y["b"] * u["rain"],
                    "b": -self.rate * y["a"] * y["b"] + t,
                }

        fields = random_fields(self.grid, "a", "b")
        law = FiniteVolume(self.grid, reaction=Competition(0.3), boundary=Flux(0.0))
        rates = rate(law, 2.0, fields, {"rain": jnp.asarray(5.0)})
        np.testing.assert_allclose(rates["a"], 1.5 * fields["a"] * fields["b"])
        np.testing.assert_allclose(rates["b"], 2 - 0.3 * fields["a"] * fields["b"])

    @pytest.mark.thorough
    @pytest.mark.parametrize("wrap", [lambda network: network, lambda network: bd.Residual(lambda t, y, u: {
        "c": -y["c"]}, network)])  # fmt: skip
    def test_networks(self, wrap):
        network = bd.Network(eqx.nn.MLP(2, 1, 3, 1, key=jax.random.key(0)), ("c", "x"), ("c",))
        law = FiniteVolume(self.grid, reaction=wrap(network), boundary=Flux(0.0))
        draw = {
            path: values[0] for path, values in draw_prior(law, 1, key=jax.random.key(1)).items()
        }
        known, fields = realise(law, draw), random_fields(self.grid, "c")
        reaction = eqx.filter_jit(known.reaction)
        cells = [reaction(0.0, {"c": c}, {"x": x})["c"] for c, x in
                 zip(fields["c"], jnp.asarray(self.grid.centres("x")), strict=True)]  # fmt: skip
        np.testing.assert_allclose(rate(known, 0.0, fields, {})["c"], cells, rtol=1e-12)

    @pytest.mark.thorough
    def test_a_network_as_conductivity(self):
        network = bd.Network(
            eqx.nn.MLP(1, 1, 3, 1, key=jax.random.key(0)), ("c",), ("conductivity",)
        )
        law = FiniteVolume(self.grid, network, boundary=Flux(0.0))
        draw = {
            path: values[0] for path, values in draw_prior(law, 1, key=jax.random.key(1)).items()
        }
        known, fields = realise(law, draw), random_fields(self.grid, "c")
        c = np.asarray(fields["c"])
        conductivity = eqx.filter_jit(known.diffusion)
        middle = [
            conductivity(0.0, {"c": v}, {})["conductivity"]
            for v in jnp.asarray((c[1:] + c[:-1]) / 2)
        ]
        flux = eqx.filter_jit(known.fluxes)(0.0, fields, {})["c"]["x"]
        np.testing.assert_allclose(
            flux[1:-1], -np.array(middle) * np.diff(c) / self.grid.width("x"), rtol=1e-12
        )

    @pytest.mark.thorough
    def test_sources_by_field(self):
        along = np.arange(6.0)
        law = FiniteVolume(self.grid, reaction={"a": 2.0, "b": along}, boundary=Flux(0.0))
        rates = law(0.0, random_fields(self.grid, "a", "b", "c"), {})
        np.testing.assert_array_equal(rates["a"], np.full(6, 2.0))
        np.testing.assert_array_equal(rates["b"], along)
        np.testing.assert_array_equal(rates["c"], np.zeros(6))


class TestBoundaryFunctions:
    @pytest.mark.thorough
    def test_see_the_cell_and_the_place(self):
        grid = Grid(x=(0.0, 1.0, 8), y=(0.0, 2.0, 5))
        fields = random_fields(grid, "c")
        loss = lambda t, y, u: t * y["c"] + u["y"] + 10 * u["x"] + u["rain"]  # noqa: E731
        law = FiniteVolume(
            grid, boundary={"x_low": Flux(0.0), "x_high": Flux(loss), "y": Periodic()}
        )
        flux = law.fluxes(2.0, fields, {"rain": jnp.asarray(0.5)})["c"]["x"]
        np.testing.assert_allclose(flux[-1], 2 * fields["c"][-1] + grid.centres("y") + 10.5)

    def test_by_field(self):
        both = lambda t, y, u: {"a": 1.0, "b": 2.0}  # noqa: E731
        law = FiniteVolume(Grid(x=(0.0, 1.0, 8)), boundary=Flux(both))
        outflow = law.outflow(0.0, random_fields(law.grid, "a", "b"), {})
        assert {name: float(v) for name, v in outflow.items() if name.endswith("low")} == {
            "a_outflow_x_low": 1.0,
            "b_outflow_x_low": 2.0,
        }


LINE, PLANE = Grid(x=(0.0, 1.0, 8)), Grid(x=(0.0, 1.0, 8), y=(0.0, 1.0, 5))


@pytest.mark.parametrize(("grid", "axis"), [(LINE, 0), (PLANE, 0), (PLANE, 1)])
@pytest.mark.parametrize("outer", [Neumann(0.0), Periodic()])
class TestLinkedFields:
    """Functions see a field of another part as they see their own."""

    def coupled(self, grid, **options):
        parts = {
            "source": FiniteVolume(grid, boundary=Flux(0.0)),
            "sink": FiniteVolume(grid, **options),
        }
        return bd.multiscale.Coupling(
            parts, [bd.multiscale.Link("source.a", "sink.a")], {"source": "a", "sink": "b"}
        )

    def test_as_a_coefficient(self, grid, axis, outer):
        fields = random_fields(grid, "a", "b")
        boundary = dict.fromkeys(grid.names, Neumann(0.0)) | {grid.names[axis]: outer}
        law = self.coupled(grid, diffusion=lambda t, y, u: 1.0 + u["a"] ** 2, boundary=boundary)
        alone = FiniteVolume(
            grid,
            diffusion={"a": 0.0, "b": lambda t, y, u: 1.0 + y["a"] ** 2},
            boundary=boundary,
        )
        both = eqx.filter_jit(lambda laws: [each(0.0, fields, {})["b"] for each in laws])
        found, wanted = both((law, alone))
        np.testing.assert_allclose(found, wanted, atol=ROUND_OFF)

    def test_at_a_side(self, grid, axis, outer):
        name = grid.names[axis]
        boundary = dict.fromkeys(grid.names, outer) | {name: Dirichlet(lambda t, y, u: u["a"])}
        fields = random_fields(grid, "a") | {"b": jnp.zeros(grid.shape)}
        rates = rate(self.coupled(grid, diffusion=1.0, boundary=boundary), 0.0, fields, {})
        found, wall = (
            np.moveaxis(np.asarray(v), grid.names.index(name), 0) for v in (rates["b"], fields["a"])
        )
        for end in (0, -1):
            np.testing.assert_allclose(
                found[end], 2 * wall[end] / grid.width(name) ** 2, rtol=1e-12
            )


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"limiter": "superbee"},
                "limiter must be one of van_leer, minmod, upwind, not 'superbee'",
            ),
            (
                {"diffusion": np.ones(3)},
                r"diffusion has the shape \(3,\), but \(\) or \(8,\) is needed",
            ),
            (
                {"diffusion": {"c": dist.Normal(jnp.zeros(2), 1)}},
                r"diffusion\.c has the shape \(2,\)",
            ),
            (
                {"velocity": "fast"},
                "velocity must be a number, an array, a distribution or a function",
            ),
            ({"reaction": 3.0}, "reaction must be a function"),
            ({"diffusion": -1.0}, "diffusion must not be negative"),
            ({"diffusion": {"c": np.full(8, -1.0)}}, r"diffusion\.c must not be negative"),
            (
                {"boundary": Dirichlet(float("nan"))},
                "a value of Dirichlet at x_low must be finite, not nan",
            ),
            ({"velocity": np.full(8, np.inf)}, "velocity must be finite"),
            (
                {"boundary": {"c": Neumann(0.0)}},
                r"'c' is no side of the grid.*a dict by side: \{'c': \{'x': …\}\}",
            ),
            ({"reaction": {"c": np.ones(2)}}, r"reaction\.c has the shape \(2,\)"),
            ({"grid": PLANE, "velocity": 1.0}, "velocity must say which axis it follows"),
            (
                {"grid": PLANE, "velocity": {"c": 1.0}},
                r"velocity\.c must say which axis it follows",
            ),
        ],
    )
    def test_when_built(self, unchecked, options, message):
        with pytest.raises(ModelError, match=message):
            FiniteVolume(**{"grid": LINE, "boundary": Flux(0.0)} | options)

    @pytest.mark.thorough("options4-velocity is given for 'd'; the fields are c")
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"diffusion": {"d": 1.0}}, "diffusion is given for d but not for the field 'c'"),
            ({"velocity": {"d": 1.0}}, "velocity is given for d but not for the field 'c'"),
            ({"boundary": {"d": {"x": Flux(0.0)}}}, "field 'c' has no boundary conditions"),
            ({"diffusion": {"c": 1.0, "d": 1.0}}, "diffusion is given for 'd'; the fields are c"),
            ({"velocity": {"c": 1.0, "d": 1.0}}, "velocity is given for 'd'; the fields are c"),
            (
                {"boundary": {field: {"x": Flux(0.0)} for field in "cd"}},
                "boundary is given for 'd'; the fields are c",
            ),
            ({"reaction": lambda t, y, u: 1.0}, "the reaction must return a dict by field"),
            ({"reaction": {"d": 1.0}}, "the reaction has a rate for 'd'; the fields are c"),
            (
                {"reaction": lambda t, y, u: {"d": 1.0}},
                "the reaction has a rate for 'd'; the fields are c",
            ),
            (
                {"reaction": lambda t, y, u: {"c": jnp.ones(3)}},
                "must give one number for 'c' in each cell",
            ),
            (
                {"diffusion": lambda t, y, u: jnp.ones(8)},
                "diffusion must give one number at each point",
            ),
            (
                {"diffusion": lambda t, y, u: {"a": 1.0, "b": 1.0}},
                "one entry or one named 'c' is needed",
            ),
            (
                {"grid": PLANE, "velocity": lambda t, y, u: 1.0},
                r"must return a dict by axis \(x, y\), not float",
            ),
            (
                {"grid": PLANE, "velocity": lambda t, y, u: {"x": 1.0, "z": 1.0}},
                "by axis .*, not x, z",
            ),
        ],
    )
    def test_when_called(self, options, message):
        law = FiniteVolume(**{"grid": LINE, "boundary": Flux(0.0)} | options)
        with pytest.raises(ModelError, match=message):
            law(0.0, random_fields(law.grid, "c"), {})

    def test_fields_of_another_shape(self):
        with pytest.raises(
            ModelError, match=r"field 'c' has the shape \(5,\), not the grid's \(8,\)"
        ):
            FiniteVolume(LINE, boundary=Flux(0.0))(0.0, {"c": jnp.ones(5)}, {})
