"""Periodic fields by Fourier: operators, equations with closed forms, and the flow in two
dimensions.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
from pdes import given, slopes_and_differences, solve

import bayes_dasl as bd
from bayes_dasl.errors import ModelError
from bayes_dasl.pde import (
    PDE,
    Grid,
    Smagorinsky,
    Spectral,
    Vorticity,
    coarsen,
    dealiased_product,
    energy,
    energy_spectrum,
    enstrophy,
    gradient,
    laplacian,
    random_vorticity,
    strain_rate,
    truncated,
    velocity,
)
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise

LAP = 2 * np.pi
LINE = Grid(x=(0.0, LAP, 32))
# Of unequal sides and cells, and away from the origin.
BOX = Grid(x=(-1.0, LAP - 1, 24), y=(0.0, LAP / 2, 32))
# Sums of some hundred terms, times wavenumbers up to 32.
ROUND_OFF = 1e-11
FINE = {"rtol": 1e-10, "atol": 1e-10, "max_steps": 20_000}


def wave(x, y):
    return jnp.sin(3 * x + 0.4) * jnp.cos(4 * y - 1.0) + jnp.cos(x - 2 * y)


def over(grid, function):
    """A function of the coordinates in every cell."""
    places = [jnp.asarray(v).ravel() for v in grid.places.values()]
    return jax.jit(jax.vmap(function))(*places).reshape(grid.shape)


def rate_of(law, vorticity):
    return law(0.0, {"vorticity": vorticity}, {})["vorticity"]


rates = eqx.filter_jit(rate_of)


class TestOperators:
    field = over(BOX, wave)

    def test_gradient(self):
        found = gradient(BOX, self.field)
        np.testing.assert_allclose(found["x"], over(BOX, jax.grad(wave)), atol=ROUND_OFF)
        np.testing.assert_allclose(found["y"], over(BOX, jax.grad(wave, 1)), atol=ROUND_OFF)

    def test_laplacian(self):
        of_wave = lambda x, y: sum(jnp.diag(jax.hessian(lambda p: wave(*p))(jnp.stack([x, y]))))  # noqa: E731
        np.testing.assert_allclose(laplacian(BOX, self.field), over(BOX, of_wave), atol=ROUND_OFF)

    def test_one_dimension(self):
        x = jnp.asarray(LINE.centres("x"))
        np.testing.assert_allclose(
            gradient(LINE, jnp.sin(5 * x))["x"], 5 * jnp.cos(5 * x), atol=ROUND_OFF
        )
        np.testing.assert_allclose(
            laplacian(LINE, jnp.sin(5 * x)), -25 * jnp.sin(5 * x), atol=ROUND_OFF
        )

    def test_the_shortest_wave_has_no_slope(self):
        shortest = jnp.asarray((-1.0) ** np.arange(32))
        np.testing.assert_allclose(gradient(LINE, shortest)["x"], 0.0, atol=ROUND_OFF)
        across = shortest[:24, None] * jnp.sin(2 * BOX.places["y"])
        np.testing.assert_allclose(gradient(BOX, across)["x"], 0.0, atol=ROUND_OFF)

    def test_a_product_has_no_alias(self):
        """cos(10x)² = ½ + ½ cos(20x): of 32 cells 20 waves look like 12, and the two-thirds rule
        keeps up to 10.
        """
        ten = jnp.cos(10 * jnp.asarray(LINE.centres("x")))
        np.testing.assert_allclose(dealiased_product(LINE, ten, ten), 0.5, atol=ROUND_OFF)
        assert np.abs(np.fft.rfft(ten * ten)[12]) > 1
        eleven = jnp.cos(11 * jnp.asarray(LINE.centres("x")))
        np.testing.assert_allclose(truncated(LINE, ten + eleven), ten, atol=ROUND_OFF)

    def test_a_product_of_long_waves_is_exact(self):
        a, b = over(BOX, lambda x, y: jnp.cos(x + 2 * y)), over(BOX, lambda x, y: jnp.sin(3 * x))
        np.testing.assert_allclose(dealiased_product(BOX, a, b), a * b, atol=ROUND_OFF)


class TestSpectral:
    @pytest.mark.thorough
    def test_burgers_by_cole_and_hopf(self):
        r"""$u = -2\nu\,\partial_x\log\varphi$ where φ solves the heat equation."""
        nu, x = 0.1, jnp.asarray(Grid(x=(0.0, LAP, 64)).centres("x"))

        def exact(t):
            def phi(x):
                return (
                    1
                    + 0.5 * jnp.exp(-nu * t) * jnp.cos(x)
                    + 0.2 * jnp.exp(-4 * nu * t) * jnp.sin(2 * x)
                )

            return -2 * nu * jax.vmap(jax.grad(lambda x: jnp.log(phi(x))))(x)

        law = Spectral(Grid(x=(0.0, LAP, 64)), nu, flux=lambda t, y, u: {"u": y["u"] ** 2 / 2})
        found = solve(PDE(law, {"u": exact(0.0)}, **FINE), given([2.0])).values["u"][0]
        # The waves beyond the 21st are below 1e-11 here.
        np.testing.assert_allclose(found, exact(2.0), atol=100 * FINE["rtol"])
        assert np.abs(exact(2.0) - exact(0.0)).max() > 0.01

    @pytest.mark.slow
    def test_kuramoto_and_sivashinsky_grow_and_decay(self):
        """A small wave grows as exp((k² − k⁴) t)."""
        grid = Grid(x=(0.0, 4 * np.pi, 32))
        x, size = grid.centres("x"), 1e-6
        law = Spectral(grid, -1.0, 1.0, flux=lambda t, y, u: {"u": y["u"] ** 2 / 2})
        start = size * (np.cos(0.5 * x) + np.cos(1.5 * x))
        found = solve(PDE(law, {"u": start}, rtol=1e-6, atol=1e-12), given([1.0])).values["u"][0]
        rates = [k**2 - k**4 for k in (0.5, 1.5)]
        exact = size * (np.exp(rates[0]) * np.cos(0.5 * x) + np.exp(rates[1]) * np.cos(1.5 * x))
        np.testing.assert_allclose(found, exact, atol=size * 1e-4)

    @pytest.mark.thorough
    def test_two_dimensions_and_a_reaction(self):
        """A wave that is carried, spreads and decays; the other field only grows."""
        speed = {"x": 1.0, "y": -2.0}
        carried = {k: (lambda t, y, u, v=v: {"a": v * y["a"]}) for k, v in speed.items()}
        react = lambda t, y, u: {"a": -0.3 * y["a"], "b": y["b"]}  # noqa: E731
        law = Spectral(BOX, {"a": 0.1, "b": 0.0}, flux=carried, reaction=react)
        start = lambda x, y: jnp.sin(x + 2 * y)  # noqa: E731
        found = solve(PDE(law, {"a": over(BOX, start), "b": 1.0}, **FINE), given([0.5])).values
        exact = over(BOX, lambda x, y: start(x - 0.5, y + 1.0)) * np.exp(-0.5 * (0.3 + 0.1 * 5))
        np.testing.assert_allclose(found["a"][0], exact, atol=100 * FINE["rtol"])
        np.testing.assert_allclose(found["b"], np.exp(0.5), rtol=100 * FINE["rtol"])

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"grid": BOX, "flux": lambda t, y, u: {}}, "flux must be a dict of functions by axis"),
            ({"flux": {"z": lambda t, y, u: {}}}, "flux along 'z': the axes of the grid are x"),
            ({"flux": 3.0}, "flux must be a function"),
            ({"reaction": 1.0}, "reaction must be a function"),
            ({"diffusion": np.ones(32)}, r"diffusion has the shape \(32,\)"),
        ],
    )
    def test_refusals(self, unchecked, options, message):
        with pytest.raises(ModelError, match=message):
            Spectral(**{"grid": LINE} | options)

    @pytest.mark.parametrize("term", ["flux", "reaction"])
    def test_a_number_instead_of_a_dict(self, term):
        with pytest.raises(
            ModelError, match=r"a flux or reaction must return a dict by field, such as \{'a': …\}"
        ):
            Spectral(LINE, **{term: lambda t, y, u: y["a"] ** 2})(0.0, {"a": jnp.ones(32)}, {})

    def test_rates_of_unknown_fields(self):
        for law in (
            Spectral(LINE, reaction=lambda t, y, u: {"b": 1.0}),
            Spectral(LINE, diffusion={"b": 1.0}),
        ):
            with pytest.raises(ModelError, match=r"'b'|for b"):
                law(0.0, {"a": jnp.ones(32)}, {})


def turbulence(grid, size=1.0):
    return random_vorticity(
        grid, lambda k: size * k**4 * jnp.exp(-(k**2) / 8), key=jax.random.key(0)
    )


@eqx.filter_jit
def change(quantity, law, vorticity):
    """The rate at which a quantity of the flow changes."""
    along = rate_of(law, vorticity)
    return jax.jvp(lambda w: quantity(law.grid, w), (vorticity,), (along,))[1]


class TestFlow:
    def test_velocity_of_a_stream_function(self):
        stream = lambda x, y: jnp.sin(2 * x + 0.3) * jnp.cos(2 * y)  # noqa: E731
        vorticity = over(BOX, lambda x, y: 8 * stream(x, y))
        found = velocity(BOX, vorticity)
        np.testing.assert_allclose(found["x"], over(BOX, jax.grad(stream, 1)), atol=ROUND_OFF)
        np.testing.assert_allclose(found["y"], -over(BOX, jax.grad(stream)), atol=ROUND_OFF)
        # The curl of the velocity is the vorticity again.
        curl = gradient(BOX, found["y"])["x"] - gradient(BOX, found["x"])["y"]
        np.testing.assert_allclose(curl, vorticity, atol=ROUND_OFF)

    def test_strain_rate(self):
        """Of u = (sin 2y, sin x): the shear rate |cos x + 2 cos 2y| alone."""
        vorticity = over(BOX, lambda x, y: jnp.cos(x) - 2 * jnp.cos(2 * y))
        exact = over(BOX, lambda x, y: jnp.abs(jnp.cos(x) + 2 * jnp.cos(2 * y)))
        np.testing.assert_allclose(strain_rate(BOX, vorticity), exact, atol=ROUND_OFF)

    def test_strain_along_the_axes(self):
        """Of ψ = sin x sin 2y: S_xx = 2 cos x cos 2y, S_xy = (1 − 4) sin x sin 2y / 2."""
        vorticity = over(BOX, lambda x, y: 5 * jnp.sin(x) * jnp.sin(2 * y))

        def exact(x, y):
            return 2 * jnp.hypot(2 * jnp.cos(x) * jnp.cos(2 * y), 1.5 * jnp.sin(x) * jnp.sin(2 * y))

        np.testing.assert_allclose(strain_rate(BOX, vorticity), over(BOX, exact), atol=ROUND_OFF)

    def test_energy_and_enstrophy(self):
        vorticity = over(BOX, lambda x, y: 8 * jnp.sin(2 * x) * jnp.cos(2 * y))
        assert float(enstrophy(BOX, vorticity)) == pytest.approx(64 / 8)
        assert float(energy(BOX, vorticity)) == pytest.approx(1.0)  # enstrophy / k²

    @pytest.mark.thorough
    def test_spectrum_of_a_random_flow(self):
        wanted = lambda k: k**2 * jnp.exp(-k)  # noqa: E731
        field = random_vorticity(BOX, wanted, key=jax.random.key(2))
        k, found = energy_spectrum(BOX, field)
        # The longest wave has 2π/length = 1; the shortest that the two-thirds rule keeps along x
        # has 7.
        np.testing.assert_allclose(k[:7], np.arange(7.0))
        np.testing.assert_allclose(found[1:7], wanted(k[1:7]), rtol=1e-9)
        assert found[0] == pytest.approx(0.0, abs=ROUND_OFF)
        assert float(found.sum()) == pytest.approx(float(energy(BOX, field)), rel=1e-9)
        assert abs(field.mean()) < ROUND_OFF
        other = random_vorticity(BOX, wanted, key=jax.random.key(3))
        assert np.abs(field - other).max() > 0.1

    @pytest.mark.thorough
    def test_coarsen(self):
        fine, coarse = (Grid(x=(-1.0, LAP - 1, n), y=(0.0, LAP / 2, n)) for n in (64, 24))
        short = over(fine, lambda x, y: jnp.sin(13 * x) + jnp.cos(26 * y))
        found = coarsen(over(fine, wave) + short, fine, coarse)
        np.testing.assert_allclose(found, over(coarse, wave), atol=ROUND_OFF)
        np.testing.assert_allclose(
            coarsen(over(fine, wave), fine, fine), over(fine, wave), atol=ROUND_OFF
        )

    def test_coarsen_refuses_another_box(self):
        fine = Grid(x=(0.0, 1.0, 8), y=(0.0, 1.0, 8))
        for other in (
            Grid(x=(0.0, 1.0, 8), y=(0.0, 2.0, 8)),
            Grid(x=(0.0, 1.0, 16), y=(0.0, 1.0, 8)),
        ):
            with pytest.raises(ModelError, match="the same box, fewer cells"):
                coarsen(jnp.ones((8, 8)), fine, other)


class TestVorticity:
    def test_transport_of_long_waves_is_exact(self):
        r"""$-v\cdot\nabla\omega$ of a flow given by its stream function,
        with viscosity and drag.
        """
        stream = lambda x, y: jnp.sin(x + 0.3) * jnp.cos(2 * y) + 0.5 * jnp.cos(2 * x - 2 * y)  # noqa: E731
        omega = lambda x, y: 5 * jnp.sin(x + 0.3) * jnp.cos(2 * y) + 4 * jnp.cos(2 * x - 2 * y)  # noqa: E731

        def smoothed(x, y):
            return -25 * jnp.sin(x + 0.3) * jnp.cos(2 * y) - 32 * jnp.cos(2 * x - 2 * y)

        def exact(x, y):
            (sx, sy), (wx, wy) = (jax.grad(f, (0, 1))(x, y) for f in (stream, omega))
            return (
                -(sy * wx - sx * wy) + 0.3 * smoothed(x, y) - 0.7 * omega(x, y) + jnp.sin(y) * 2.0
            )

        force = lambda t, y, u: t * jnp.sin(u["y"])  # noqa: E731
        rate = Vorticity(BOX, 0.3, force, drag=0.7)(2.0, {"vorticity": over(BOX, omega)}, {})[
            "vorticity"
        ]
        np.testing.assert_allclose(rate, over(BOX, exact), atol=ROUND_OFF)

    @pytest.mark.thorough
    def test_taylor_and_green_vortices_decay(self):
        r"""$\omega = 2\cos x\cos y\,e^{-2\nu t}$, to the accuracy of the time steps on a grid of
        12².
        """
        grid = Grid(x=(0.0, LAP, 12), y=(0.0, LAP, 12))
        start, times = (
            over(grid, lambda x, y: 2 * jnp.cos(x) * jnp.cos(y)),
            np.array([0.0, 1.0, 4.0]),
        )
        found = solve(
            PDE(Vorticity(grid, 0.05), {"vorticity": start}, **FINE), given(times)
        ).values["vorticity"]
        exact = start * np.exp(-2 * 0.05 * times)[:, None, None]
        np.testing.assert_allclose(found, exact, atol=100 * FINE["rtol"])

    @pytest.mark.thorough
    def test_without_viscosity_energy_and_enstrophy_stay(self):
        flow = turbulence(BOX)
        moved = float(jnp.mean(jnp.abs(flow * rates(Vorticity(BOX, 0.0), flow))))
        assert moved > 1
        for quantity in (energy, enstrophy):
            assert abs(change(quantity, Vorticity(BOX, 0.0), flow)) < ROUND_OFF * moved
            # Viscosity takes both away, so that the test can fail.
            assert change(quantity, Vorticity(BOX, 0.1), flow) < -0.1

    @pytest.mark.thorough
    def test_waves_that_the_rule_drops_neither_carry_nor_are_carried(self):
        flow, law = turbulence(BOX), Vorticity(BOX, 0.0)
        short = over(BOX, lambda x, y: jnp.cos(9 * x + 2 * y))
        both, alone = (rates(law, w) for w in (flow + short, flow))
        np.testing.assert_allclose(both, alone, atol=ROUND_OFF * np.abs(alone).max())
        np.testing.assert_allclose(
            truncated(BOX, alone), alone, atol=ROUND_OFF * np.abs(alone).max()
        )

    @pytest.mark.slow
    def test_over_a_solve(self):
        grid = Grid(x=(0.0, LAP, 24), y=(0.0, LAP, 24))
        start = turbulence(grid, 0.05) + 0.5
        found = solve(PDE(Vorticity(grid, 0.0), {"vorticity": start}, **FINE), given([1.0])).values[
            "vorticity"
        ][0]
        assert np.abs(found - start).max() > 0.1
        for quantity in (energy, enstrophy):
            assert float(quantity(grid, found)) == pytest.approx(
                float(quantity(grid, start)), rel=1e-8
            )
        assert float(found.mean()) == pytest.approx(0.5, rel=1e-12)

    @pytest.mark.thorough
    def test_a_constant_eddy_viscosity_is_a_viscosity(self):
        with_eddy, with_viscosity = Vorticity(BOX, 0.0, eddy=0.3), Vorticity(BOX, 0.3)
        flow = turbulence(BOX)
        np.testing.assert_allclose(
            rates(with_eddy, flow), rates(with_viscosity, flow), atol=100 * ROUND_OFF
        )

    @pytest.mark.thorough("eddy0")
    @pytest.mark.parametrize(
        "eddy", [Smagorinsky(0.17, 0.2), lambda t, y, u: 0.1 + y["vorticity"] ** 2]
    )
    def test_a_closure_keeps_the_total_and_takes_energy(self, eddy):
        flow = turbulence(BOX, 0.1) + 0.2
        law = Vorticity(BOX, 0.0, eddy=eddy)
        rate = rates(law, flow)
        assert abs(rate.mean()) < ROUND_OFF * np.abs(rate).max()
        assert change(energy, law, flow) < -1e-3

    @pytest.mark.thorough
    def test_energy_lost_to_a_closure(self):
        r"""The mean of $\nu_e |S|^2$, by parts; the width of the spectrum makes products of three
        exact too.
        """
        grid = Grid(x=(0.0, LAP, 32), y=(0.0, LAP, 32))
        flow = random_vorticity(grid, lambda k: jnp.where(k < 3.5, 1.0, 0.0), key=jax.random.key(1))
        varying = lambda t, y, u: 0.2 + 0.1 * jnp.sin(u["x"])  # noqa: E731
        lost = jnp.mean((0.2 + 0.1 * jnp.sin(grid.places["x"])) * strain_rate(grid, flow) ** 2)
        assert change(energy, Vorticity(grid, 0.0, eddy=varying), flow) == pytest.approx(
            -float(lost), rel=1e-9
        )

    def test_smagorinsky(self):
        found = Smagorinsky(0.2, 0.5)(0.0, {"strain": jnp.asarray(3.0)}, {})
        assert found == {"eddy": pytest.approx(0.01 * 3)}

    @pytest.mark.thorough
    def test_a_network_as_eddy_viscosity(self):
        network = bd.Network(
            eqx.nn.MLP(1, 1, 3, 1, key=jax.random.key(0)), ("strain",), ("eddy",), scale=0.1
        )
        law = Vorticity(BOX, 0.1, eddy=network)
        draw = {
            path: values[0] for path, values in draw_prior(law, 1, key=jax.random.key(1)).items()
        }
        assert np.isfinite(rates(realise(law, draw), turbulence(BOX))).all()

    @pytest.mark.thorough
    def test_the_gradient_is_finite_at_rest(self):
        def loss(vorticity):
            law = Vorticity(BOX, 0.1, eddy=Smagorinsky(0.3, 0.2))
            return jnp.sum(rate_of(law, vorticity) ** 2)

        assert np.isfinite(jax.jit(jax.grad(loss))(jnp.zeros(BOX.shape))).all()

    @pytest.mark.slow
    def test_gradients_through_a_closure(self):
        grid = Grid(x=(0.0, LAP, 12), y=(0.0, LAP, 12))
        start = turbulence(grid, 0.1)

        def loss(parameters):
            viscosity, coefficient, size = parameters
            law = Vorticity(grid, viscosity, eddy=Smagorinsky(coefficient, 0.5))
            values = PDE(law, {"vorticity": size * start}, rtol=1e-9, atol=1e-9)(
                given([0.3])
            ).values["vorticity"][0]
            return jnp.mean(values * jnp.cos(grid.places["x"]) + values**2)

        at = jnp.asarray([0.05, 0.3, 1.2])
        ours, numerical = slopes_and_differences(loss, at)
        np.testing.assert_allclose(ours, numerical, rtol=1e-6)

    def test_a_line_is_no_box(self):
        with pytest.raises(ModelError, match="needs a grid of two axes"):
            Vorticity(LINE, 0.1)

    def test_values_of_another_shape(self):
        with pytest.raises(ModelError, match=r"eddy has the shape \(3,\)"):
            Vorticity(BOX, 0.1, eddy=dist.HalfNormal(jnp.ones(3)))
        with pytest.raises(ModelError, match=r"forcing has the shape \(24,\)"):
            Vorticity(BOX, 0.1, np.ones(24))
