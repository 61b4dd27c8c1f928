"""Many short chains at once, for accelerators."""

from .sampler import ManyChain as ManyChain
