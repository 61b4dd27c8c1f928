"""Engines that draw from the posterior, behind one verb: `fit`."""

from .._findings import Finding as Finding
from .._runs.journal import Journal as Journal, ProgressBar as ProgressBar
from .descent import (
    SWAG as SWAG,
    DeepEnsemble as DeepEnsemble,
    Descent as Descent,
    Joint as Joint,
    Laplace as Laplace,
    MCDropout as MCDropout,
)
from .engine import (
    AbstractEngine as AbstractEngine,
    Cost as Cost,
    Modes as Modes,
    Samples as Samples,
    check_engine as check_engine,
)
from .fitting import belongs_to as belongs_to, fit as fit, resume as resume, run_identity as run_identity
from .groups import data_groups as data_groups
from .many_chain import ManyChain as ManyChain
from .nuts import NUTS as NUTS
from .posing import pose as pose
from .problem import Problem as Problem, Terms as Terms
from .smc import SMC as SMC
from .svi import SVI as SVI
