"""Baselines of a hybrid: each is a `Model` for the same engines, made of a model and its data."""

from collections.abc import Callable, Mapping

import xarray as xr

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
    """Baselines of a model by their names, for the argument `rivals` of a `bd.Study`.

    Args:
        model: the science; of a hybrid, `fixed` is the one whose science does not learn.
        data: the training data, with the index and the forcings of the times that are forecast too,
            if baselines that know no science are to know their range.
        names: some of "fixed", "mlp", "transformer", "gaussian_process", "neural_ode" and "pinn";
            of fields "fixed" and "cnn", of a population "fixed", "mlp" and "gaussian_process".

    Returns:
        The baselines by name.

    Raises:
        ModelError: for another name, and as each of them.
    """
    if unknown := [name for name in names if name not in BASELINES]:
        raise ModelError(
            f"there is no baseline called {unknown[0]!r}: known are {', '.join(BASELINES)}"
        )
    return {name: BASELINES[name](model, data) for name in names}
