"""Scientific layers: `layer(inputs)` gives a `Prediction`; a layer knows no probability."""

from ._prediction import AbstractFilter as AbstractFilter
from ._prediction import AbstractLayer as AbstractLayer
from ._prediction import Prediction as Prediction
from .ode import ODE as ODE
