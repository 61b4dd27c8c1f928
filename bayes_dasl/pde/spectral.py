"""`Spectral`, a pseudo-spectral vector field, and operators on Fourier coefficients."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float

from ..errors import ModelError
from ..random import Module, Values, is_function
from .grid import Grid, by_field, check_value, each, of_field


def to_spectrum(values: Float[Array, "..."]) -> Complex[Array, "..."]:
    """Fourier coefficients of a real field; the last axis has no negative wavenumbers."""
    return jnp.fft.rfftn(values)


def to_field(grid: Grid, spectrum: Any) -> Float[Array, "..."]:
    """Real field from its Fourier coefficients."""
    return jnp.fft.irfftn(spectrum, s=grid.shape)


def modes(grid: Grid) -> dict[str, np.ndarray]:
    """Mode number of every coefficient along each axis, shaped to broadcast."""
    last = grid.names[-1]
    found = {}
    for axis, (name, cells) in enumerate(zip(grid.names, grid.shape, strict=True)):
        counts = np.arange(cells // 2 + 1) if name == last else np.fft.fftfreq(cells, 1 / cells)
        found[name] = counts.reshape([-1 if i == axis else 1 for i in range(len(grid.shape))])
    return found


def wavenumbers(grid: Grid) -> dict[str, np.ndarray]:
    """Wavenumber of every coefficient along each axis, in radians per length."""
    return {name: 2 * np.pi / grid.length(name) * count for name, count in modes(grid).items()}


def slopes(grid: Grid) -> dict[str, np.ndarray]:
    """Factors i k of a first derivative along each axis, but 0 for the Nyquist wave.

    An odd derivative of the wave of two cells vanishes on the grid.
    """
    cells, k = dict(zip(grid.names, grid.shape, strict=True)), wavenumbers(grid)
    return {
        name: 1j * np.where(2 * np.abs(m) == cells[name], 0.0, k[name])
        for name, m in modes(grid).items()
    }


def squared_wavenumber(grid: Grid) -> np.ndarray:
    """|k|² of every coefficient."""
    return np.asarray(sum(k**2 for k in wavenumbers(grid).values()))


def resolved(grid: Grid) -> Bool[np.ndarray, "..."]:
    """Mask of the two-thirds rule, where a product of two masked fields has no aliasing error."""
    # |m| < cells / 3 along every axis (Orszag 1971).
    cells = dict(zip(grid.names, grid.shape, strict=True))
    kept = np.asarray(True)
    for name, count in modes(grid).items():
        kept = kept & (3 * np.abs(count) < cells[name])
    return kept


def truncated(grid: Grid, values: Float[Array, "..."]) -> Float[Array, "..."]:
    """Truncate a field by the two-thirds rule.

    Args:
        grid: the grid of the field.
        values: the field at the cell centres, an array over the cells.

    Returns:
        The field without its shortest waves.
    """
    return to_field(grid, resolved(grid) * to_spectrum(values))


def gradient(grid: Grid, values: Float[Array, "..."]) -> dict[str, Float[Array, "..."]]:
    """Gradient of a periodic field.

    Args:
        grid: the grid of the field.
        values: the field at the cell centres, an array over the cells.

    Returns:
        The derivative along each axis, by its name.
    """
    spectrum = to_spectrum(values)
    return {name: to_field(grid, slope * spectrum) for name, slope in slopes(grid).items()}


def laplacian(grid: Grid, values: Float[Array, "..."]) -> Float[Array, "..."]:
    r"""Laplacian $\nabla^2 u$ of a periodic field.

    Args:
        grid: the grid of the field.
        values: the field at the cell centres, an array over the cells.

    Returns:
        The Laplacian, an array over the cells.
    """
    return to_field(grid, -squared_wavenumber(grid) * to_spectrum(values))


def dealiased_product(
    grid: Grid, a: Float[Array, "..."], b: Float[Array, "..."]
) -> Float[Array, "..."]:
    """Product of two periodic fields, dealiased by the two-thirds rule.

    Args:
        grid: the grid of both fields.
        a: a field at the cell centres, an array over the cells.
        b: another field.

    Returns:
        The truncated product.
    """
    return truncated(grid, truncated(grid, a) * truncated(grid, b))


class Spectral(Module):
    r"""Diffusion, conservation laws and reaction of periodic fields, by a pseudo-spectral method.

    $\partial_t u = D\,\nabla^2 u - K\,\nabla^4 u - \nabla\cdot F(t, y, u) + R(t, y, u)$

    F and R are called at each point with scalars, as for `FiniteVolume`, on fields truncated by the
    two-thirds rule, which is exact for products of two. Burgers' equation has the flux u²/2;
    Kuramoto–Sivashinsky's also, with D = −1 and K = 1.

    Args:
        grid: the cells of a periodic box.
        diffusion: D, in squared length per time: a number or a distribution, for all fields or in a
            dict by field.
        hyperdiffusion: K, in the fourth power of length per time: as for D.
        flux: F, in the units of the field times length per time: a function `(t, y, u)` that
            returns the flux by field; in two dimensions such functions by axis.
        reaction: R, in the units of the field per time: a function `(t, y, u)` that returns rates
            by field.

    Shapes: fields are arrays over the cells, known at their centres.

    Raises:
        ModelError: for a flux without an axis; when called, for a rate of an unknown field.
    """

    grid: Grid
    diffusion: Any = 0.0
    hyperdiffusion: Any = 0.0
    flux: Any = None
    reaction: Any = None

    def __check_init__(self):
        for what in ("diffusion", "hyperdiffusion"):
            value = getattr(self, what)
            named = value if isinstance(value, Mapping) else {"": value}
            for name, number in named.items():
                check_value(number, ((),), f"{what} {name}".strip())
        if self.flux is not None:
            for name, flux in self._fluxes().items():
                if name not in self.grid.names:
                    raise ModelError(
                        f"flux along '{name}': the axes of the grid are "
                        f"{', '.join(self.grid.names)}"
                    )
                if not is_function(flux):
                    raise ModelError(
                        "flux must be a function (t, y, u) that returns the flux by field, not "
                        f"{flux!r}"
                    )
        if self.reaction is not None and not is_function(self.reaction):
            raise ModelError(f"reaction must be a function (t, y, u), not {self.reaction!r}")

    def _fluxes(self) -> Mapping[str, Any]:
        if isinstance(self.flux, Mapping):
            return self.flux
        if len(self.grid.names) > 1:
            raise ModelError("flux must be a dict of functions by axis on a grid of two dimensions")
        return dict.fromkeys(self.grid.names, self.flux)

    @property
    def periodic(self) -> tuple[str, ...]:
        """Names of the periodic axes: all."""
        return self.grid.names

    def __call__(self, t: Any, y: Values, u: Values) -> dict[str, Array]:
        grid, kept = self.grid, resolved(self.grid)
        # 1. Fields without the waves that products would alias (two-thirds rule, Orszag 1971).
        spectra = {name: to_spectrum(values) for name, values in y.items()}
        smooth = {name: to_field(grid, kept * spectrum) for name, spectrum in spectra.items()}
        # 2. Linear terms wave by wave: -(D k² + K k⁴) û.
        rates = {name: self._damping(name) * spectrum for name, spectrum in spectra.items()}
        # 3. Nonlinear terms in real space; of a flux -i k F̂, of a reaction R̂.
        for factor, function in self._nonlinear():
            found = each(function, t, smooth, {**u, **grid.places}, grid.shape)
            for name, value in by_field(found, y, "a flux or reaction").items():
                rates[name] += factor * kept * to_spectrum(value)
        return {name: to_field(grid, spectrum) for name, spectrum in rates.items()}

    def _damping(self, field: str) -> Any:
        # -(D k² + K k⁴)
        k2 = squared_wavenumber(self.grid)
        second = of_field(self.diffusion, field, "diffusion")
        return -second * k2 - of_field(self.hyperdiffusion, field, "hyperdiffusion") * k2**2

    def _nonlinear(self) -> list[tuple[Any, Any]]:
        """Factors and functions of the nonlinear terms: -i k for a flux, 1 for the reaction."""
        fluxes = {} if self.flux is None else self._fluxes()
        terms: list[tuple[Any, Any]] = [
            (-slopes(self.grid)[name], function) for name, function in fluxes.items()
        ]
        return terms if self.reaction is None else [*terms, (1.0, self.reaction)]
