"""Studies: a model with baselines, data, split and engine, and the folder of its run."""

from .files import is_trusted as is_trusted, module_of as module_of, study_files as study_files
from .fits import Task as Task
from .listings import (
    studies_and_data as studies_and_data,
    verdicts_of_runs as verdicts_of_runs,
)
from .mixing import science_of as science_of
from .new_study import write_study as write_study
from .run_options import change_run as change_run, folder_name as folder_name
from .scores import table_of as table_of
from .studies import Run as Run, Study as Study
from .times import (
    forecast_times as forecast_times,
    future_forcings as future_forcings,
    future_times as future_times,
    new_observations as new_observations,
    new_rows as new_rows,
)
