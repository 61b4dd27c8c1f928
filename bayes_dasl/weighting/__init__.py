"""Comparison and weighting of models: evidence, past forecasts, stacking and mixtures."""

from .comparison import (
    BayesFactors as BayesFactors,
    Comparison as Comparison,
    EqualWeights as EqualWeights,
    compare as compare,
)
from .evidence import bayes_factors as bayes_factors
from .members_left_out import loo_members as loo_members
from .mixed import Mixed as Mixed, judge_mixture as judge_mixture
from .mixtures import mixture as mixture
from .rolling_origins import leave_future_out as leave_future_out, model_weights as model_weights
from .stacking import stack as stack
