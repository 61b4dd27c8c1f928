"""Fit a model to data, and resume a fit."""

from .fit_and_resume import (
    belongs_to as belongs_to,
    fit as fit,
    resume as resume,
    run_identity as run_identity,
)
from .groups import data_groups as data_groups
