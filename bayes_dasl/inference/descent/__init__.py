"""Engines by gradient descent: point estimates and deep ensembles."""

from .descent_settings import Descent as Descent
from .ensemble import DeepEnsemble as DeepEnsemble
from .joint import Joint as Joint
