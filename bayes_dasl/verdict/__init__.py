"""The verdict on a fit and its forecasts."""

from .diagnosis import Diagnosis as Diagnosis, Finding as Finding, diagnose as diagnose
