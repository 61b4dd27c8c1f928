"""Modules that load at their first use."""

import importlib
from typing import Any

import jax


def lazily(name: str) -> Any:
    """Return an object that stands for a module and loads it when an attribute is first used.

    It is used for BlackJAX, whose import takes half a second and runs computations. With a normal
    import JAX would choose its devices before the user could.

    Args:
        name: the full name of the module.
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
