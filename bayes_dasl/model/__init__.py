"""`Model`, which joins a layer and observation noise, and the checks of a model before a fit."""

from .checks import (
    check_data as check_data,
    check_shapes as check_shapes,
    check_times as check_times,
    is_series as is_series,
    refuse_fill_value as refuse_fill_value,
    refuse_inexact_counts as refuse_inexact_counts,
    refuse_names_of_results as refuse_names_of_results,
    refuse_ruled_out as refuse_ruled_out,
    refuse_unknown_units as refuse_unknown_units,
)
from .fingerprint import posterior_fingerprint as posterior_fingerprint
from .layer_inputs import inputs as inputs
from .model import Model as Model, Observed as Observed, noise_at as noise_at
from .unit_check import (
    check_units as check_units,
    unit_findings as unit_findings,
    units_unseen as units_unseen,
)
