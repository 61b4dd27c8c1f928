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
    """Return the Fourier coefficients of a real field, as `jax.numpy.fft.rfftn` orders them.

    The last axis holds only non-negative wavenumbers.
    """
    return jnp.fft.rfftn(values)


def to_field(grid: Grid, spectrum: Any) -> Float[Array, "..."]:
    """Return the real field with the given Fourier coefficients, as an array over the cells."""
    return jnp.fft.irfftn(spectrum, s=grid.shape)


def modes(grid: Grid) -> dict[str, np.ndarray]:
    """Integer mode number of every Fourier coefficient, by axis name.

    Returns:
        One array per axis, with length 1 along all other axes, so that the arrays broadcast.
    """
    last = grid.names[-1]
    found = {}
    for axis, (name, cells) in enumerate(zip(grid.names, grid.shape, strict=True)):
        counts = np.arange(cells // 2 + 1) if name == last else np.fft.fftfreq(cells, 1 / cells)
        found[name] = counts.reshape([-1 if i == axis else 1 for i in range(len(grid.shape))])
    return found


def wavenumbers(grid: Grid) -> dict[str, np.ndarray]:
    """Wavenumber of every Fourier coefficient by axis, in radians per length, shaped as `modes`."""
    return {name: 2 * np.pi / grid.length(name) * count for name, count in modes(grid).items()}


def slopes(grid: Grid) -> dict[str, np.ndarray]:
    """Factors i k by which a first derivative multiplies the Fourier coefficients, by axis name.

    The factor of the Nyquist mode (the wave of two cells) is 0, since its odd derivatives vanish at
    the cell centres.
    """
    cells, k = dict(zip(grid.names, grid.shape, strict=True)), wavenumbers(grid)
    return {
        name: 1j * np.where(2 * np.abs(m) == cells[name], 0.0, k[name])
        for name, m in modes(grid).items()
    }


def squared_wavenumber(grid: Grid) -> np.ndarray:
    """Return |k|², the squared length of the wavenumber vector, of every Fourier coefficient."""
    return np.asarray(sum(k**2 for k in wavenumbers(grid).values()))


def resolved(grid: Grid) -> Bool[np.ndarray, "..."]:
    """Mask of the Fourier coefficients that the two-thirds rule keeps.

    A product of two fields with only these coefficients has no aliasing error in them.
    """
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
        The field with only the waves of mode number below cells / 3 along every axis.
    """
    return to_field(grid, resolved(grid) * to_spectrum(values))


def gradient(grid: Grid, values: Float[Array, "..."]) -> dict[str, Float[Array, "..."]]:
    """Gradient of a periodic field.

    Args:
        grid: the grid of the field.
        values: the field at the cell centres, an array over the cells.

    Returns:
        A dict by axis name of derivatives along that axis, each an array over the cells.
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
        b: the other field, an array over the cells.

    Returns:
        The product of the truncated fields, itself truncated, an array over the cells.
    """
    return truncated(grid, truncated(grid, a) * truncated(grid, b))


class Spectral(Module):
    r"""Diffusion, conservation laws and reaction of periodic fields, by a pseudo-spectral method.

    $\partial_t u = D\,\nabla^2 u - K\,\nabla^4 u - \nabla\cdot F(t, y, u) + R(t, y, u)$

    In this equation u is one field. The functions F and R are called at each point with single
    numbers, as for `FiniteVolume`. Their arguments are fields truncated by the two-thirds rule, and
    so are their values. This removes all aliasing errors from products of two fields. Burgers'
    equation has F = u²/2. The Kuramoto–Sivashinsky equation has the same flux, with D = −1 and K =
    1.

    Args:
        grid: the cells of a periodic box.
        diffusion: D, in squared length per time: a number or a distribution, for all fields or in a
            dict by field.
        hyperdiffusion: K, in the fourth power of length per time, in the same form as D.
        flux: F, in the units of the field times length per time: a function `(t, y, u)` that
            returns a dict of fluxes by field. In two dimensions it is a dict of such functions by
            axis.
        reaction: R, in the units of the field per time: a function `(t, y, u)` that returns a dict
            of rates by field.

    Shapes: fields are arrays over the cells, with values at the cell centres.

    Raises:
        ModelError: for a flux along an unknown axis, or, in two dimensions, a flux that is no dict
            by axis. When called, for a rate of an unknown field.
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
        """Return the flux functions by axis name."""
        if isinstance(self.flux, Mapping):
            return self.flux
        if len(self.grid.names) > 1:
            raise ModelError("flux must be a dict of functions by axis on a grid of two dimensions")
        return dict.fromkeys(self.grid.names, self.flux)

    @property
    def periodic(self) -> tuple[str, ...]:
        """Names of the periodic axes: all axes of the grid."""
        return self.grid.names

    def __call__(self, t: Any, y: Values, u: Values) -> dict[str, Array]:
        grid, kept = self.grid, resolved(self.grid)
        # 1. Fields without the waves that products would alias (two-thirds rule, Orszag 1971).
        spectra = {name: to_spectrum(values) for name, values in y.items()}
        smooth = {name: to_field(grid, kept * spectrum) for name, spectrum in spectra.items()}
        # 2. Linear terms wave by wave: -(D k² + K k⁴) û.
        rates = {name: self._damping(name) * spectrum for name, spectrum in spectra.items()}
        # 3. Nonlinear terms, evaluated in real space: -i k F̂ for a flux, R̂ for a reaction.
        for factor, function in self._nonlinear():
            found = each(function, t, smooth, {**u, **grid.places}, grid.shape)
            for name, value in by_field(found, y, "a flux or reaction").items():
                rates[name] += factor * kept * to_spectrum(value)
        return {name: to_field(grid, spectrum) for name, spectrum in rates.items()}

    def _damping(self, field: str) -> Any:
        """Return the factor -(D k² + K k⁴) of every Fourier coefficient, for one field."""
        k2 = squared_wavenumber(self.grid)
        second = of_field(self.diffusion, field, "diffusion")
        return -second * k2 - of_field(self.hyperdiffusion, field, "hyperdiffusion") * k2**2

    def _nonlinear(self) -> list[tuple[Any, Any]]:
        """Return the nonlinear terms as pairs (factor, function).

        The factor multiplies the Fourier coefficients of the function's values. It is -i k for a
        flux and 1 for the reaction.
        """
        fluxes = {} if self.flux is None else self._fluxes()
        terms: list[tuple[Any, Any]] = [
            (-slopes(self.grid)[name], function) for name, function in fluxes.items()
        ]
        return terms if self.reaction is None else [*terms, (1.0, self.reaction)]
