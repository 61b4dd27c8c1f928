"""Tempered sequential Monte Carlo."""

from .sampler import SMC as SMC
