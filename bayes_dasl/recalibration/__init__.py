"""Recalibration of forecasts by the errors of past forecasts."""

from .._listing import listed as _listed
from .recalibration import recalibrate as recalibrate

__dir__ = _listed(__name__)
