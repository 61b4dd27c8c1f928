"""Doses of drugs: dose records of a table, their schedules, and compartment models."""

from .compartments import Compartments as Compartments
from .table import doses as doses
