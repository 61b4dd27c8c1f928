"""Comparison and weighting of models: evidence, past forecasts, stacking and mixtures."""

from .._listing import listed as _listed
from .bayes_factor import bayes_factors as bayes_factors
from .comparison import Comparison as Comparison, compare as compare
from .equal_weights import EqualWeights as EqualWeights
from .factor_table import BayesFactors as BayesFactors
from .judged_mixtures import Mixed as Mixed, judge_mixture as judge_mixture
from .members_left_out import loo_members as loo_members
from .mixtures import mixture as mixture
from .stacking import stack as stack
from .weights_by_future_left_out import (
    leave_future_out as leave_future_out,
    model_weights as model_weights,
)

__dir__ = _listed(__name__)
