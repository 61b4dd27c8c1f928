"""Scores of forecasts, and the decomposition of their variance."""

from .._listing import listed as _listed
from . import metrics as metrics
from .baselines import baseline_forecasts as baseline_forecasts
from .constraint_consistency import consistency as consistency
from .decomposition import decompose as decompose
from .decomposition_shares import Decomposition as Decomposition
from .forecast_quantiles import quantiles as quantiles
from .log_likelihoods import log_likelihood as log_likelihood
from .pit_values import pit as pit
from .scores import score as score

__dir__ = _listed(__name__)
