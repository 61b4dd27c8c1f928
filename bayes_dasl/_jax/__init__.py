"""Tools for JAX: devices, memory, compilation, random keys, traces and pytrees."""

from .blas import one_thread_a_factor as one_thread_a_factor
from .compiling import Program as Program, compiled as compiled, steady_share as steady_share
from .devices import ask_for_double_precision, configure as configure
from .fingerprints import fingerprint_of as fingerprint_of
from .keys import as_key as as_key, printable as printable
from .trace import calls_back as calls_back, traced as traced
from .tree import (
    FrozenDict as FrozenDict,
    child as child,
    dotted as dotted,
    key_name as key_name,
    nodes_along as nodes_along,
    short_names as short_names,
)

ask_for_double_precision()
