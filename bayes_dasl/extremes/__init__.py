"""Extremes and events: exceedance probabilities and return levels of a forecast."""

from .._listing import listed as _listed
from .exceedance_and_return_levels import exceedance as exceedance, return_levels as return_levels

__dir__ = _listed(__name__)
