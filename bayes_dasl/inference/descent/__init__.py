"""Engines that descend: point estimates, ensembles, dropout, and normals around modes."""

from .ensemble import DeepEnsemble as DeepEnsemble
from .joint import Joint as Joint
from .settings import Descent as Descent
