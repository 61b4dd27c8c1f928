"""Hybrid models, which combine scientific models and networks.

Each combination works for vector fields and for whole layers.
"""

from .._listing import listed as _listed
from ._joined import AbstractHybrid as AbstractHybrid
from .conserve import Conserve as Conserve
from .correction import corrected as corrected
from .hierarchical import Hierarchical as Hierarchical
from .parallel import Parallel as Parallel
from .residual import Residual as Residual
from .series import Series as Series

__dir__ = _listed(__name__)
