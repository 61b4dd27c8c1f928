"""Scores of forecasts, and the variance of forecasts in parts."""

from . import metrics as metrics
from .baselines import baseline_forecasts as baseline_forecasts
from .decomposition import decompose as decompose
from .forecast_tables import quantiles as quantiles
from .pointwise import log_likelihood as log_likelihood
from .scores import consistency as consistency, pit as pit, score as score
from .shares import Decomposition as Decomposition
