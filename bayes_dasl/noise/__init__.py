"""Observation noise: the distribution of a datum around the prediction of the layer."""

from .._listing import listed as _listed
from .abstract_noise import (
    AbstractCrossCorrelation as AbstractCrossCorrelation,
    AbstractNoise as AbstractNoise,
    PerDatum as PerDatum,
    Read as Read,
    VaryingScale as VaryingScale,
)
from .binomial_noise import BetaBinomialNoise as BetaBinomialNoise, BinomialNoise as BinomialNoise
from .box_cox_noise import BoxCoxNoise as BoxCoxNoise
from .censored import Censored as Censored
from .common_noises import (
    CombinedNoise as CombinedNoise,
    LogNormalNoise as LogNormalNoise,
    NegativeBinomialNoise as NegativeBinomialNoise,
    NormalNoise as NormalNoise,
    PoissonNoise as PoissonNoise,
    StudentTNoise as StudentTNoise,
)
from .hurdle_and_zero_inflated import (
    HurdleNoise as HurdleNoise,
    ZeroInflatedNoise as ZeroInflatedNoise,
)

__dir__ = _listed(__name__)
