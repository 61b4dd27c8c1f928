"""Variational inference."""

from .svi import SVI as SVI
