"""Bayesian differentiable adaptive scientific layers.

A model is a pytree; put a distribution wherever you would put a number.
"""

from ._devices import configure as _configure

_configure()

from ._errors import BayesDaslError as BayesDaslError  # noqa: E402
from ._types import Scalar as Scalar  # noqa: E402
from .adaptive import RBF as RBF  # noqa: E402
from .adaptive import Basis as Basis  # noqa: E402
from .adaptive import BSpline as BSpline  # noqa: E402
from .adaptive import Coupling as Coupling  # noqa: E402
from .adaptive import Fourier as Fourier  # noqa: E402
from .adaptive import HilbertGP as HilbertGP  # noqa: E402
from .adaptive import Horseshoe as Horseshoe  # noqa: E402
from .adaptive import LayerCoupling as LayerCoupling  # noqa: E402
from .adaptive import Link as Link  # noqa: E402
from .adaptive import MultiFidelity as MultiFidelity  # noqa: E402
from .adaptive import NormalShrinkage as NormalShrinkage  # noqa: E402
from .adaptive import Polynomial as Polynomial  # noqa: E402
from .adaptive import Product as Product  # noqa: E402
from .adaptive import RandomWalk as RandomWalk  # noqa: E402
from .check import check as check  # noqa: E402
from .choose_solver import choose_solver as choose_solver  # noqa: E402
from .data import inputs as inputs  # noqa: E402
from .data import split as split  # noqa: E402
from .data import standardise as standardise  # noqa: E402
from .decompose import decompose as decompose  # noqa: E402
from .describe import describe as describe  # noqa: E402
from .diagnostics import diagnose as diagnose  # noqa: E402
from .forecast import forecast as forecast  # noqa: E402
from .hybrid import Conserve as Conserve  # noqa: E402
from .hybrid import Hierarchical as Hierarchical  # noqa: E402
from .hybrid import Parallel as Parallel  # noqa: E402
from .hybrid import Residual as Residual  # noqa: E402
from .hybrid import Series as Series  # noqa: E402
from .inference import NUTS as NUTS  # noqa: E402
from .inference import SMC as SMC  # noqa: E402
from .inference import SVI as SVI  # noqa: E402
from .inference import SWAG as SWAG  # noqa: E402
from .inference import DeepEnsemble as DeepEnsemble  # noqa: E402
from .inference import Joint as Joint  # noqa: E402
from .inference import Laplace as Laplace  # noqa: E402
from .inference import ManyChain as ManyChain  # noqa: E402
from .inference import MCDropout as MCDropout  # noqa: E402
from .inference import fit as fit  # noqa: E402
from .inference import resume as resume  # noqa: E402
from .layers import ODE as ODE  # noqa: E402
from .layers import PDE as PDE  # noqa: E402
from .layers import SDE as SDE  # noqa: E402
from .layers import Algebraic as Algebraic  # noqa: E402
from .layers import BoundaryValue as BoundaryValue  # noqa: E402
from .layers import Implicit as Implicit  # noqa: E402
from .layers import Jump as Jump  # noqa: E402
from .layers import Kalman as Kalman  # noqa: E402
from .layers import MultipleShooting as MultipleShooting  # noqa: E402
from .layers import SteadyState as SteadyState  # noqa: E402
from .layers import integrate as integrate  # noqa: E402
from .layers import integrate_between as integrate_between  # noqa: E402
from .layers import pde as pde  # noqa: E402
from .layers import segment_states as segment_states  # noqa: E402
from .layers.pde import Chebyshev as Chebyshev  # noqa: E402
from .layers.pde import Dirichlet as Dirichlet  # noqa: E402
from .layers.pde import FiniteVolume as FiniteVolume  # noqa: E402
from .layers.pde import Flux as Flux  # noqa: E402
from .layers.pde import Grid as Grid  # noqa: E402
from .layers.pde import Neumann as Neumann  # noqa: E402
from .layers.pde import Periodic as Periodic  # noqa: E402
from .layers.pde import Robin as Robin  # noqa: E402
from .layers.pde import Smagorinsky as Smagorinsky  # noqa: E402
from .layers.pde import Spectral as Spectral  # noqa: E402
from .layers.pde import Vorticity as Vorticity  # noqa: E402
from .model import Model as Model  # noqa: E402
from .networks import Network as Network  # noqa: E402
from .networks import fan_in as fan_in  # noqa: E402
from .networks import sparse as sparse  # noqa: E402
from .noise import LogNormalNoise as LogNormalNoise  # noqa: E402
from .noise import NegativeBinomialNoise as NegativeBinomialNoise  # noqa: E402
from .noise import NormalNoise as NormalNoise  # noqa: E402
from .noise import PoissonNoise as PoissonNoise  # noqa: E402
from .noise import StudentTNoise as StudentTNoise  # noqa: E402
from .noise import VaryingScale as VaryingScale  # noqa: E402
from .posterior import load as load  # noqa: E402
from .posterior import save as save  # noqa: E402
from .random import Module as Module  # noqa: E402
from .random import between as between  # noqa: E402
from .random import field as field  # noqa: E402
from .report import report as report  # noqa: E402
from .scores import consistency as consistency  # noqa: E402
from .scores import pit as pit  # noqa: E402
from .scores import score as score  # noqa: E402
from .solver_check import check_solver as check_solver  # noqa: E402
from .solver_check import tightened as tightened  # noqa: E402
from .study import Study as Study  # noqa: E402
from .update import update as update  # noqa: E402
