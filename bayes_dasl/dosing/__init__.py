"""Doses of drugs: dose records from a table, their schedules, and compartment models."""

from .._listing import listed as _listed
from .compartments import Compartments as Compartments
from .doses_of_a_table import doses as doses

__dir__ = _listed(__name__)
