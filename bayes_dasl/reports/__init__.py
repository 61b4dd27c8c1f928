"""Reports: verdict, forecast, scores, parameters and provenance of a fit on one page.

The page is one HTML file that loads nothing and runs no script. It can be read on a phone and on
paper. This package computes no statistics: it lays out the results of other modules.
"""

from .options import ReportOptions as ReportOptions
from .reporting import Report as Report, report as report
