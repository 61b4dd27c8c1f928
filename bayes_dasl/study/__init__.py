"""Studies: a model, its rivals, data, split and engine in one bundle; what is done with it fills a run folder."""

from .bundle import Run as Run, Study as Study
from .many import combinations as combinations, run_many as run_many
from .times import forecast_times as forecast_times, future_forcings as future_forcings, future_times as future_times
