"""Modules that load when they are first used."""

import importlib
from typing import Any

import jax


def lazily(name: str) -> Any:
    """The module of this name, which loads when something of it is first asked for.

    For BlackJAX, which takes half a second and computes while it loads: JAX would then have settled
    on its devices before a user could choose them.
    """
    return _Lazily(name)


class _Lazily:
    def __init__(self, name: str):
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # A first use may lie in a function that is being traced: what the module computes must not
        # become part of it.
        with jax.ensure_compile_time_eval():
            module = importlib.import_module(self._name)
        return getattr(module, attribute)
