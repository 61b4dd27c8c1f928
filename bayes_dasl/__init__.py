"""Bayesian differentiable adaptive scientific layers.

A model is a JAX pytree in which a distribution may stand in place of any number; such numbers are
inferred.

The functions and classes of this namespace are the core. Each further subject has a module, such as
`bd.filtering`. A name is loaded when it is first used. Importing the package switches JAX to double
precision, unless `JAX_ENABLE_X64` is set. `bd.configure` sets the compilation cache and the number
of cores.
"""

import os as _os
import sys as _sys
from importlib.metadata import version as _version

import lazy_loader as _lazy_loader

if "jax" in _sys.modules:
    from . import _jax as _jax  # switches it to double precision
else:
    # The command line starts without JAX.
    _os.environ.setdefault("JAX_ENABLE_X64", "1")

__version__ = _version("bayes_dasl")
# The names are those of `__init__.pyi`.
__getattr__, __dir__, __all__ = _lazy_loader.attach_stub(__name__, __file__)
