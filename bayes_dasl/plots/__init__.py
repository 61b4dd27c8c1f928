"""Figures of forecasts, their uncertainty and calibration, posteriors, and models.

Every function returns a `matplotlib.figure.Figure` and opens no window, so it works without a
display. No figure relies on colour alone: lines, markers, hatches or labels differ too.
"""

from .._listing import listed as _listed
from ._style import BLUE as BLUE, LEVELS as LEVELS, STYLE as STYLE, VERMILION as VERMILION
from .calibration import plot_coverage as plot_coverage, plot_pit as plot_pit
from .comparison import plot_comparison as plot_comparison
from .derived import plot_derived as plot_derived
from .exceedance_and_return_levels import (
    plot_exceedance as plot_exceedance,
    plot_return_levels as plot_return_levels,
)
from .fan import plot_fan as plot_fan
from .field import plot_field as plot_field
from .forecast import (
    epistemic_parts as epistemic_parts,
    plot_decomposition as plot_decomposition,
    plot_forecast as plot_forecast,
)
from .function import plot_function as plot_function, plot_training as plot_training
from .population import plot_members as plot_members, plot_vpc as plot_vpc
from .posterior import (
    plot_prior_posterior as plot_prior_posterior,
    plot_ranks as plot_ranks,
    science_parameters as science_parameters,
)
from .profile import plot_profile as plot_profile
from .scenarios import plot_scenarios as plot_scenarios
from .sensitivity import plot_sensitivity as plot_sensitivity
from .tree import plot_tree as plot_tree

__dir__ = _listed(__name__)
