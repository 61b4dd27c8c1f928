"""Bayesian differentiable adaptive scientific layers.

A model is a pytree; put a distribution wherever you would put a number.

Importing the package switches JAX to double precision, unless `JAX_ENABLE_X64` is set, and changes nothing else of it:
devices and compilation cache are still yours to choose (`bd.configure`).
"""

import importlib as _importlib
import types as _types
import typing as _typing
from importlib.metadata import version as _version

from . import networks as networks, rivals as rivals
from ._jax import configure as configure
from .adaptive import (
    Basis as Basis,
    Coupling as Coupling,
    LayerCoupling as LayerCoupling,
    Link as Link,
    MultiFidelity as MultiFidelity,
    bases as bases,
)
from .before_fit import check as check, choose_solver as choose_solver, describe as describe
from .data import (
    fill_gaps as fill_gaps,
    from_table as from_table,
    split as split,
    standardise as standardise,
)
from .dosing import doses as doses
from .errors import BayesDaslError as BayesDaslError
from .hybrid import (
    Conserve as Conserve,
    Hierarchical as Hierarchical,
    Parallel as Parallel,
    Residual as Residual,
    Series as Series,
    Unscented as Unscented,
    VarianceHead as VarianceHead,
    corrected as corrected,
)
from .inference import (
    NUTS as NUTS,
    SMC as SMC,
    SVI as SVI,
    SWAG as SWAG,
    DeepEnsemble as DeepEnsemble,
    Descent as Descent,
    Joint as Joint,
    Laplace as Laplace,
    ManyChain as ManyChain,
    MCDropout as MCDropout,
    fit as fit,
    resume as resume,
)
from .judgement import (
    baseline_forecasts as baseline_forecasts,
    bayes_factors as bayes_factors,
    compare as compare,
    consistency as consistency,
    decompose as decompose,
    decompose_entropy as decompose_entropy,
    diagnose as diagnose,
    exceedance as exceedance,
    fisher_information as fisher_information,
    log_likelihood as log_likelihood,
    metrics as metrics,
    pit as pit,
    profile_likelihood as profile_likelihood,
    quantiles as quantiles,
    return_levels as return_levels,
    score as score,
    sensitivity as sensitivity,
    shrinkage as shrinkage,
)
from .layers import (
    DDE as DDE,
    ODE as ODE,
    PDE as PDE,
    SDE as SDE,
    Algebraic as Algebraic,
    BoundaryValue as BoundaryValue,
    Compartments as Compartments,
    Difference as Difference,
    Event as Event,
    Implicit as Implicit,
    Jump as Jump,
    Kalman as Kalman,
    MultipleShooting as MultipleShooting,
    ProcessNoise as ProcessNoise,
    SteadyState as SteadyState,
    find_root as find_root,
    integrate as integrate,
    integrate_between as integrate_between,
    pde as pde,
    phase as phase,
    segment_states as segment_states,
)
from .model import Model as Model, inputs as inputs
from .networks import Network as Network
from .noise import (
    AR1 as AR1,
    BetaBinomialNoise as BetaBinomialNoise,
    BinomialNoise as BinomialNoise,
    BoxCoxNoise as BoxCoxNoise,
    Censored as Censored,
    CombinedNoise as CombinedNoise,
    CorrelatedBoxCoxNoise as CorrelatedBoxCoxNoise,
    CorrelatedLogNoise as CorrelatedLogNoise,
    CorrelatedNoise as CorrelatedNoise,
    HurdleNoise as HurdleNoise,
    LogNormalNoise as LogNormalNoise,
    Matern32 as Matern32,
    NegativeBinomialNoise as NegativeBinomialNoise,
    NormalNoise as NormalNoise,
    OrnsteinUhlenbeck as OrnsteinUhlenbeck,
    PerDatum as PerDatum,
    PoissonNoise as PoissonNoise,
    RandomWalk as RandomWalk,
    StudentTNoise as StudentTNoise,
    VaryingScale as VaryingScale,
    ZeroInflatedNoise as ZeroInflatedNoise,
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
from .revision import (
    check_functions as check_functions,
    check_solver as check_solver,
    leave_future_out as leave_future_out,
    loo_members as loo_members,
    mixture as mixture,
    model_weights as model_weights,
    recalibrate as recalibrate,
    stack as stack,
    tightened as tightened,
    update as update,
)
from .study import (
    Study as Study,
    combinations as combinations,
    measure as measure,
    medians as medians,
    paired as paired,
    run_many as run_many,
    tidy as tidy,
)

if _typing.TYPE_CHECKING:
    from . import plots as plots

__version__ = _version("bayes_dasl")


_NAMESPACES = ("bases", "errors", "inference", "layers", "metrics", "networks", "noise", "pde", "rivals")
__all__ = [*_NAMESPACES, *(n for n, v in globals().items() if n[0] != "_" and not isinstance(v, _types.ModuleType))]  # pyright: ignore


def __getattr__(name: str) -> _typing.Any:
    """`bd.plots` is there without an import of its own, and loads Matplotlib when it is first asked for."""
    if name == "plots":
        return _importlib.import_module(".plots", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), "plots"})
