"""The PDE layer: what it predicts and where, its gradients, its solvers, failure, and a fit through
bd.Model.
"""

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from pdes import given, order, slopes_and_differences, solve
from scipy.linalg import expm
from scipy.optimize import minimize

import bayes_dasl as bd
from bayes_dasl import Jump
from bayes_dasl.errors import DataError, ModelError
from bayes_dasl.inference import pose
from bayes_dasl.pde import (
    PDE,
    Chebyshev,
    Dirichlet,
    FiniteVolume,
    Flux,
    Grid,
    Neumann,
    Periodic,
    Robin,
)
from bayes_dasl.random import paths
from bayes_dasl.updating import tightened

LINE = Grid(x=(0.0, 1.0, 16))
X = LINE.centres("x")
PLANE = Grid(x=(0.0, 1.0, 6), y=(0.0, 2.0, 5))
TIMES = np.array([0.0, 0.02, 0.1])
FINE = {"rtol": 1e-9, "atol": 1e-9}
# Local errors of the tolerance add up over some tens of steps.
GLOBAL = 100 * 1e-9


def heat(diffusion=0.5, boundary=None, grid=LINE, **options):
    return FiniteVolume(grid, diffusion, boundary=boundary or Dirichlet(0.0), **options)


def exact_cells(t, diffusion=0.5):
    """What the equations of the cells themselves say, by the matrix exponential."""
    n, h = 16, 1 / 16
    matrix = (
        np.diag(np.full(n - 1, 1.0), 1) + np.diag(np.full(n - 1, 1.0), -1) - 2 * np.eye(n)
    ) / h**2
    # A half-cell difference at the sides: one more 1/h² than inside.
    matrix[0, 0] = matrix[-1, -1] = -3 / h**2
    return expm(diffusion * matrix * t) @ np.sin(np.pi * X)


class TestFields:
    @pytest.mark.thorough
    def test_at_the_cells_and_elsewhere(self):
        elsewhere = np.array([0.0, 0.21, 0.5, 1.0])
        at = np.sort([*X, *elsewhere])
        found = solve(PDE(heat(), {"c": np.sin(np.pi * X)}, **FINE), given(TIMES, x=at))
        assert found.ok
        assert found.values["c"].shape == (3, 20)
        cells = found.values["c"][:, np.isin(at, X)]
        np.testing.assert_allclose(cells, [exact_cells(t) for t in TIMES], atol=GLOBAL)
        between = found.values["c"][:, np.isin(at, elsewhere[1:3])]
        np.testing.assert_allclose(
            between, [np.interp(elsewhere[1:3], X, row) for row in cells], atol=1e-12
        )

    @pytest.mark.thorough
    def test_cubic(self):
        at, start = np.array([0.11, 0.5, 0.83]), np.sin(np.pi * X)
        cubic = solve(PDE(heat(), {"c": start}, degree=3), given([0.0], x=at)).values["c"][0]
        straight = np.interp(at, X, start)
        assert (
            np.abs(cubic - np.sin(np.pi * at)).max()
            < 1e-4
            < np.abs(straight - np.sin(np.pi * at)).max()
        )

    @pytest.mark.thorough
    def test_two_dimensions(self):
        start = np.random.default_rng(0).normal(size=PLANE.shape)
        layer = PDE(heat(grid=PLANE), {"c": start, "d": lambda t, y, u: u["x"] * u["y"]})
        assert layer.dims == {"c": ("x", "y"), "d": ("x", "y")}
        assert layer.states == 60
        x, y = PLANE.centres("x"), np.array([0.2, 0.6, 0.8])
        found = solve(layer, given([0.0], x=x, y=y)).values
        assert found["c"].shape == (1, 6, 3)
        np.testing.assert_allclose(found["c"][0, :, 0], start[:, 0], atol=1e-12)
        np.testing.assert_allclose(found["c"][0, :, 2], (start[:, 1] + start[:, 2]) / 2, atol=1e-12)
        np.testing.assert_allclose(found["d"][0], np.outer(x, y), atol=1e-12)

    @pytest.mark.thorough
    @pytest.mark.parametrize(
        "law",
        [
            bd.pde.Spectral(LINE, diffusion=0.5),
            bd.Residual(
                heat(boundary={"c": {"x": Periodic()}}), lambda t, y, u: {"c": 0.0 * y["c"]}
            ),
            pytest.param(heat(boundary=Periodic()), marks=pytest.mark.slow),
            pytest.param(heat(boundary={"c": {"x": Periodic()}}), marks=pytest.mark.slow),
        ],
    )
    def test_both_ends_of_a_periodic_axis_are_one(self, law):
        start = np.random.default_rng(0).normal(size=LINE.shape)
        ends = solve(PDE(law, {"c": start}), given([0.0], x=[0.0, 1.0])).values["c"][0]
        np.testing.assert_allclose(ends, (start[0] + start[-1]) / 2, rtol=1e-12)

    @pytest.mark.thorough
    def test_what_is_observed_is_not_taken_to_be_periodic(self):
        layer = PDE(
            heat(boundary=Periodic()), {"c": 1.0}, lambda t, y, u: {"seen": y["c"] * u["x"]}
        )
        found = solve(layer, given([0.0], x=[0.0, 1.0])).values["seen"][0]
        np.testing.assert_allclose(found, [0.0, 1.0], atol=1e-12)

    @pytest.mark.thorough
    def test_data_outside_the_grid_are_refused(self):
        inputs = given(TIMES, x=[-0.01, 0.5])
        with pytest.raises(DataError, match="lies outside the grid, which runs from 0 to 1"):
            jax.eval_shape(lambda: PDE(heat(), {"c": 0.0})(inputs))


