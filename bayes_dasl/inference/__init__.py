"""Engines that draw from the posterior, behind one verb: `fit`."""

from .descent import (
    SWAG as SWAG,
    DeepEnsemble as DeepEnsemble,
    Joint as Joint,
    Laplace as Laplace,
    MCDropout as MCDropout,
)
from .fitting import (
    Engine as Engine,
    belongs_to as belongs_to,
    check_same_posterior as check_same_posterior,
    data_groups as data_groups,
    fit as fit,
    fitted_data as fitted_data,
)
from .many_chain import ManyChain as ManyChain
from .nuts import NUTS as NUTS
from .problem import Problem as Problem, pose as pose
from .resuming import resume as resume
from .smc import SMC as SMC
from .svi import SVI as SVI
