"""Extremes and events: return levels, exceedance and their figures."""

from .events import exceedance as exceedance, return_levels as return_levels
