"""JAX itself: devices, memory, random keys, traces and trees."""

from .devices import ask_for_double_precision, configure as configure

ask_for_double_precision()
