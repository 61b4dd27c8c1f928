"""The verdict on a fit and its forecasts."""

from .._listing import listed as _listed
from .diagnosis import Diagnosis as Diagnosis, Finding as Finding, diagnose as diagnose

__dir__ = _listed(__name__)
