"""Figures of a forecast, its uncertainty, its calibration, its posterior, and of a model.

Every function returns a `matplotlib.figure.Figure` and touches no global Matplotlib state, so it
works without a display and from many threads. No figure leans on colour alone: line styles, markers,
hatches or labels say the same.
"""

from ._style import BLUE as BLUE
from ._style import LEVELS as LEVELS
from ._style import STYLE as STYLE
from ._style import VERMILION as VERMILION
from .calibration import plot_coverage as plot_coverage
from .calibration import plot_pit as plot_pit
from .field import plot_field as plot_field
from .forecast import epistemic_parts as epistemic_parts
from .forecast import plot_decomposition as plot_decomposition
from .forecast import plot_forecast as plot_forecast
from .network import plot_network as plot_network
from .network import plot_training as plot_training
from .posterior import plot_prior_posterior as plot_prior_posterior
from .posterior import plot_ranks as plot_ranks
from .posterior import science_parameters as science_parameters
from .tree import plot_tree as plot_tree
