"""Judgement: the verdict on a fit, proper scores, what must be beaten, and the uncertainty in parts."""

from . import metrics as metrics
from .baselines import baseline_forecasts as baseline_forecasts
from .comparison import (
    BayesFactors as BayesFactors,
    Comparison as Comparison,
    EqualWeights as EqualWeights,
    compare as compare,
)
from .decomposition import decompose as decompose
from .diagnosis import Diagnosis as Diagnosis, Finding as Finding, diagnose as diagnose
from .entropy import decompose_entropy as decompose_entropy
from .events import exceedance as exceedance, return_levels as return_levels
from .evidence import bayes_factors as bayes_factors
from .forecast_tables import quantiles as quantiles
from .global_sensitivity import sensitivity as sensitivity
from .information import Information as Information, fisher_information as fisher_information
from .mixed import Mixed as Mixed, judge_mixture as judge_mixture
from .pointwise import log_likelihood as log_likelihood
from .pooling import shrinkage as shrinkage
from .profiles import profile_likelihood as profile_likelihood
from .scores import consistency as consistency, pit as pit, score as score
from .shares import Decomposition as Decomposition
