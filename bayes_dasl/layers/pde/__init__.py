"""Partial differential equations by the method of lines: grids, boundary conditions, vector fields and the layer."""

from .boundary import Dirichlet as Dirichlet
from .boundary import Flux as Flux
from .boundary import Neumann as Neumann
from .boundary import Periodic as Periodic
from .boundary import Robin as Robin
from .chebyshev import Chebyshev as Chebyshev
from .finite_volume import FiniteVolume as FiniteVolume
from .grid import Grid as Grid
from .layer import PDE as PDE
from .spectral import Spectral as Spectral
from .spectral import dealiased_product as dealiased_product
from .spectral import gradient as gradient
from .spectral import laplacian as laplacian
from .spectral import truncated as truncated
from .vorticity import Smagorinsky as Smagorinsky
from .vorticity import Vorticity as Vorticity
from .vorticity import coarsen as coarsen
from .vorticity import energy as energy
from .vorticity import energy_spectrum as energy_spectrum
from .vorticity import enstrophy as enstrophy
from .vorticity import random_vorticity as random_vorticity
from .vorticity import strain_rate as strain_rate
from .vorticity import velocity as velocity
