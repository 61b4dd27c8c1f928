"""`Vorticity`: two-dimensional incompressible flow in a periodic box, with diagnostics."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import ModelError
from ..random import Module, Scalar, Values
from .grid import Grid, check_value, evaluate
from .spectral import (
    modes,
    resolved,
    slopes,
    squared_wavenumber,
    to_field,
    to_spectrum,
    wavenumbers,
)


class Vorticity(Module):
    r"""The two-dimensional incompressible Navier–Stokes equation in a periodic box.

    $\partial_t\omega = -\nabla\cdot(v\,\omega) + \nu\,\nabla^2\omega - \mu\,\omega + F
    + \nabla\times\nabla\cdot(2\,\nu_e S)$

    The only field is `vorticity` $\omega = \partial_x v_y - \partial_y v_x$, which determines the
    velocity v. S is the strain rate tensor.

    Functions `(t, y, u)` for F and $\nu_e$ are called at each point with single numbers. Their `y`
    holds `vorticity`. For `eddy` it also holds `strain`, the magnitude
    $|S| = \sqrt{2\,S_{ij} S_{ij}}$. Their `u` holds the forcings and the coordinates of the point.

    Products are dealiased by the two-thirds rule. So a `truncated` field conserves energy and
    enstrophy if there is no viscosity, drag and force. Advection and eddy viscosity conserve the
    total vorticity.

    Args:
        grid: the cells of a periodic box with two axes.
        viscosity: the viscosity ν, in squared length per time.
        forcing: F, the curl of the force per mass, in vorticity per time: a number, a distribution,
            an array over the cells or a function; no force unless given.
        drag: the linear drag μ, per time.
        eddy: the eddy viscosity $\nu_e$ of unresolved scales, in squared length per time: a number,
            a distribution, an array over the cells or a function such as `Smagorinsky`, a `Network`
            or a `Basis`; zero unless given.

    Shapes: `vorticity` is an array over the cells, with values at the cell centres.

    Raises:
        ModelError: if the grid does not have two axes, or an array does not have the grid's shape.
    """

    grid: Grid
    viscosity: Scalar
    forcing: Any = None
    drag: Scalar = 0.0
    eddy: Any = None

    def __check_init__(self):
        if len(self.grid.names) != 2:
            raise ModelError(
                f"Vorticity needs a grid of two axes, not of {', '.join(self.grid.names)} alone"
            )
        for name in ("forcing", "eddy"):
            value = getattr(self, name)
            if value is not None:
                check_value(value, ((), self.grid.shape), name)

    @property
    def periodic(self) -> tuple[str, ...]:
        """Names of the periodic axes: both axes of the grid."""
        return self.grid.names

    def __call__(self, t: Any, y: Values, u: Values) -> dict[str, Array]:
        grid = self.grid
        known = {**u, **grid.places}
        # 1. Truncate the spectrum. Velocity and vorticity follow from the truncated spectrum.
        full = to_spectrum(y["vorticity"])
        kept = resolved(grid) * full
        slope = slopes(grid)
        flow, vorticity = _velocity_spectra(grid, kept), to_field(grid, kept)
        # 2. Linear terms wave by wave: -(ν k² + μ) ω̂.
        rate = -(self.viscosity * squared_wavenumber(grid) + jnp.asarray(self.drag)) * full
        # 3. Advection in conservative form: -i k · (v ω)^, dealiased.
        for name in grid.names:
            transport = to_spectrum(to_field(grid, flow[name]) * vorticity)
            rate -= slope[name] * resolved(grid) * transport
        # 4. Eddy viscosity, dealiased; the force is added in real space.
        if self.eddy is not None:
            rate += resolved(grid) * self._closure(t, vorticity, flow, known)
        values = to_field(grid, rate)
        if self.forcing is not None:
            values += evaluate(self.forcing, t, y, known, grid.shape, "vorticity", "forcing")
        return {"vorticity": values}

    def _closure(self, t: Any, vorticity: Array, flow: dict[str, Array], u: Values) -> Any:
        """Return the Fourier coefficients of the curl of the divergence of the eddy stress τ.

        Args:
            t: the time.
            vorticity: the truncated vorticity, an array over the cells.
            flow: Fourier coefficients of the velocity, by axis name.
            u: forcings and coordinates of the cells, by name.
        """
        # curl div τ = (∂_xx - ∂_yy) τ_xy - 2 ∂_xy τ_xx, since τ_yy = -τ_xx.
        grid, (x, y) = self.grid, self.grid.names
        along, across = _strain(grid, flow)
        # The stress is τ = 2 ν_e S, so τ_xx = 2 ν_e S_xx and τ_xy = 2 ν_e S_xy.
        felt = {"vorticity": vorticity, "strain": _magnitude(along, across)}
        viscosity = evaluate(self.eddy, t, felt, u, grid.shape, "eddy", "eddy")
        normal = to_spectrum(2 * viscosity * along)
        shear = to_spectrum(2 * viscosity * across)
        slope = slopes(grid)
        return (slope[x] ** 2 - slope[y] ** 2) * shear - 2 * slope[x] * slope[y] * normal


class Smagorinsky(Module):
    r"""Smagorinsky's eddy viscosity (1963): $\nu_e = (c\,\Delta)^2\,|S|$.

    |S| is the magnitude of the strain rate, the entry `strain` that `Vorticity` provides.

    Args:
        coefficient: the dimensionless coefficient c.
        width: the filter width Δ, usually the width of a cell, in units of length.
    """

    coefficient: Scalar
    width: Scalar

    def __call__(self, t: Any, y: Values, u: Values) -> dict[str, Array]:
        coefficient: Any = self.coefficient
        return {"eddy": jnp.square(coefficient * self.width) * y["strain"]}


def _velocity_spectra(grid: Grid, vorticity: Any) -> dict[str, Array]:
    """Return the Fourier coefficients of the velocity by axis, from those of the vorticity ω.

    The stream function ψ satisfies -∇²ψ = ω, and the velocity is v = (∂_y ψ, -∂_x ψ).
    """
    (x, y), k2, slope = grid.names, squared_wavenumber(grid), slopes(grid)
    stream = vorticity * np.where(k2 > 0, 1 / np.where(k2 > 0, k2, 1.0), 0.0)
    return {x: slope[y] * stream, y: -slope[x] * stream}


def _strain(grid: Grid, flow: dict[str, Array]) -> tuple[Array, Array]:
    """Return the normal strain rate S_xx and the shear strain rate S_xy, each over the cells.

    `flow` holds the Fourier coefficients of the velocity, by axis name.
    """
    # S_yy = -S_xx, since the flow is incompressible.
    (x, y), slope = grid.names, slopes(grid)
    shear = (slope[y] * flow[x] + slope[x] * flow[y]) / 2
    return to_field(grid, slope[x] * flow[x]), to_field(grid, shear)


def _magnitude(along: Array, across: Array) -> Array:
    """Return the magnitude |S| of the strain rate, from S_xx (`along`) and S_xy (`across`)."""
    # |S|² = 2 (S_xx² + S_yy² + 2 S_xy²). Zeros are masked: the root has no derivative there.
    squared = 4 * (along**2 + across**2)
    moving = squared > 0
    return jnp.where(moving, jnp.sqrt(jnp.where(moving, squared, 1.0)), 0.0)


def velocity(grid: Grid, vorticity: Float[Array, "x y"]) -> dict[str, Float[Array, "x y"]]:
    """Velocity of a flow from its vorticity, with zero mean velocity.

    Args:
        grid: the grid, with two axes.
        vorticity: the vorticity at the cell centres, per time.

    Returns:
        A dict by axis name of velocity components at the cell centres.
    """
    return {
        name: to_field(grid, part)
        for name, part in _velocity_spectra(grid, to_spectrum(vorticity)).items()
    }


def strain_rate(grid: Grid, vorticity: Float[Array, "x y"]) -> Float[Array, "x y"]:
    r"""Magnitude of the strain rate, $|S| = \sqrt{2\,S_{ij} S_{ij}}$.

    Args:
        grid: the grid, of two axes.
        vorticity: the vorticity at the cell centres, per time.

    Returns:
        The strain rate at the cell centres, per time.
    """
    return _magnitude(*_strain(grid, _velocity_spectra(grid, to_spectrum(vorticity))))


def energy(grid: Grid, vorticity: Float[Array, "x y"]) -> Float[Array, ""]:
    """Mean kinetic energy per mass, the mean of $|v|^2/2$.

    Args:
        grid: the grid, of two axes.
        vorticity: the vorticity at the cell centres, per time.

    Returns:
        The energy, a scalar.
    """
    return sum((jnp.mean(v**2) / 2 for v in velocity(grid, vorticity).values()), jnp.zeros(()))


def enstrophy(grid: Grid, vorticity: Float[Array, "x y"]) -> Float[Array, ""]:
    r"""Mean enstrophy, the mean of $\omega^2/2$.

    Args:
        grid: the grid, of two axes; it is not used.
        vorticity: the vorticity at the cell centres, per time.

    Returns:
        The enstrophy, a scalar.
    """
    return jnp.mean(vorticity**2) / 2


def energy_spectrum(
    grid: Grid, vorticity: Float[Array, "x y"]
) -> tuple[Float[np.ndarray, " k"], Float[Array, " k"]]:
    r"""Energy spectrum $E_j$ over shells of wavenumbers $k_j = j\,\delta$.

    δ is the wavenumber of the longest wave that fits in the box. Shell j holds the wavenumbers
    nearest to $k_j$. The total energy is $\sum_j E_j\,\delta$.

    Args:
        grid: the grid, with two axes.
        vorticity: the vorticity at the cell centres, per time.

    Returns:
        The wavenumbers $k_j$, and the energy per wavenumber $E_j$; both are `(shell,)`.
    """
    spacing, shell, weight = _shells(grid)
    of_mode = weight * jnp.abs(to_spectrum(vorticity)) ** 2 / vorticity.size**2
    energies = jax.ops.segment_sum(jnp.ravel(of_mode), shell.ravel(), shell.max() + 1)
    return spacing * np.arange(shell.max() + 1), energies / spacing


def random_vorticity(grid: Grid, spectrum: Any, *, key: Array) -> Float[Array, "x y"]:
    """Random vorticity of mean zero with a given energy spectrum.

    Phases are random within each shell of `energy_spectrum`. Waves that the two-thirds rule drops
    have zero amplitude.

    Args:
        grid: the grid, with two axes.
        spectrum: a function of an array of wavenumbers, in radians per length. It returns the
            energy per wavenumber at each of them, in the same units as `energy_spectrum`.
        key: a JAX random key.

    Returns:
        The vorticity at the cell centres.
    """
    # 1. Draw white noise, which has random phases. 2. Measure its energy in each shell. 3. Scale
    # each shell by sqrt(E wanted / E drawn).
    noise = resolved(grid) * to_spectrum(jax.random.normal(key, grid.shape))
    k, drawn = energy_spectrum(grid, to_field(grid, noise))
    wanted = jnp.where(k > 0, spectrum(jnp.where(k > 0, k, 1.0)), 0.0)
    factor = jnp.where(drawn > 0, jnp.sqrt(wanted / jnp.where(drawn > 0, drawn, 1.0)), 0.0)
    return to_field(grid, factor[_shells(grid)[1]] * noise)


def _shells(grid: Grid) -> tuple[float, np.ndarray, np.ndarray]:
    """Assign each Fourier coefficient of the vorticity to a shell of wavenumbers.

    Returns:
        The spacing δ of the shells, the shell number of each coefficient, and its weight. The
        energy of a coefficient is its weight times its squared modulus, divided by the squared
        number of cells.
    """
    k2 = squared_wavenumber(grid)
    spacing = 2 * np.pi / max(grid.length(name) for name in grid.names)
    counts, cells = modes(grid)[grid.names[1]], grid.shape[1]
    # A real field stores half of its coefficients: all but the first and last column count twice.
    # The energy of a mode is |ω̂|² / (2 k²).
    twice = np.where((counts == 0) | (2 * counts == cells), 1.0, 2.0)
    weight = np.where(k2 > 0, twice / (2 * np.where(k2 > 0, k2, 1.0)), 0.0)
    return spacing, np.rint(np.sqrt(k2) / spacing).astype(int), weight


def coarsen(
    values: Float[Array, "x y"], fine: Grid, coarse: Grid
) -> Float[Array, "coarse_x coarse_y"]:
    """Spectrally filter a periodic field to a coarser grid of the same box.

    `Vorticity` advects only the waves that the two-thirds rule keeps. So compare its predictions
    with `truncated(coarse, coarsen(...))`.

    Args:
        values: the field at the cell centres of the fine grid.
        fine: the grid of the field.
        coarse: a grid of the same box with as many cells or fewer along each axis.

    Returns:
        The field at the cell centres of the coarse grid.

    Raises:
        ModelError: if the boxes of the grids differ, or `coarse` has more cells than `fine` along
            an axis.
    """
    same = fine.names == coarse.names and all(
        fine.axes[n][:2] == coarse.axes[n][:2] for n in fine.names
    )
    if not same or any(many < few for many, few in zip(fine.shape, coarse.shape, strict=True)):
        raise ModelError(
            f"cannot coarsen {dict(fine.axes)} to {dict(coarse.axes)}: the same box, fewer cells"
        )
    spectrum = to_spectrum(values)
    for axis, (name, count) in enumerate(modes(coarse).items()):
        spectrum = jnp.take(spectrum, count.ravel().astype(int), axis=axis)
        # Cell centres of the two grids are shifted by (h_coarse - h_fine) / 2: multiply by
        # exp(i k shift).
        shift = (coarse.width(name) - fine.width(name)) / 2
        resolvable = 2 * np.abs(count) < coarse.axes[name][2]
        spectrum *= resolvable * np.exp(1j * wavenumbers(coarse)[name] * shift)
    return to_field(coarse, spectrum) * (np.prod(coarse.shape) / np.prod(fine.shape))
