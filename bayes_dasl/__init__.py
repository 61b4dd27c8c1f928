"""Bayesian differentiable adaptive scientific layers.

A model is a JAX pytree in which a distribution may stand in place of any number; such numbers are
inferred.

The functions and classes of this namespace are the core. Each further subject has a module, such as
`bd.filtering`, which is loaded when it is first used. Importing the package switches JAX to double
precision, unless `JAX_ENABLE_X64` is set. `bd.configure` sets the compilation cache and the number
of cores.
"""

import importlib as _importlib
import types as _types
import typing as _typing
from importlib.metadata import version as _version

from . import (
    errors as errors,
    inference as inference,
    layers as layers,
    networks as networks,
    noise as noise,
)
from ._jax import configure as configure
from .checking import check as check, describe as describe
from .data import (
    example_data as example_data,
    from_table as from_table,
    split as split,
    standardise as standardise,
)
from .errors import BayesDaslError as BayesDaslError
from .fitting import fit as fit, resume as resume
from .hybrid import (
    Hierarchical as Hierarchical,
    Parallel as Parallel,
    Residual as Residual,
    Series as Series,
    corrected as corrected,
)
from .inference import (
    NUTS as NUTS,
    DeepEnsemble as DeepEnsemble,
    Descent as Descent,
    Joint as Joint,
)
from .layers import (
    ODE as ODE,
    Algebraic as Algebraic,
    Difference as Difference,
    Event as Event,
    Implicit as Implicit,
    Jump as Jump,
    SteadyState as SteadyState,
)
from .model import Model as Model, inputs as inputs
from .networks import Network as Network
from .noise import (
    CombinedNoise as CombinedNoise,
    LogNormalNoise as LogNormalNoise,
    NegativeBinomialNoise as NegativeBinomialNoise,
    NormalNoise as NormalNoise,
    PoissonNoise as PoissonNoise,
    StudentTNoise as StudentTNoise,
)
from .populations import Each as Each, population as population, varying as varying
from .prediction import (
    evaluate as evaluate,
    forecast as forecast,
    load as load,
    save as save,
    simulate as simulate,
)
from .priors import between as between
from .random import (
    Module as Module,
    Scalar as Scalar,
    dependent as dependent,
    field as field,
    shared as shared,
)
from .reports import ReportOptions as ReportOptions, report as report
from .scores import decompose as decompose, quantiles as quantiles, score as score
from .study import Study as Study
from .unknown_functions import Basis as Basis, bases as bases
from .updating import update as update
from .verdict import diagnose as diagnose
from .weighting import compare as compare, mixture as mixture

if _typing.TYPE_CHECKING:
    from . import (
        baselines as baselines,
        checking as checking,
        data as data,
        dosing as dosing,
        engines as engines,
        equations as equations,
        extremes as extremes,
        filtering as filtering,
        hybrid as hybrid,
        many as many,
        multiscale as multiscale,
        pde as pde,
        plots as plots,
        recalibration as recalibration,
        scores as scores,
        sensitivity as sensitivity,
        updating as updating,
        verdict as verdict,
        weighting as weighting,
    )

__version__ = _version("bayes_dasl")

_LOADED = ("bases", "errors", "inference", "layers", "networks", "noise")
_LAZY = (
    *(
        "baselines",
        "checking",
        "data",
        "dosing",
        "engines",
        "equations",
        "extremes",
        "filtering",
        "hybrid",
        "many",
    ),
    *(
        "multiscale",
        "pde",
        "plots",
        "recalibration",
        "scores",
        "sensitivity",
        "updating",
        "verdict",
        "weighting",
    ),
)
_FLAT = [n for n, v in globals().items() if n[0] != "_" and not isinstance(v, _types.ModuleType)]
__all__ = [*_LOADED, *(n for n in _LAZY if n != "plots"), *_FLAT]  # pyright: ignore


def __getattr__(name: str) -> _typing.Any:
    """Import a module of the package when it is first used, such as `bd.plots`.

    Raises:
        AttributeError: if there is no such module.
    """
    if name in _LAZY:
        return _importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*__all__, *_LAZY})
