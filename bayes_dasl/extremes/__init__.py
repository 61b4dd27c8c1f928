"""Extremes and events: exceedance probabilities and return levels of a forecast."""

from .exceedance_and_return_levels import exceedance as exceedance, return_levels as return_levels
