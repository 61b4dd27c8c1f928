"""From a model and data to the posterior that engines see."""

import xarray as xr

from ..model import Model, check_data
from ..random import paths
from .problem import Problem
from .sites import sites_of


def pose(model: Model, data: xr.Dataset) -> Problem:
    """Check the data and flatten the model's random leaves.

    Args:
        model: the model.
        data: a dataset with the index, the observables (NaN where missing) and the forcings of the
            model.

    Raises:
        DataError: before anything is compiled.
        ModelError: likewise.
    """
    observed, inputs = check_data(model, data), model.inputs(data)
    inputs, observed, own_rows = model.reader.at_own_rows(inputs, observed)
    sites, dimension = sites_of(paths(model))
    return Problem(model, inputs, observed, sites, dimension, own_rows)
