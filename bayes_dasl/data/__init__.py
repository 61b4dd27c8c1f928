"""Data and what drives a model: times, observations, forcings, places."""

from .._listing import listed as _listed
from .datasets import inputs as inputs, split as split, standardise as standardise
from .example_sets import example_data as example_data
from .gaps import fill_gaps as fill_gaps
from .layer_inputs import Inputs as Inputs
from .tables import from_table as from_table

__dir__ = _listed(__name__)
