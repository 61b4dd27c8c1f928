"""Modules that load at their first use."""

import importlib
from typing import Any

import jax


def lazily(name: str) -> Any:
    """Return a stand-in for a module, which loads the module at the first use of an attribute.

    It serves BlackJAX, which takes half a second to load and computes meanwhile. JAX would then
    have chosen its devices before the user could.
    """
    return _Lazily(name)


class _Lazily:
    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # The first use may be in a function under tracing, whose program must not contain the
        # module's own computations.
        with jax.ensure_compile_time_eval():
            module = importlib.import_module(self._name)
        return getattr(module, attribute)
