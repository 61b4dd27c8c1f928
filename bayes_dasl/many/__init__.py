"""Many fits: tasks distributed over workers, and tables of their results."""

from .._listing import listed as _listed
from .comparison import rows_of as rows_of, summarised as summarised
from .many import ALONE as ALONE, combinations as combinations, run_many as run_many
from .measure_and_tidy import measure as measure, medians as medians, paired as paired, tidy as tidy

__dir__ = _listed(__name__)
