"""Reports: one HTML page with the verdict, forecast, scores and parameters of a fit.

The page is a single file that loads no other file and runs no script. It can be read on a phone and
printed. This package computes no statistics: it lays out the results of other modules.
"""

from .options import ReportOptions as ReportOptions
from .reporting import Report as Report, report as report
