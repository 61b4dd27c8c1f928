"""JAX itself: devices, memory, random keys, traces and trees."""

from .devices import configure

configure()
