"""Build the posterior that engines use from a model and data."""

import xarray as xr

from ..model import Model, check_data
from ..random import paths
from .problem import Problem
from .sites import sites_of


def pose(model: Model, data: xr.Dataset) -> Problem:
    """Check the data, and return the posterior as a function of one flat vector.

    Nothing is compiled.

    Args:
        model: the model.
        data: a dataset with the index, the observables (NaN if missing) and the forcings of the
            model.

    Raises:
        DataError: if the data are not valid for the model.
        ModelError: if the model does not match the data.
    """
    observed = check_data(model, data)
    inputs = model.inputs(data)
    inputs, observed, own_rows = model.reader.at_own_rows(inputs, observed)
    sites, dimension = sites_of(paths(model))
    return Problem(model, inputs, observed, sites, dimension, own_rows)
