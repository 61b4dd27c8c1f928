"""Further engines: sequential Monte Carlo, variational inference, many short chains, Laplace, SWAG
and dropout.
"""

from .dropout import MCDropout as MCDropout
from .laplace import Laplace as Laplace
from .many_chain.sampler import ManyChain as ManyChain
from .smc.sampler import SMC as SMC
from .svi.variational import SVI as SVI
from .swag import SWAG as SWAG
