"""Partial differential equations on grids, by the method of lines."""

from .._listing import listed as _listed
from .boundary import (
    Dirichlet as Dirichlet,
    Flux as Flux,
    Neumann as Neumann,
    Periodic as Periodic,
    Robin as Robin,
)
from .chebyshev import Chebyshev as Chebyshev
from .finite_volume import FiniteVolume as FiniteVolume
from .grid import Grid as Grid
from .pde import PDE as PDE
from .spectral import (
    Spectral as Spectral,
    dealiased_product as dealiased_product,
    gradient as gradient,
    laplacian as laplacian,
    truncated as truncated,
)
from .vorticity import (
    Smagorinsky as Smagorinsky,
    Vorticity as Vorticity,
    coarsen as coarsen,
    energy as energy,
    energy_spectrum as energy_spectrum,
    enstrophy as enstrophy,
    random_vorticity as random_vorticity,
    strain_rate as strain_rate,
    velocity as velocity,
)

__dir__ = _listed(__name__)
