"""A closure of turbulence is found from data, and keeps what the equation keeps.

The evidence on 64 × 64 cells, from filtered fine solutions, is
tests/studies/benchmarks/navier_stokes.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import xarray as xr
from pdes import given, solve

import bayes_dasl as bd
from bayes_dasl.inference import pose
from bayes_dasl.priors import draw_prior
from bayes_dasl.random import realise

GRID = bd.pde.Grid(x=(0.0, 2 * np.pi, 16), y=(0.0, 2 * np.pi, 16))
X = GRID.centres("x")
VISCOSITY, WIDTH, TRUTH, NOISE = 1e-3, 1.5 * GRID.width("x"), 0.17, 0.05
TIMES = np.array([0.25, 0.5])
# Sums over 256 cells of numbers of order 10, through some tens of steps.
ROUND_OFF = 1e-12


def start():
    drawn = bd.pde.random_vorticity(
        GRID, lambda k: k**4 / (1 + (k / 2) ** 2) ** 5, key=jax.random.key(0)
    )
    return drawn * jnp.sqrt(0.5 / bd.pde.energy(GRID, drawn))


def layer(eddy):
    return bd.pde.PDE(
        bd.pde.Vorticity(GRID, VISCOSITY, eddy=eddy),
        {"vorticity": start()},
        start=0.0,
        rtol=1e-4,
        atol=1e-4,
    )


def unknown_function():
    family = bd.bases.BSpline(0.0, 12.0, 4, degree=2)
    weights = dist.Normal(0.0, 1.0).expand((4,)).to_event(1)
    return bd.Basis(family, "strain", "eddy", weights, scale=0.01, positive=True)


def clean(times):
    return solve(layer(bd.pde.Smagorinsky(TRUTH, WIDTH)), given(times, x=X, y=X)).values[
        "vorticity"
    ]


def observed():
    found = clean(TIMES)
    seen = np.asarray(found) + NOISE * np.random.default_rng(1).normal(size=found.shape)
    data = xr.Dataset({"vorticity": (("time", "x", "y"), seen)}, {"time": TIMES, "x": X, "y": X})
    return data.isel(x=slice(0, None, 2), y=slice(1, None, 2))


def unknown():
    eddy = bd.pde.Smagorinsky(dist.HalfNormal(0.3), WIDTH)
    return bd.Model(layer(eddy), bd.NormalNoise(dist.LogNormal(-2.0, 1.0)))


def assert_kept(fields):
    """The total, which is zero."""
    assert float(np.abs(fields.sum((-2, -1))).max()) < ROUND_OFF * float(
        np.abs(fields).sum((-2, -1)).max()
    )


@pytest.mark.slow
def test_the_posterior_knows_the_coefficient():
    """There are two unknown numbers, so a grid will do."""
    problem = pose(unknown(), observed())
    coefficients, scales = np.linspace(0.164, 0.176, 33), np.linspace(0.04, 0.06, 11)
    grid = dict(
        zip(("coefficient", "scale"), np.meshgrid(coefficients, scales, indexing="ij"), strict=True)
    )
    values = {path: jnp.asarray(grid[path.split(".")[-1]].ravel()) for path in problem.sites}
    positions = jax.vmap(problem.unconstrain)(values)
    log_density = np.asarray(jax.jit(jax.vmap(problem.log_density))(positions)).reshape(33, 11)
    at = np.asarray(positions).reshape(33, 11, 2)
    volume = np.abs(np.linalg.det(np.stack(np.gradient(at, axis=(0, 1)), axis=-1)))
    weights = np.exp(log_density - log_density.max()) * volume
    for name, truth in (("coefficient", TRUTH), ("scale", NOISE)):
        mean = np.average(grid[name], weights=weights)
        sd = np.sqrt(np.average((grid[name] - mean) ** 2, weights=weights))
        assert abs(mean - truth) < 4 * sd < 4 * 0.1 * truth


@pytest.mark.slow
def test_a_solve_with_a_closure_keeps_the_total():
    assert_kept(np.asarray(clean(np.array([0.5, 1.5]))))


@pytest.mark.slow
def test_the_coefficient_is_found_and_forecasts_keep_the_total():
    model = unknown()
    engine = bd.NUTS(
        chains=2, warmup=50, draws=75, max_tree_depth=5, gradient="forward", map_starts=2
    )
    post = bd.fit(model, observed(), engine, key=0, progress=False)
    for name, truth in (("coefficient", TRUTH), ("scale", NOISE)):
        found = post["posterior"][name].values.ravel()
        assert abs(found.mean() - truth) < 4 * found.std()
        assert found.std() < 0.1 * truth
    later = xr.Dataset(coords={"time": [0.5, 1.5], "x": X, "y": X})
    means = bd.forecast(model, post, later)["conditional_mean"]["vorticity"]
    assert means.sizes["x"] == means.sizes["y"] == 16
    assert_kept(means.transpose(..., "x", "y").values)
    assert float(means.std(("chain", "draw")).mean()) > 0


@pytest.mark.thorough
@pytest.mark.parametrize(
    "eddy", [bd.pde.Smagorinsky(dist.HalfNormal(0.3), WIDTH), unknown_function()]
)
def test_a_closure_takes_energy(eddy):
    r"""As much as $\nu_e |S|^2$ in the mean, whatever the draw; so it never adds any."""
    field, nothing = start(), jnp.zeros(())
    strain = bd.pde.strain_rate(GRID, field)

    def of_one(draw):
        known = realise(eddy, draw)
        viscosity = jax.vmap(lambda s: known(nothing, {"strain": s}, {})["eddy"])(
            strain.ravel()
        ).reshape(GRID.shape)
        with_it, without = (
            bd.pde.Vorticity(GRID, VISCOSITY, eddy=e)(nothing, {"vorticity": field}, {})[
                "vorticity"
            ]
            for e in (known, None)
        )
        flow, change = bd.pde.velocity(GRID, field), bd.pde.velocity(GRID, with_it - without)
        added = sum(jnp.mean(flow[name] * change[name]) for name in GRID.names)
        return added, -jnp.mean(viscosity * jnp.square(strain))

    added, wanted = jax.jit(jax.vmap(of_one))(draw_prior(eddy, 20, key=jax.random.key(1)))
    np.testing.assert_allclose(added, wanted, rtol=10 * np.sqrt(np.finfo(float).eps))
    assert (added < 0).all()


def test_a_sharp_filter_leaves_what_the_coarse_grid_transports():
    """Cut by `coarsen` and `truncated`, a finer field has the same waves and none beyond."""
    fine = bd.pde.Grid(x=(0.0, 2 * np.pi, 32), y=(0.0, 2 * np.pi, 32))
    drawn = bd.pde.random_vorticity(fine, lambda k: 1 / (1 + k**2), key=jax.random.key(0))
    cut = bd.pde.truncated(GRID, bd.pde.coarsen(drawn, fine, GRID))
    k, before = bd.pde.energy_spectrum(fine, drawn)
    _, after = bd.pde.energy_spectrum(GRID, cut)
    kept = 3 * k[: len(after)] < 16
    np.testing.assert_allclose(after[kept], before[: len(after)][kept], rtol=1e-12)
    assert bd.pde.energy(GRID, cut) < bd.pde.energy(fine, drawn)
