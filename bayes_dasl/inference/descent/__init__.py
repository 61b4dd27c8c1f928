"""Engines that descend: point estimates, ensembles, dropout, and normals around modes."""

from .descent_settings import Descent as Descent
from .ensemble import DeepEnsemble as DeepEnsemble
from .joint import Joint as Joint
