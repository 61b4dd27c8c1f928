"""Engines that descend: point estimates, ensembles, dropout, and normals around modes."""

from .dropout import MCDropout as MCDropout
from .ensemble import DeepEnsemble as DeepEnsemble
from .joint import Joint as Joint
from .laplace import Laplace as Laplace
from .settings import Descent as Descent
from .swag import SWAG as SWAG
