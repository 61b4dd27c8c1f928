"""Engines that draw from the posterior, behind one verb: `fit`."""

from ._fit import Engine as Engine
from ._fit import belongs_to as belongs_to
from ._fit import check_same_posterior as check_same_posterior
from ._fit import data_groups as data_groups
from ._fit import fit as fit
from ._fit import fitted_data as fitted_data
from ._problem import Problem as Problem
from ._problem import pose as pose
from ._resume import resume as resume
from .dropout import MCDropout as MCDropout
from .ensemble import DeepEnsemble as DeepEnsemble
from .joint import Joint as Joint
from .laplace import Laplace as Laplace
from .many_chain import ManyChain as ManyChain
from .nuts import NUTS as NUTS
from .smc import SMC as SMC
from .svi import SVI as SVI
from .swag import SWAG as SWAG
