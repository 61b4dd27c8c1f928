"""Further engines: SMC, variational inference, many short chains, Laplace, SWAG and dropout."""

from .._listing import listed as _listed
from .dropout import MCDropout as MCDropout
from .laplace import Laplace as Laplace
from .many_chain.many_chain import ManyChain as ManyChain
from .smc.smc import SMC as SMC
from .svi.svi import SVI as SVI
from .swag import SWAG as SWAG

__dir__ = _listed(__name__)