class Sensors(bd.Module):
    gain: bd.Scalar

    def __call__(self, t, y, u):
        middle = LINE.interpolate(y["c"], x=0.5)
        return {
            "middle": self.gain * middle,
            "doubled": 2 * y["c"],
            "lost": u["c_outflow_x_high"],
            "late": t + u["u"],
        }


class TestObserve:
    def layer(self, gain=3.0):
        law = heat(boundary={"x_low": Dirichlet(0.0), "x_high": Neumann(-1.0)})
        return PDE(
            law,
            {"c": np.sin(np.pi * X)},
            Sensors(gain),
            forcings=("u",),
            units={"middle": "K", "c": "K"},
        )

    @pytest.mark.parametrize("gain", [3.0, dist.HalfNormal(1.0)])
    def test_names_and_dimensions(self, gain):
        layer = self.layer(gain)
        assert set(layer.outputs) == {"middle", "doubled", "lost", "late"}
        assert layer.dims == {"doubled": ("x",)}

    @pytest.mark.thorough
    def test_values(self):
        inputs = given(TIMES, x=X, forcings={"u": [1.0, 2.0, 3.0]})
        found = solve(self.layer(), inputs).values
        cells = found["doubled"] / 2
        assert cells.shape == (3, 16)
        np.testing.assert_allclose(found["middle"], 1.5 * (cells[:, 7] + cells[:, 8]), atol=1e-12)
        # The outward derivative is −1, so that 0.5 flows out.
        np.testing.assert_allclose(found["lost"], 0.5, atol=1e-12)
        np.testing.assert_allclose(found["late"], TIMES + np.array([1, 2, 3]))

    def test_shapes_that_fit_nothing(self):
        layer = PDE(heat(), {"c": 0.0}, lambda t, y, u: {"few": y["c"][:3]})
        with pytest.raises(
            ModelError,
            match=r"observe gives 'few' the shape \(3,\): want one number, or a field of",
        ):
            jax.eval_shape(layer, given(TIMES))


