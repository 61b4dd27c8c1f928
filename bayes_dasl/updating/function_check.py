"""Check of unknown functions: whether finer functions would increase the evidence."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Float

from .._jax.devices import keep_programs
from .._jax.keys import as_key
from .._jax.tree import dotted, parts_inside
from .._statistics.convergence import thinned
from .._statistics.variance_component import Gain, Lacking, Linear, Series
from ..errors import ModelError
from ..inference import pose
from ..inference.linear_residuals import Around
from ..model import Model
from ..prediction.identity import check_same_posterior
from ..prediction.posterior import draws_of, fitted_data
from ..random import realise
from ..unknown_functions.bases.families import AbstractFamily
from ..unknown_functions.lookup import function_names, is_unknown_function, unknown_functions
from ..verdict.residuals import share_beyond
from .enriched import Enriched, Waves, finer_families

# Number of draws. Predictions are linearised near the likeliest of these draws and their mean.
_DRAWS = 16
_REPLICATES, _FEWEST, _NUMBERS = 1000, 200, 20_000_000
# The false positive rate: the share of sound models in which a function is called too coarse.
_RARE = 0.01
_CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
_POINTS = 201


def check_functions(model: Model, post: xr.DataTree, *, key: int | Array = 0) -> xr.DataTree:
    r"""Test whether finer unknown functions would explain residuals of a fit, without a new fit.

    A model is called sound if its unknown functions are fine enough. The steps of the test are:

    1. Add finer features to the unknown functions, for the test only. A `bd.Basis` gets families of
       its kind that are two and four times as fine. A `bd.Network` gets random waves over its
       inputs, with lengths of one, a half and a quarter of the widths of the inputs.
    2. Linearise predictions in the coefficients of the features and in all parameters of the model.
       This is done about the best position near the likeliest of some draws. Priors of parameters
       are made ten times as wide, since their cost is irrelevant to the test.
    3. Compute the gain of each set of features: the increase of the log evidence, maximised over
       the variance of the coefficients. Compare it with gains for data that the model simulates.
    4. A function is too coarse if less than 1 % of sound models have such a gain for any function.
       The finer features are then kept, and the other functions are tested again.

    Serial correlation of the noise could be mistaken for a coarse function. If neighbouring
    residuals are correlated, noise with a first-order autoregression is an alternative to finer
    functions.

    `bd.diagnose` reports the result. A function that is fine enough for the data may still be too
    coarse for the truth.

    Args:
        model: the model of the fit.
        post: the result of `fit`; it is never changed.
        key: a whole number or a JAX random key, for simulated data.

    Returns:
        The posterior with a group `function_check`, over `function`:

        - `gain`, the increase of the log evidence by finer features, in nats, and
          `gain_if_independent`, the same without serial correlation;
        - `chance`, the share of sound models with at least this gain, and `coarse`, whether the
          function is too coarse;
        - `finer`, the best features in words, and the `output` to which they are added;
        - `input`, the inputs of the function. If there is one, `near` is its value at which the
          features change the function most.

        The attribute `settled` says whether a best position was found. If not, gains have no
        meaning. The attribute `correlation` is the serial correlation of the likeliest
        autoregression, or 0 if neighbouring residuals are not correlated.

    Raises:
        ModelError: if no function is unknown, all differ between groups, or predictions have no
            forward derivatives.
        MismatchError: if the posterior is of another model.

    Source: Crainiceanu & Ruppert (2004), Likelihood ratio tests in linear mixed models with one
    variance component.
    """
    check_same_posterior(model, post)
    keep_programs()
    # 1. Find the unknown functions, and take some posterior draws.
    problem = pose(model, fitted_data(post))
    places = _function_places(model)
    draws = draws_of(model, post)
    some = thinned(len(next(iter(draws.values()))), _DRAWS)
    positions = np.asarray(
        jax.jit(jax.vmap(problem.unconstrain))({p: jnp.asarray(v[some]) for p, v in draws.items()})
    )
    # 2. Linearise about the best position near the likeliest draw.
    try:
        around = Around(problem, lambda m, c: _enriched(m, places, c), places[-1].end, positions[0])
    except TypeError as error:
        if "forward-mode" not in str(error):
            raise
        raise ModelError(
            f"functions are checked by derivatives forwards, of which there are none: {error}"
        ) from error
    at, settled = around.best(
        around.likeliest(np.concatenate([positions.mean(axis=0)[None], positions]))
    )
    replicates = min(_REPLICATES, max(_FEWEST, _NUMBERS // max(problem.data, 1)))
    linear, along = around.linear(at, replicates, key=as_key(key))
    # 3. Compare gains with those of simulated data.
    test = _test(linear, around.series)
    found = _tested_functions(test, along, places)
    realised = realise(model, problem.constrain(jnp.asarray(at)))
    tree = post.copy()
    attributes = {"settled": int(settled), "correlation": test.correlation}
    tree["function_check"] = xr.DataTree(_function_group(realised, found).assign_attrs(attributes))
    return tree


class Trial(NamedTuple):
    """Features of one family, added to one output of a function.

    Args:
        family: the number of the family.
        output: the name of the output.
        own: the slice of all coefficients that belongs to these features.
    """

    family: int
    output: str
    own: slice


class Place(NamedTuple):
    """An unknown function in a layer, and the features added to it.

    Args:
        name: the name of the function.
        paths: the dotted paths of the function in the layer; a shared function has several.
        outputs: the names of the outputs of the function.
        families: the families of the features.
        start: the index of the first coefficient of this function.
    """

    name: str
    paths: tuple[str, ...]
    outputs: tuple[str, ...]
    families: tuple[AbstractFamily, ...]
    start: int

    @property
    def trials(self) -> list[Trial]:
        """One trial for each family and output, with consecutive coefficients."""
        found, start = [], self.start
        for i, family in enumerate(self.families):
            for output in self.outputs:
                found.append(Trial(i, output, slice(start, start + family.size)))
                start += family.size
        return found

    @property
    def end(self) -> int:
        """The index after the last coefficient of this function."""
        return self.trials[-1].own.stop

    def beside(self, function: Any, coefficients: Float[Array, " coefficient"]) -> Enriched:
        """Add the features to the realised function.

        Args:
            function: the realised function.
            coefficients: the coefficients of all functions.

        Returns:
            The function with its features.
        """
        of_family = [
            [coefficients[t.own] for t in self.trials if t.family == i]
            for i in range(len(self.families))
        ]
        return Enriched(function, finer_families(function), tuple(map(jnp.stack, of_family)))


class Judged(NamedTuple):
    """The result of the test of one function.

    Args:
        place: the function.
        trial: the features with the largest gain.
        gain: the gain by these features.
        independent: the largest gain without serial correlation.
        chance: the share of sound models with at least this gain.
        coarse: whether the function is too coarse.
    """

    place: Place
    trial: Trial
    gain: Gain
    independent: float
    chance: float
    coarse: bool


def _function_places(model: Model) -> list[Place]:
    """Return all unknown functions of a layer, with consecutive coefficients.

    Raises:
        ModelError: if no function can be checked.
    """
    found: list[Place] = []
    functions = zip(function_names(model.layer), unknown_functions(model.layer), strict=True)
    for name, (where, node) in functions:
        start = found[-1].end if found else 0
        found.append(Place(name, where, tuple(node.outputs), finer_families(node), start))
    if not found:
        raise ModelError(
            "no function of this model can be checked: its layer needs a bd.Basis or a bd.Network "
            "in which something "
            "is unknown, the same for all members of a population"
        )
    return found


def _enriched(
    realised: Model, places: list[Place], coefficients: Float[Array, " coefficient"]
) -> Model:
    """Return a realised model with the features added to its functions.

    Args:
        realised: the realised model.
        places: the functions.
        coefficients: the coefficients of all functions.
    """
    standing = {path: place for place in places for path in place.paths}

    def at(path, node):
        place = standing.get(dotted(path)) if is_unknown_function(node) else None
        return node if place is None else place.beside(node, coefficients)

    layer = jtu.tree_map_with_path(at, realised.layer, is_leaf=is_unknown_function)
    return eqx.tree_at(lambda m: m.layer, realised, layer)


class Test(NamedTuple):
    """The test of functions under noise with several serial correlations.

    Args:
        series: the order of the data.
        correlations: the serial correlations; 0 alone if residuals are not correlated.
        lacking: the test of added coefficients under each correlation.
    """

    series: Series
    correlations: tuple[float, ...]
    lacking: tuple[Lacking, ...]

    @property
    def log_evidence(self) -> Float[np.ndarray, "correlation data"]:
        """The log evidence of data and replicates, without added features."""
        pairs = zip(self.lacking, self.correlations, strict=True)
        return np.stack([lack.log_evidence + self.series.log_volume(rho) for lack, rho in pairs])

    @property
    def correlation(self) -> float:
        """The likeliest serial correlation."""
        return self.correlations[int(np.argmax(self.log_evidence[:, 0]))]

    def gain(self, along: Float[np.ndarray, "datum coefficient"]) -> Gain:
        r"""Return the gain of added coefficients, at the best serial correlations.

        $\max_\rho (\ell_\rho + g_\rho) - \max_\rho \ell_\rho$, for data and replicates

        Here ρ is the serial correlation, $\ell_\rho$ the log evidence without the coefficients, and
        $g_\rho$ their gain at this correlation.

        Args:
            along: the derivatives of the data by the coefficients.

        Returns:
            The gain.
        """
        pairs = zip(self.lacking, self._along(along), strict=True)
        every = [lacking.gain(own) for lacking, own in pairs]
        without = self.log_evidence
        added = without + np.stack(
            [np.concatenate([[gain.gain], gain.replicates]) for gain in every]
        )
        gains = added.max(axis=0) - without.max(axis=0)
        return every[int(np.argmax(added[:, 0]))]._replace(
            gain=float(gains[0]), replicates=gains[1:]
        )

    def with_them(self, along: Float[np.ndarray, "datum coefficient"], variance: float) -> "Test":
        """Return the test of the model with given coefficients added.

        Args:
            along: the derivatives of the data by the coefficients.
            variance: the prior variance of the coefficients.

        Returns:
            The new test.
        """
        each = zip(self.lacking, self._along(along), strict=True)
        return self._replace(
            lacking=tuple(lacking.with_them(own, variance) for lacking, own in each)
        )

    def _along(self, along: np.ndarray) -> list[np.ndarray]:
        """Return the derivatives of the innovations by the coefficients, for each correlation."""
        return [self.series.whitened(along, rho) for rho in self.correlations]


def _test(linear: Linear, series: Series) -> Test:
    """Build the test, with serial correlation if neighbouring residuals are correlated.

    If so, noise with a first-order autoregression competes with finer functions, and replicates
    have the likeliest correlation of the data.

    Args:
        linear: the linearised model.
        series: the order of the data.
    """
    # 1. Are neighbouring residuals more correlated than in replicates?
    white = Lacking(linear)
    alike = series.correlation(white.left)
    if share_beyond(alike[1:], float(alike[0])) >= _RARE:
        return Test(series, (0.0,), (white,))

    def with_replicates(noise: np.ndarray) -> Test:
        lacking = [_under(linear, series, rho, noise) for rho in _CORRELATIONS]
        return Test(series, _CORRELATIONS, tuple(lacking))

    # 2. Find the likeliest correlation for the data, then give replicates this correlation.
    likeliest = with_replicates(linear.noise[:0]).correlation
    return with_replicates(series.correlated(linear.noise, likeliest))


def _under(
    linear: Linear, series: Series, rho: float, noise: Float[np.ndarray, "replicate datum"]
) -> Lacking:
    """Return the test of added coefficients under noise with a serial correlation.

    Args:
        linear: the linearised model.
        series: the order of the data.
        rho: the serial correlation.
        noise: the noise of the replicates.
    """
    left = series.whitened(linear.left, rho)
    slopes = series.whitened(linear.slopes, rho)
    return Lacking(linear._replace(left=left, slopes=slopes, noise=series.whitened(noise.T, rho).T))


def _tested_functions(
    test: Test, along: Float[np.ndarray, "datum coefficient"], places: list[Place]
) -> Iterator[Judged]:
    """Yield the results of all functions, too coarse ones first.

    When a function is too coarse, its finer features are kept in the model for the tests of the
    remaining functions.

    Args:
        test: the test.
        along: the derivatives of the data by all coefficients.
        places: the functions.
    """
    left = list(places)
    while left:
        every = [_best(test, along, place) for place in left]
        best = min(every, key=lambda judged: judged.chance)
        # Bonferroni: any of the functions may gain by chance.
        if best.chance * len(places) >= _RARE:
            yield from every
            return
        yield best._replace(coarse=True)
        left.remove(best.place)
        test = test.with_them(along[:, best.trial.own], best.gain.variance)


def _best(test: Test, along: np.ndarray, place: Place) -> Judged:
    """Return the result for one function: its features with the largest gain.

    `chance` compares this gain with the largest gain over all features in each replicate.

    Args:
        test: the test.
        along: the derivatives of the data by all coefficients.
        place: the function.
    """
    gains = [test.gain(along[:, trial.own]) for trial in place.trials]
    best = int(np.argmax([gain.gain for gain in gains]))
    chance = share_beyond(np.max([gain.replicates for gain in gains], axis=0), gains[best].gain)
    independent = gains[best].gain
    if len(test.correlations) > 1:
        independent = max(test.lacking[0].gain(along[:, trial.own]).gain for trial in place.trials)
    return Judged(place, place.trials[best], gains[best], independent, chance, False)


def _function_group(realised: Model, every: Iterator[Judged]) -> xr.Dataset:
    """Return the group `function_check`, with one row for each function.

    Args:
        realised: the realised model.
        every: the results of all functions.
    """
    functions = dict(parts_inside(realised.layer, is_unknown_function))
    rows = []
    for judged in every:
        function = functions[judged.place.paths[0]]
        family = finer_families(function)[judged.trial.family]
        inputs = tuple(function.drawn_over)
        row = {
            "function": judged.place.name,
            "gain": judged.gain.gain,
            "gain_if_independent": judged.independent,
            "chance": judged.chance,
            "coarse": int(judged.coarse),
            "output": judged.trial.output,
            "input": ", ".join(inputs),
            "finer": _family_label(family, inputs),
            "near": np.nan,
        }
        if len(inputs) == 1:
            row["near"] = _largest_change(function, family, judged.gain.coefficients)
        rows.append(row)
    columns = pd.DataFrame(rows).set_index("function")
    found = {str(name): ("function", column.tolist()) for name, column in columns.items()}
    return xr.Dataset(found, {"function": columns.index.tolist()})


def _family_label(family: AbstractFamily, inputs: tuple[str, ...]) -> str:
    """Describe the features of a family in words."""
    if isinstance(family, Waves):
        along = (
            f"{length:.2g} of {name}" for name, length in zip(inputs, family.lengths, strict=True)
        )
        return f"a function that varies over {' and '.join(along)}"
    return family.said


def _largest_change(
    function: Any, family: AbstractFamily, coefficients: Float[np.ndarray, " coefficient"]
) -> float:
    """Return the input at which added features change a function of one input most.

    Args:
        function: the unknown function.
        family: the family of the features.
        coefficients: the coefficients of the features.
    """
    ((low, high),) = function.drawn_over.values()
    grid = np.linspace(low, high, _POINTS)
    return float(grid[np.argmax(np.abs(np.asarray(family(grid)) @ coefficients))])
