"""Tempered sequential Monte Carlo."""

from .smc import SMC as SMC
