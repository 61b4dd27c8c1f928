"""The posterior as a log density of one flat vector, and the core engines that draw from it."""

from .._findings import Finding as Finding
from .._listing import listed as _listed
from .._runs.journal import Journal as Journal, ProgressBar as ProgressBar
from .descent.descent_settings import Descent as Descent
from .descent.ensemble import DeepEnsemble as DeepEnsemble
from .descent.joint import Joint as Joint
from .engine import (
    AbstractEngine as AbstractEngine,
    Cost as Cost,
    Modes as Modes,
    Samples as Samples,
    check_engine as check_engine,
)
from .nuts.nuts import NUTS as NUTS
from .pose_problem import pose as pose
from .problem import Problem as Problem, Terms as Terms

__dir__ = _listed(__name__)
