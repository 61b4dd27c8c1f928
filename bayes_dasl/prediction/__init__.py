"""Prediction: forecasts and derived quantities of a model, and draws stored in a DataTree."""

from .conditional import noise_group as noise_group
from .datatree import (
    draws_dataset as draws_dataset,
    names as names,
    series_dataset as series_dataset,
    shortest_lengths as shortest_lengths,
)
from .evaluation import evaluate as evaluate
from .exchange import renewal as renewal
from .few_members import repeated as repeated, spread_factors as spread_factors
from .forecasts import forecast as forecast
from .identity import check_same_posterior as check_same_posterior
from .posterior import (
    check_belongs as check_belongs,
    draws_of as draws_of,
    fitted_observables as fitted_observables,
    signature as signature,
    with_what_is_censored as with_what_is_censored,
)
from .predictive import Pushed as Pushed, Pusher as Pusher, Watched as Watched, push as push
from .save_and_load import load as load, save as save
from .simulation import simulate as simulate
from .vector_fields import rates_along_paths as rates_along_paths, watched as watched