@pytest.mark.thorough
def test_jumps_and_steps():
    """A field that only jumps, by an amount for each cell, and follows a forcing that is held
    between its data.
    """
    jump = Jump(np.array([0.5, 2.0]), {"c": np.stack([X, 2 * X])})
    law = FiniteVolume(LINE, reaction=lambda t, y, u: {"c": u["rain"]}, boundary=Flux(0.0))
    options = {"forcings": ("rain",), "interpolation": {"rain": "step"}, "jumps": jump, **FINE}
    inputs = bd.inputs(
        xr.Dataset({"rain": ("time", [1.0, 0.0, 3.0])}, {"time": [0.0, 1.0, 3.0]}),
        interpolation={"rain": "step"},
    )
    found = solve(PDE(law, {"c": 0.0}, **options), inputs).values["c"]
    np.testing.assert_allclose(
        found, np.array([0.0, 1.0, 1.0])[:, None] + np.outer([0, 1, 3], X), atol=GLOBAL
    )


class Profile(bd.Module):
    """An unknown initial state: a function of place, linear in its weights."""

    weight: bd.Scalar

    def __call__(self, t, y, u):
        assert y == {}
        return {"initial": self.weight * jnp.sin(jnp.pi * u["x"])}


class TestInitial:
    @pytest.mark.thorough
    def test_forms(self):
        initial = {"a": 2.0, "b": X, "c": Profile(2.0), "d": lambda t, y, u: u["x"] ** 2}
        start = solve(PDE(heat(), initial), given([0.0])).values
        np.testing.assert_allclose(start["a"][0], np.full(16, 2.0))
        np.testing.assert_allclose(start["b"][0], X)
        np.testing.assert_allclose(start["c"][0], 2 * np.sin(np.pi * X), atol=1e-12)
        np.testing.assert_allclose(start["d"][0], X**2, atol=1e-12)

    def test_random_leaves_and_their_units(self):
        initial = {
            "a": dist.Normal(jnp.zeros(16), 1.0).to_event(1),
            "b": Profile(dist.Normal(0.0, 1.0)),
        }
        layer = PDE(heat(), initial, units={"a": "K", "b": "mol"})
        assert {k: v.units for k, v in paths(layer).items()} == {
            "initial.a": "K",
            "initial.b.weight": "",
        }


PARAMETERS = ("diffusion", "low", "rate", "flux", "size", "source", "start")
AT = jnp.asarray([0.5, 0.3, 1.2, -0.4, 1.1, 0.7, 0.2])


def summary(parameters, adjoint=None, limiter="upwind"):
    """A number that depends on every kind of parameter: coefficient, boundary value, source and
    initial state.
    """
    p = dict(zip(PARAMETERS, parameters, strict=True))
    boundary = {
        "a": {"x_low": Dirichlet(p["low"]), "x_high": Robin(p["rate"], 1.0, 0.5)},
        "b": {"x_low": Neumann(lambda t, y, u: p["low"] * jnp.cos(t)), "x_high": Flux(p["flux"])},
    }
    law = FiniteVolume(
        Grid(x=(0.0, 1.0, 8)),
        {"a": p["diffusion"], "b": lambda t, y, u: p["diffusion"] * (1 + 0.1 * y["a"] ** 2)},
        velocity={"a": None, "b": 0.3},
        reaction=lambda t, y, u: {"a": p["source"] * jnp.sin(3 * u["x"]) - y["a"] * y["b"]},
        boundary=boundary,
        limiter=limiter,
    )
    initial = {"a": lambda t, y, u: p["size"] * u["x"] ** 2, "b": 1.0 + p["start"]}
    options = {} if adjoint is None else {"adjoint": adjoint}
    values = PDE(law, initial, **FINE, **options)(given([0.1, 0.3], x=[0.2, 0.9])).values
    return jnp.stack(
        [jnp.sum(values["a"] * jnp.asarray([[1.0, 2.0], [0.5, -1.0]])), jnp.sum(values["b"] ** 2)]
    )


