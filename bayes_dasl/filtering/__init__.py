"""State-space models: Kalman filters, correlated noise, and propagation of random errors."""

from .._listing import listed as _listed
from .correlated import (
    CorrelatedBoxCoxNoise as CorrelatedBoxCoxNoise,
    CorrelatedLogNoise as CorrelatedLogNoise,
    CorrelatedNoise as CorrelatedNoise,
)
from .cross import CrossCorrelation as CrossCorrelation
from .kalman import Kalman as Kalman
from .processes import (
    AR1 as AR1,
    AbstractProcess as AbstractProcess,
    Matern32 as Matern32,
    OrnsteinUhlenbeck as OrnsteinUhlenbeck,
    RandomWalk as RandomWalk,
    White as White,
)
from .unscented import Unscented as Unscented, VarianceHead as VarianceHead

__dir__ = _listed(__name__)
