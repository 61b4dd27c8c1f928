"""Studies: a model with baselines, data, split and engine, and the folder of its run."""

from .files import is_trusted as is_trusted, module_of as module_of, study_files as study_files
from .fits import Task as Task
from .mixing import science_of as science_of
from .scores import table_of as table_of
from .studies import Run as Run, Study as Study
from .times import (
    forecast_times as forecast_times,
    future_forcings as future_forcings,
    future_times as future_times,
    new_observations as new_observations,
    new_rows as new_rows,
)
