"""Baseline models: each is built from a model and its data, and fitted by the same engines."""

from collections.abc import Callable, Mapping

import xarray as xr

from .._listing import listed as _listed
from ..errors import ModelError
from ..model import Model
from .cnn_model import cnn as cnn
from .fixed_model import fixed as fixed
from .mlp_and_transformer import (
    gaussian_process as gaussian_process,
    mlp as mlp,
    transformer as transformer,
)
from .neural_ode_model import neural_ode as neural_ode
from .pinn_model import pinn as pinn

BASELINES: Mapping[str, Callable[[Model, xr.Dataset], Model]] = {
    "fixed": lambda model, data: fixed(model),
    "mlp": mlp,
    "transformer": transformer,
    "gaussian_process": gaussian_process,
    "neural_ode": neural_ode,
    "pinn": pinn,
    "cnn": cnn,
}
"""Baselines by name."""


def named(model: Model, data: xr.Dataset, *names: str) -> dict[str, Model]:
    """Build baselines by name, for the argument `competitors` of a `bd.Study`.

    Args:
        model: the scientific model, with or without a network.
        data: the training data. They should also hold rows for the times of the forecast, with
            forcings and without observations. A baseline without science learns the range of its
            inputs from all rows.
        names: some of "fixed", "mlp", "transformer", "gaussian_process", "neural_ode" and "pinn".
            For fields, "fixed" and "cnn" exist; for a population, "fixed", "mlp" and
            "gaussian_process".

    Returns:
        The baselines by name.

    Raises:
        ModelError: if a name is unknown, or a baseline does not suit the model.
        DataError: if a baseline cannot be built from the data.
    """
    if unknown := [name for name in names if name not in BASELINES]:
        raise ModelError(
            f"there is no baseline called {unknown[0]!r}: known are {', '.join(BASELINES)}"
        )
    return {name: BASELINES[name](model, data) for name in names}


__dir__ = _listed(__name__)
