"""Studies: a model, its rivals, data, split and engine in one bundle; what is done with it fills a run folder."""

from .bundle import Run as Run, Study as Study
from .comparison import rows_of as rows_of, summarised as summarised
from .files import is_trusted as is_trusted, module_of as module_of, study_files as study_files
from .many import ALONE as ALONE, combinations as combinations, run_many as run_many
from .measured import measure as measure, medians as medians, paired as paired, tidy as tidy
from .times import (
    forecast_times as forecast_times,
    future_forcings as future_forcings,
    future_times as future_times,
    new_observations as new_observations,
    new_rows as new_rows,
)
