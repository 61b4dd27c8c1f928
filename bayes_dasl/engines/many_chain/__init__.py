"""Many short chains at once, for accelerators."""

from .many_chain import ManyChain as ManyChain
