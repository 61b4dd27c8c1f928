"""Doses of drugs: dose records from a table, their schedules, and compartment models."""

from .compartments import Compartments as Compartments
from .doses_of_a_table import doses as doses
