"""Statistics of draws; distributions that NumPyro lacks; descriptions of distributions in words."""

from .convergence import (
    allowance as allowance,
    nested_rhat as nested_rhat,
    rhat as rhat,
    tail_index as tail_index,
)
from .dependence import error_of_mean as error_of_mean, independent_hits as independent_hits
from .describe_distributions import (
    chosen_bounds as chosen_bounds,
    describe_distribution as describe_distribution,
)
from .distributions import (
    BoxCoxNormal as BoxCoxNormal,
    RectifiedBoxCoxNormal as RectifiedBoxCoxNormal,
)
from .importance import (
    Weights as Weights,
    jittered_constants as jittered_constants,
    largest_pareto_k as largest_pareto_k,
    stored_log_likelihood as stored_log_likelihood,
    weigh as weigh,
)
from .regression import basis as basis, explained_by as explained_by
from .tails import (
    log_between as log_between,
    log_incomplete_beta as log_incomplete_beta,
    log_tails as log_tails,
    truncated_moments as truncated_moments,
)
from .variance_component import Lacking as Lacking, Linear as Linear, Series as Series
