"""Data and what drives a model: times, observations, forcings, places."""

from .datasets import Inputs as Inputs, inputs as inputs, split as split, standardise as standardise