@pytest.fixture(scope="module")
def jacobian():
    """In forward mode, and by central differences of the same program."""
    both = jax.jit(jax.jacfwd(lambda p: (summary(p, diffrax.ForwardMode()),) * 2, has_aux=True))
    steps = 1e-5 * np.eye(len(AT))
    differences = [
        (np.asarray(both(AT + d)[1]) - np.asarray(both(AT - d)[1])) / 2e-5 for d in steps
    ]
    return both(AT)[0], np.stack(differences, axis=-1)


class TestGradients:
    @pytest.mark.slow
    def test_reverse_mode_under_vmap(self, jacobian):
        weights = jnp.asarray([[1.0, 0.0], [0.0, 1.0]])
        ours = jax.jit(jax.vmap(jax.grad(lambda p, w: w @ summary(p)), (None, 0)))(AT, weights)
        np.testing.assert_allclose(ours, jacobian[1], atol=1e-6)
        assert np.abs(jacobian[1]).max(axis=0).min() > 1e-3

    @pytest.mark.slow
    def test_forward_mode(self, jacobian):
        np.testing.assert_allclose(jacobian[0], jacobian[1], atol=1e-6)

    @pytest.mark.slow
    def test_of_a_stabilised_solver(self):
        def mean(p):
            layer = PDE(heat(p[0]), {"c": p[1] * np.sin(np.pi * X)}, solver=Chebyshev(6), **FINE)
            return jnp.mean(layer(given([0.05])).values["c"])

        ours, numerical = slopes_and_differences(mean, jnp.asarray([0.5, 1.3]))
        np.testing.assert_allclose(ours, numerical, atol=1e-6)


class TestChebyshev:
    @pytest.mark.thorough
    def test_order(self):
        """Of second order in the length of fixed steps,
        for a nonlinear equation with time in it.
        """
        term = diffrax.ODETerm(lambda t, y, args: -(y**2) * (1 + 0.5 * jnp.sin(t)))
        for stages in (2, 7):

            @jax.jit
            def end(length, stages=stages):
                return diffrax.diffeqsolve(
                    term, Chebyshev(stages), 0.0, 1.0, length, jnp.asarray(1.0)
                ).ys[0]

            errors = [
                abs(end(1.0 / steps) - 1 / (1 + 1 + 0.5 * (1 - np.cos(1.0)))) for steps in (16, 32)
            ]
            assert order(errors)[0] == pytest.approx(2.0, abs=0.1)

    @pytest.mark.thorough("12")
    @pytest.mark.parametrize("stages", [4, 12])
    def test_stability(self, stages):
        """Stable up to 0.65 s² on the negative real axis, and no longer 15 % beyond 2/3 s²."""

        @jax.jit
        def after(reach):
            term = diffrax.ODETerm(lambda t, y, args: -reach * y)
            return jnp.abs(
                diffrax.diffeqsolve(term, Chebyshev(stages), 0.0, 200.0, 1.0, jnp.asarray(1.0)).ys[
                    0
                ]
            )

        assert all(after(share * 0.65 * (stages**2 - 1)) < 1e-3 for share in (0.3, 0.7, 1.0))
        assert not after(1.15 * 2 / 3 * (stages**2 - 1)) < 1

    @pytest.mark.slow
    def test_takes_fewer_evaluations_on_many_cells(self):
        grid = Grid(x=(0.0, 1.0, 64))
        start = np.sin(np.pi * grid.centres("x"))
        explicit, stabilised = (
            solve(PDE(heat(1.0, grid=grid), {"c": start}, solver=solver), given([0.0, 0.2, 0.5]))
            for solver in ("tsit5", Chebyshev(12))
        )
        # Six evaluations in each step of tsit5, 13 in one of this.
        assert 13 * int(stabilised.stats["steps"]) < 6 * int(explicit.stats["steps"]) / 2
        np.testing.assert_allclose(stabilised.values["c"], explicit.values["c"], atol=100 * 1e-6)

    def test_needs_two_stages(self):
        with pytest.raises(ModelError, match="at least 2 stages"):
            Chebyshev(1)


