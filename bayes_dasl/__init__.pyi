"""The names of the package and where each is defined; `__init__.py` loads them at first use."""

from . import (
    baselines as baselines,
    checking as checking,
    data as data,
    dosing as dosing,
    engines as engines,
    equations as equations,
    errors as errors,
    extremes as extremes,
    filtering as filtering,
    hybrid as hybrid,
    inference as inference,
    layers as layers,
    many as many,
    multiscale as multiscale,
    networks as networks,
    noise as noise,
    pde as pde,
    plots as plots,
    recalibration as recalibration,
    scores as scores,
    sensitivity as sensitivity,
    updating as updating,
    verdict as verdict,
    weighting as weighting,
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

__version__: str
