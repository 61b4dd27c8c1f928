"""Scientific layers: `layer(inputs)` gives a `Prediction`; a layer knows no probability."""

from .._listing import listed as _listed
from ._functions import solver_settings as solver_settings
from ._linear import (
    AbstractLinear as AbstractLinear,
    is_linear as is_linear,
    linear_parts as linear_parts,
)
from .algebraic import Algebraic as Algebraic
from .difference import Difference as Difference
from .event import Event as Event
from .implicit import Implicit as Implicit
from .jump import Jump as Jump
from .layer import (
    AbstractFilter as AbstractFilter,
    AbstractLayer as AbstractLayer,
    AbstractTrajectory as AbstractTrajectory,
    Prediction as Prediction,
    prediction as prediction,
    with_adjoint as with_adjoint,
)
from .ode import ODE as ODE
from .phase_of_year import phase as phase
from .process_noise import ProcessNoise as ProcessNoise
from .root import find_root as find_root
from .steady_state import SteadyState as SteadyState

__dir__ = _listed(__name__)