class TestSolvers:
    @pytest.mark.thorough
    @pytest.mark.parametrize(
        "solver", ["rodas5p", pytest.param("kvaerno3", marks=pytest.mark.slow)]
    )
    def test_implicit(self, solver):
        found = solve(PDE(heat(), {"c": np.sin(np.pi * X)}, solver=solver), given(TIMES))
        np.testing.assert_allclose(
            found.values["c"], [exact_cells(t) for t in TIMES], atol=100 * 1e-6
        )
        assert found.stats["steps"] < 60

    @pytest.mark.thorough
    def test_failure_is_flagged_and_the_gradient_is_finite_and_needs_little_memory(self):
        """Checkpoints are few, whatever the steps allowed: one for each square root of them would
        need more.
        """
        most = 25_600

        def total(rate):
            law = FiniteVolume(
                LINE, reaction=lambda t, y, u: {"c": rate * y["c"] ** 2}, boundary=Flux(0.0)
            )
            found = PDE(
                law, {"c": 1.0}, lambda t, y, u: {"log": jnp.log(LINE.mean(y["c"]))}, max_steps=most
            )(given([0.0, 2.0]))
            return jnp.sum(found.values["log"]), found.ok

        slope = jax.jit(jax.value_and_grad(total, has_aux=True)).lower(0.1).compile()
        assert 0 < slope.memory_analysis().temp_size_in_bytes < np.sqrt(most) * 16 * 8
        for rate, fine in ((0.1, True), (1.0, False)):
            (value, ok), gradient = slope(rate)
            assert bool(ok) is fine
            assert np.isfinite(value) and np.isfinite(gradient)

    def test_has_tolerances(self):
        assert tightened(PDE(heat(), {"c": 0.0})).rtol == pytest.approx(1e-8)

    @pytest.mark.slow
    def test_memory_of_the_gradient(self):
        """Checkpoints are few: a hundred times the steps allowed need hardly more memory."""
        inputs = given(TIMES)

        def memory(max_steps):
            def loss(d):
                return jnp.sum(
                    PDE(heat(d), {"c": np.sin(np.pi * X)}, max_steps=max_steps)(inputs).values["c"]
                )

            return jax.jit(jax.grad(loss)).lower(0.5).compile().memory_analysis().temp_size_in_bytes

        few, many = memory(256), memory(25_600)
        assert 0 < many < 2 * few


class TestRefusals:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"initial": {}}, "initial must be a dict that names every field"),
            (
                {"initial": {"c": np.ones(3)}},
                r"initial\['c'\] has the shape \(3,\), but \(\) or \(16,\) is needed",
            ),
            ({"rtol": 0.0}, "rtol and atol must be positive"),
            ({"max_steps": 0}, "max_steps at least 1"),
            ({"degree": 2}, "degree must be 1 or 3"),
            ({"solver": "euler"}, "unknown solver 'euler'"),
            ({"vector_field": lambda t, y, u: y}, "the vector field must hold one grid"),
            (
                {"vector_field": bd.Residual(heat(), heat(grid=Grid(x=(0.0, 1.0, 8))))},
                "must hold one grid",
            ),
            ({"vector_field": 3.0}, "vector_field must be callable"),
            ({"forcings": ("x",)}, "forcing 'x' has the name of an axis"),
            ({"initial": {"x": 0.0}}, "field 'x' has the name of an axis"),
            ({"initial": {"c": float("nan")}}, r"initial\['c'\] must be finite"),
        ],
    )
    def test_when_built(self, unchecked, options, message):
        with pytest.raises(ModelError, match=message):
            PDE(**{"vector_field": heat(), "initial": {"c": 0.0}} | options)

    def test_rates_of_other_fields(self):
        with pytest.raises(ModelError, match="the reaction has a rate for 'b'; the fields are c"):
            PDE(heat(reaction={"b": 1.0}), {"c": 0.0})(given(TIMES))


