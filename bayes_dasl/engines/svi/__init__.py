"""Variational inference."""

from .variational import SVI as SVI
