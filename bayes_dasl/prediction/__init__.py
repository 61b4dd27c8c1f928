"""Prediction: draws to and from a DataTree, and what a model says of them at any times."""

from .evaluation import evaluate as evaluate
from .forecasts import forecast as forecast
from .save_and_load import load as load, save as save
from .simulation import simulate as simulate
