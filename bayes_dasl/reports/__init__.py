"""A study on one page: verdict, forecast, uncertainty, parameters, calibration, scores, origin.

The page is one HTML file that loads nothing, runs no script, and reads on a phone and on paper.
This package holds no statistics: it calls the modules that do and lays out what they say.
"""

from .options import ReportOptions as ReportOptions
from .reporting import Report as Report, report as report
