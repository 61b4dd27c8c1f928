"""Recalibration of forecasts by the errors of past forecasts."""

from .recalibration import recalibrate as recalibrate
