"""Extremes and events: return levels, exceedance and their figures."""

from .exceedance_and_return_levels import exceedance as exceedance, return_levels as return_levels
