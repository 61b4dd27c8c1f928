"""Populations: parameters that differ between members (groups), and a layer for each member."""

from .each import Each as Each, buckets as buckets
from .population_and_varying import population as population, varying as varying
