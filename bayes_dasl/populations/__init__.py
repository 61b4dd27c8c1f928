"""Populations: numbers that differ between members, and one layer for each of them."""

from .each import Each as Each, buckets as buckets
from .population_and_varying import population as population, varying as varying
