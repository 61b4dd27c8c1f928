"""Observation noise: how a datum scatters around what the layer predicts."""

from .base import (
    AbstractCrossCorrelation as AbstractCrossCorrelation,
    AbstractNoise as AbstractNoise,
    PerDatum as PerDatum,
    Read as Read,
    VaryingScale as VaryingScale,
)
from .censored import Censored as Censored
from .counts import BetaBinomialNoise as BetaBinomialNoise, BinomialNoise as BinomialNoise
from .families import (
    CombinedNoise as CombinedNoise,
    LogNormalNoise as LogNormalNoise,
    NegativeBinomialNoise as NegativeBinomialNoise,
    NormalNoise as NormalNoise,
    PoissonNoise as PoissonNoise,
    StudentTNoise as StudentTNoise,
)
from .transformed import BoxCoxNoise as BoxCoxNoise
from .zeros import HurdleNoise as HurdleNoise, ZeroInflatedNoise as ZeroInflatedNoise