@pytest.mark.thorough
def test_a_residual_of_vector_fields():
    """A learned field may be added to transport: the grid is found where it lies."""
    law = bd.Residual(heat(), lambda t, y, u: {"c": -0.5 * (y["c"] - jnp.mean(y["c"]))})
    found = solve(PDE(law, {"c": np.sin(np.pi * X)}), given(TIMES))
    assert found.ok
    assert np.abs(found.values["c"][-1] - exact_cells(TIMES[-1])).max() > 1e-3


def rod(strength, flux, **options):
    """A rod with a heat source in its middle, held at one end; heat leaves at the other."""
    grid = Grid(x=(0.0, 1.0, 8))
    source = {"heat": Heater(strength)}
    law = FiniteVolume(
        grid, 0.3, reaction=source, boundary={"x_low": Dirichlet(0.0), "x_high": Flux(flux)}
    )
    return PDE(law, {"heat": 0.0}, start=0.0, **options)


class Heater(bd.Module):
    strength: bd.Scalar = bd.field(units="K/s")

    def __call__(self, t, y, u):
        return {"source": self.strength * jnp.exp(-50 * jnp.square(u["x"] - 0.5))}


class TestModel:
    truth = (2.0, 0.4)
    noise = 0.02

    @pytest.fixture
    def data(self):
        times, places = np.linspace(0.1, 1.0, 8), np.array([0.1, 0.3, 0.5, 0.7, 0.9])
        clean = solve(rod(*self.truth), given(times, x=places)).values["heat"]
        seen = clean + self.noise * np.random.default_rng(0).normal(size=clean.shape)
        return xr.Dataset({"heat": (("time", "x"), np.asarray(seen))}, {"time": times, "x": places})

    def model(self, **options):
        unknown = rod(dist.LogNormal(0.0, 1.0), dist.Normal(0.0, 1.0), **options)
        return bd.Model(unknown, bd.NormalNoise(dist.LogNormal(-3.0, 1.0)))

    @pytest.mark.thorough
    def test_density_and_gradient(self, data):
        """The density has its top near the truth, as its curvature there says."""
        problem = pose(self.model(**FINE), data)
        density = jax.jit(jax.value_and_grad(problem.log_density))
        at, step = np.array([0.5, 0.2, -3.0]), 1e-5
        value, gradient = density(at)
        assert np.isfinite(value)
        numerical = [
            float(density(at + d)[0] - density(at - d)[0]) / (2 * step) for d in step * np.eye(3)
        ]
        np.testing.assert_allclose(gradient, numerical, rtol=1e-6)
        top = minimize(lambda x: [-np.asarray(v) for v in density(x)], at, jac=True).x
        curvature = [(density(top - d)[1] - density(top + d)[1]) / 2e-4 for d in 1e-4 * np.eye(3)]
        sd = np.sqrt(np.diag(np.linalg.inv(curvature)))
        truth = np.array([np.log(self.truth[0]), self.truth[1]])
        assert (np.abs(top - [*truth, top[2]]) < 4 * sd).all()
        assert (sd[:2] < 0.1 * np.array([1.0, self.truth[1]])).all()

    @pytest.mark.slow
    def test_source_and_flux_are_found(self, data):
        post = bd.fit(
            self.model(), data, bd.NUTS(chains=2, warmup=150, draws=150), key=1, progress=False
        )
        draws = post["posterior"]
        for name, truth in zip(("strength", "x_high.value"), self.truth, strict=True):
            found = draws[name if name in draws else "value"].values.ravel()
            assert abs(found.mean() - truth) < 4 * found.std()
            assert found.std() < 0.1 * abs(truth)

    @pytest.mark.thorough
    def test_data_outside_the_grid(self, data):
        with pytest.raises(DataError, match="lies outside the grid"):
            pose(self.model(), data.assign_coords(x=data["x"] + 0.5))
