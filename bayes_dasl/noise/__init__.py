"""Observation noise: how a datum scatters around what the layer predicts."""

from .base import AbstractNoise as AbstractNoise, VaryingScale as VaryingScale
from .correlated import CorrelatedLogNoise as CorrelatedLogNoise, CorrelatedNoise as CorrelatedNoise
from .families import (
    LogNormalNoise as LogNormalNoise,
    NegativeBinomialNoise as NegativeBinomialNoise,
    NormalNoise as NormalNoise,
    PoissonNoise as PoissonNoise,
    StudentTNoise as StudentTNoise,
)
from .processes import (
    AR1 as AR1,
    AbstractProcess as AbstractProcess,
    Matern32 as Matern32,
    OrnsteinUhlenbeck as OrnsteinUhlenbeck,
    RandomWalk as RandomWalk,
)
