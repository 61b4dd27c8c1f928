"""Whether the unknown functions of a model are fine enough for its data: finer ones are tried, to
first order.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.tree_util as jtu
import numpy as np
import xarray as xr
from jaxtyping import Array, Float

from .._jax.devices import keep_programs
from .._jax.keys import as_key
from .._jax.tree import dotted
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
from ..unknown_functions.enriched import (
    Enriched,
    Waves,
    finer_families,
    function_names,
    functions_inside,
    is_unknown_function,
    outputs_of,
    unknown_functions,
)
from ..verdict.residuals import share_beyond

_DRAWS = 16  # beside their mean, of which the likeliest is where predictions are taken to be linear
_REPLICATES, _FEWEST, _NUMBERS = 1000, 200, 20_000_000
# How often a sound model is said to have a function that is too coarse, of all of its functions.
_RARE = 0.01
_CORRELATIONS = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 0.95)
_POINTS = 201


def check_functions(model: Model, post: xr.DataTree, *, key: int | Array = 0) -> xr.DataTree:
    r"""See whether finer unknown functions would take up what the residuals of a fit hold.

    Beside each `bd.Basis` stand for a moment families of its kind that are two and four times as
    fine, beside each `bd.Network` waves over its inputs, as long as these are wide, half and a
    quarter of that. What is predicted is linear in their coefficients, to first order around the
    best position near the likeliest of some draws; so it needs no fit to say by how much they would
    raise the log evidence, with the variance of theirs for which that is most, and how often they
    do so for data that the model draws itself. All that the model has may move for it, under priors
    ten times as wide: what these cost says nothing of how fine a function is. Where less than one
    of a hundred sound models gains as much, by any of its functions, one is too coarse, and the
    others are judged beside the finer one.

    Residuals that are serially correlated come first, since finer functions would take these up,
    too. Where neighbours are alike, noise that is a first-order autoregression competes with finer
    functions: one is then too coarse only if finer ones raise the log evidence beside such noise.

    `bd.diagnose` then says so. That a function is fine enough for the data does not say that it is
    for the truth: what data do not see, nothing finds.

    Args:
        model: the model of the fit.
        post: what `fit` returned; it is never changed.
        key: a whole number or a JAX random key, for the data that the model draws.

    Returns:
        The posterior with a group `function_check`, over `function`: by how much finer features
        raise the log evidence (`gain`, in nats; `gain_if_independent` where noise is not serially
        correlated), the share of sound models that gain as much (`chance`), whether the function is
        too coarse (`coarse`), which features did it (`finer`) for which `output`, and, of a
        function of one input, where they change it most (`near`, of the `input`). Its attribute
        `settled` says whether a best position was found: where there is none, as far from where the
        posterior is, a gain says nothing. Its attribute `correlation` is that of neighbours under
        the likeliest autoregression, 0 where none competes.

    Raises:
        ModelError: where no function is unknown, all differ between members, or predictions have no
            derivatives forwards.
        MismatchError: for a posterior of another model.

    Source: Crainiceanu & Ruppert (2004), Likelihood ratio tests in linear mixed models with one
    variance component.
    """
    check_same_posterior(model, post)
    keep_programs()
    problem, places = pose(model, fitted_data(post)), _function_places(model)
    draws = draws_of(model, post)
    some = thinned(len(next(iter(draws.values()))), _DRAWS)
    positions = np.asarray(
        jax.jit(jax.vmap(problem.unconstrain))({p: jnp.asarray(v[some]) for p, v in draws.items()})
    )
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
    test = _test(linear, around.series)
    found = _tested_functions(test, along, places)
    realised = realise(model, problem.constrain(jnp.asarray(at)))
    tree = post.copy()
    attributes = {"settled": int(settled), "correlation": test.correlation}
    tree["function_check"] = xr.DataTree(_function_group(realised, found).assign_attrs(attributes))
    return tree


class Trial(NamedTuple):
    """Features of a family beside one output of a function; `own` are their coefficients, of all
    that there are.
    """

    family: int
    output: str
    own: slice


class Place(NamedTuple):
    """Where an unknown function stands, and what is tried beside it.

    Args:
        name: what it is called.
        paths: its dotted paths in the layer, several of one that is shared.
        outputs: what it returns.
        families: those of the features.
        start: its first coefficient, of all that there are.
    """

    name: str
    paths: tuple[str, ...]
    outputs: tuple[str, ...]
    families: tuple[AbstractFamily, ...]
    start: int

    @property
    def trials(self) -> list[Trial]:
        found, start = [], self.start
        for i, family in enumerate(self.families):
            for output in self.outputs:
                found.append(Trial(i, output, slice(start, start + family.size)))
                start += family.size
        return found

    @property
    def end(self) -> int:
        """The first coefficient of the next one."""
        return self.trials[-1].own.stop

    def beside(self, function: Any, coefficients: Float[Array, " coefficient"]) -> Enriched:
        """The realised function with its features."""
        of_family = [
            [coefficients[t.own] for t in self.trials if t.family == i]
            for i in range(len(self.families))
        ]
        return Enriched(function, finer_families(function), tuple(map(jnp.stack, of_family)))


class Judged(NamedTuple):
    """The best trial of a function, what it gains, also beside independent noise, and how many
    sound models gain it.
    """

    place: Place
    trial: Trial
    gain: Gain
    independent: float
    chance: float
    coarse: bool


def _function_places(model: Model) -> list[Place]:
    found: list[Place] = []
    for name, (where, node) in zip(
        function_names(model.layer), unknown_functions(model.layer), strict=True
    ):
        found.append(
            Place(
                name, where, outputs_of(node), finer_families(node), found[-1].end if found else 0
            )
        )
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
    """A realised model with all features in it."""
    standing = {path: place for place in places for path in place.paths}

    def at(path, node):
        place = standing.get(dotted(path)) if is_unknown_function(node) else None
        return node if place is None else place.beside(node, coefficients)

    layer = jtu.tree_map_with_path(at, realised.layer, is_leaf=is_unknown_function)
    return eqx.tree_at(lambda m: m.layer, realised, layer)


class Test(NamedTuple):
    """The test of what functions lack, under noise of each of some serial correlations.

    Args:
        series: the order of the data.
        correlations: those that are tried, 0 alone where residuals are not serially correlated.
        lacking: the test under each of them.
    """

    series: Series
    correlations: tuple[float, ...]
    lacking: tuple[Lacking, ...]

    @property
    def log_evidence(self) -> Float[np.ndarray, "correlation data"]:
        """That of the data and of replicates, where functions are as they are."""
        volumes = [self.series.log_volume(rho) for rho in self.correlations]
        return np.stack(
            [lacking.log_evidence + v for lacking, v in zip(self.lacking, volumes, strict=True)]
        )

    @property
    def correlation(self) -> float:
        """The likeliest serial correlation."""
        return self.correlations[int(np.argmax(self.log_evidence[:, 0]))]

    def gain(self, along: Float[np.ndarray, "datum coefficient"]) -> Gain:
        """What coefficients would add, with the serial correlation at its best without them and
        with them.
        """
        every = [
            lacking.gain(along)
            for lacking, along in zip(self.lacking, self._along(along), strict=True)
        ]
        without = self.log_evidence
        added = without + np.stack(
            [np.concatenate([[gain.gain], gain.replicates]) for gain in every]
        )
        gains = added.max(axis=0) - without.max(axis=0)
        return every[int(np.argmax(added[:, 0]))]._replace(
            gain=float(gains[0]), replicates=gains[1:]
        )

    def with_them(self, along: Float[np.ndarray, "datum coefficient"], variance: float) -> "Test":
        """The test of the model that has such coefficients too."""
        each = zip(self.lacking, self._along(along), strict=True)
        return self._replace(
            lacking=tuple(lacking.with_them(own, variance) for lacking, own in each)
        )

    def _along(self, along: np.ndarray) -> list[np.ndarray]:
        return [self.series.whitened(along, rho) for rho in self.correlations]


def _test(linear: Linear, series: Series) -> Test:
    """The test of functions. Serial correlation comes first: finer functions would take it up, too.

    Where more neighbours are alike than those of replicates, noise that is a first-order
    autoregression competes with finer functions, and replicates are as correlated as the data.
    """
    white = Lacking(linear)
    alike = series.correlation(white.left)
    if share_beyond(alike[1:], float(alike[0])) >= _RARE:
        return Test(series, (0.0,), (white,))

    def with_replicates(noise: np.ndarray) -> Test:
        return Test(
            series,
            _CORRELATIONS,
            tuple(_under(linear, series, rho, noise) for rho in _CORRELATIONS),
        )

    likeliest = with_replicates(linear.noise[:0]).correlation
    return with_replicates(series.correlated(linear.noise, likeliest))


def _under(
    linear: Linear, series: Series, rho: float, noise: Float[np.ndarray, "replicate datum"]
) -> Lacking:
    """The test under noise of a serial correlation, with replicates of some noise."""
    left, slopes = series.whitened(linear.left, rho), series.whitened(linear.slopes, rho)
    return Lacking(linear._replace(left=left, slopes=slopes, noise=series.whitened(noise.T, rho).T))


def _tested_functions(
    test: Test, along: Float[np.ndarray, "datum coefficient"], places: list[Place]
) -> Iterator[Judged]:
    """The functions, those that are too coarse first, each beside finer ones of those before."""
    left = list(places)
    while left:
        every = [_best(test, along, place) for place in left]
        best = min(every, key=lambda judged: judged.chance)
        if best.chance * len(places) >= _RARE:
            yield from every
            return
        yield best._replace(coarse=True)
        left.remove(best.place)
        test = test.with_them(along[:, best.trial.own], best.gain.variance)


def _best(test: Test, along: np.ndarray, place: Place) -> Judged:
    gains = [test.gain(along[:, trial.own]) for trial in place.trials]
    best = int(np.argmax([gain.gain for gain in gains]))
    chance = share_beyond(np.max([gain.replicates for gain in gains], axis=0), gains[best].gain)
    independent = gains[best].gain
    if len(test.correlations) > 1:
        independent = max(test.lacking[0].gain(along[:, trial.own]).gain for trial in place.trials)
    return Judged(place, place.trials[best], gains[best], independent, chance, False)


def _function_group(realised: Model, every: Iterator[Judged]) -> xr.Dataset:
    functions, rows = dict(functions_inside(realised.layer)), {}
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
            "near": _largest_change(function, family, judged.gain.coefficients)
            if len(inputs) == 1
            else np.nan,
        }
        for name, value in row.items():
            rows.setdefault(name, []).append(value)
    return xr.Dataset(
        {n: ("function", v) for n, v in rows.items() if n != "function"},
        {"function": rows["function"]},
    )


def _family_label(family: AbstractFamily, inputs: tuple[str, ...]) -> str:
    if isinstance(family, Waves):
        along = (
            f"{length:.2g} of {name}" for name, length in zip(inputs, family.lengths, strict=True)
        )
        return f"a function that varies over {' and '.join(along)}"
    return family.said


def _largest_change(
    function: Any, family: AbstractFamily, coefficients: Float[np.ndarray, " coefficient"]
) -> float:
    """Where a function of one input would change most."""
    ((low, high),) = function.drawn_over.values()
    grid = np.linspace(low, high, _POINTS)
    return float(grid[np.argmax(np.abs(np.asarray(family(grid)) @ coefficients))])
