"""Convergence of chains: R-hat, effective sample sizes, stuck chains, and energy."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import xarray as xr

from .._findings import Finding, beside, grade, nested_finding
from .._statistics.convergence import (
    allowance,
    effective_sizes,
    finite_draws,
    moving_quantities,
    nested_rhat,
    rhat,
    thinned,
)
from ..prediction.posterior import of_particles
from ..scores.draws_at_data import by_chain
from .element_names import element_names

# The most points of trajectories, and of vector fields, whose convergence is tested.
MOST_COLUMNS = 200
_PASSABLE_RHAT = 1.05
# The relative error of ones on the diagonal of a matrix of correlations.
_ROUNDING = 1e-12
_SUBJECTS = {"conditional_mean": "trajectories", "vector_field": "vector field"}
_AHEAD = "vector field along the forecast"
# R-hat needs at least four draws in each half of a chain.
FEWEST_DRAWS = 8


class Words(NamedTuple):
    """Phrases of findings that suit either chains, or runs of particles without start and warm-up.

    Args:
        one: the name of a chain or run.
        more: the remedy against a high R-hat of parameters.
        apart: the remedy if chains or runs stay apart.
        longer: the remedy against few effective draws, with the number `{needed}`.
        slow: another remedy against few effective draws.
        again: the remedy if a chain or run is stuck.
    """

    one: str
    more: str
    apart: str
    longer: str
    slow: str
    again: str

    @staticmethod
    def of(post: xr.DataTree) -> Words:
        """Return the phrases that suit the draws of a posterior.

        Returns:
            Phrases on chains, or on runs of particles.
        """
        return _OF_PARTICLES if of_particles(post) else _OF_CHAINS


_OF_CHAINS = Words(
    one="chain",
    more="run longer",
    apart="more chains",
    longer="draw about {needed} in each chain",
    slow="find what makes the chains slow",
    again="run again with more starts or another key",
)
_OF_PARTICLES = Words(
    one="run",
    more="take more particles",
    apart="more moves (most_moves)",
    longer="take about {needed} particles",
    slow="allow more moves (most_moves)",
    again="take more particles or another key, since each run has to find every mode by itself",
)


class Quantities(NamedTuple):
    """Scalar quantities whose convergence is tested.

    Args:
        subject: the name of the set, for findings.
        names: the name of each quantity.
        values: the finite draws, `(chain, draw, quantity)`.
        left_out: the number of draws that were not finite.
    """

    subject: str
    names: list[str]
    values: np.ndarray
    left_out: int

    @property
    def moving(self) -> np.ndarray:
        """Mask of the quantities that are not constant."""
        return moving_quantities(self.values)


def quantities(post: xr.DataTree, fc: xr.DataTree | None) -> tuple[Quantities, ...]:
    """Collect the quantities that should converge.

    Args:
        post: the posterior.
        fc: a forecast from it, if there is one.

    Returns:
        Science parameters, trajectories, the vector field, and the vector field along the forecast
        if there is one. A set may be empty.
    """
    science = _of_group(post, "posterior", "science")
    # Trajectories do not move if only the noise is unknown.
    trajectories = _none("trajectories")
    if _layer_is_inferred(post):
        trajectories = _of_group(post, "conditional_mean")
    # The vector field along the forecast.
    ahead = [] if fc is None else [_of_group(fc, "vector_field")._replace(subject=_AHEAD)]
    return science, trajectories, _of_group(post, "vector_field"), *ahead


def _layer_is_inferred(post: xr.DataTree) -> bool:
    """Return whether anything beside the noise is unknown."""
    found = [
        variable for group in ("posterior", "latent") for _, variable in variables(post, group)
    ]
    of_noise = "noise.", "cross_correlation."
    return any(not str(variable.attrs.get("path", "")).startswith(of_noise) for variable in found)


def _none(subject: str) -> Quantities:
    """Return an empty set of quantities."""
    return Quantities(subject, [], np.empty((0, 0, 0)), 0)


def agreed(columns: Quantities) -> bool:
    """Return whether all chains sample the same distribution, by R-hat.

    The distribution may still be wrong.

    Returns:
        Whether all R-hat are below 1.05; False with too few draws, True for an empty set.
    """
    if not columns.names:
        return True
    if columns.values.shape[1] < FEWEST_DRAWS:
        return False
    return bool((rhat(columns.values[..., columns.moving]) < _PASSABLE_RHAT).all())


def _of_group(post: xr.DataTree, group: str, kind: str = "") -> Quantities:
    """Collect the quantities of a group of the posterior or the forecast.

    Args:
        post: the posterior or forecast.
        group: the group.
        kind: the kind of leaves to take from the group `posterior`, such as "science"; "" for all
            variables of another group.
    """
    subject = "science parameters" if kind else _SUBJECTS[group]
    names, blocks = [], []
    for name, variable in variables(post, group):
        if not kind or variable.attrs.get("group", "science") == kind:
            block = by_chain(variable)
            may_move = _may_move(block)
            elements = element_names(name, variable.transpose("chain", "draw", ...))
            names += itertools.compress(elements, may_move)
            blocks.append(block[..., may_move])
    if not blocks:
        return _none(subject)
    values = np.concatenate(blocks, axis=2).astype(float)
    if not kind and len(names) > MOST_COLUMNS:
        chosen = thinned(len(names), MOST_COLUMNS)
        names, values = [names[i] for i in chosen], values[..., chosen]
    return Quantities(subject, names, *finite_draws(values))


def _may_move(block: np.ndarray) -> np.ndarray:
    """Flag the elements of a parameter that may differ between draws; all if all are constant.

    A sampler moves all elements at once. Elements that are constant while others differ are fixed
    by the support, such as the diagonal of a correlation matrix.

    Args:
        block: draws of the parameter, `(chain, draw, element)`.
    """
    # Infinite values give NaN.
    with np.errstate(invalid="ignore"):
        size = np.abs(block).max(axis=(0, 1))
        alike = np.ptp(block, axis=(0, 1)) <= _ROUNDING * size
    return ~alike if not alike.all() else np.ones_like(alike)


def variables(post: xr.DataTree, group: str) -> Iterator[tuple[str, xr.DataArray]]:
    """Yield names and variables of a group.

    Yields:
        Pairs; none if the group does not exist.
    """
    if group in post.children:
        for name, variable in post[group].to_dataset().data_vars.items():
            yield str(name), variable


def mixing_findings(
    judged: Iterable[Quantities], superchains: int, words: Words
) -> Iterator[Finding]:
    """Yield findings on R-hat and effective sample sizes of all quantities.

    Args:
        judged: the sets of quantities.
        superchains: the number of groups of chains with a common start, for nested R-hat; 0
            without.
        words: phrases for chains or runs of particles.

    Yields:
        Findings, set by set.
    """
    for columns in judged:
        yield from _convergence_findings(columns, superchains, words)


def _convergence_findings(columns: Quantities, superchains: int, words: Words) -> Iterator[Finding]:
    """Yield findings on R-hat and effective sample size of a set of quantities.

    R-hat of many short chains is always above one, so nested R-hat replaces it if there are
    superchains. Nested R-hat of the parameters is not reported here, since the engine reports it.
    An empty set has no findings.

    Args:
        columns: the quantities.
        superchains: the number of groups of chains with a common start; 0 without.
        words: phrases for chains or runs of particles.
    """
    subject = columns.subject
    values = columns.values
    moving = columns.moving
    if not columns.names:
        return
    # `finite_findings` reports trajectories by observable.
    if columns.left_out and subject != "trajectories":
        yield Finding(
            "bad",
            subject,
            f"{columns.left_out} draws are not finite, and left out",
            "look at the priors: a number that overflows points to one that is far too wide",
        )
    if values.shape[1] < FEWEST_DRAWS:
        remedy = f"draw at least {FEWEST_DRAWS}, better 1000, in each {words.one}"
        if columns.left_out > values.shape[0] * values.shape[1]:
            without_mean = (
                ": noise such as Cauchy's has no mean at all" if subject == "trajectories" else ""
            )
            remedy = f"see why the others are not finite{without_mean}"
        yield Finding(
            "bad",
            f"mixing of {subject}",
            f"{values.shape[1]} usable draws in each {words.one} are too few to judge convergence",
            remedy,
        )
        return
    fixed = list(itertools.compress(columns.names, ~moving))
    # A known initial value is a trajectory point that rightly never moves.
    if fixed and (subject == "science parameters" or not moving.any()):
        yield Finding(
            "bad",
            f"mixing of {subject}",
            f"{_first_three(fixed)} never moved: every draw is the same",
            "start again with another key; if it stays, check the prior and the gradient",
        )
    if moving.any():
        names = list(itertools.compress(columns.names, moving))
        found = rhat(values[..., moving])
        allowed = allowance(len(names), max(2 * len(values), 4))
        if not superchains:
            yield _rhat_finding(subject, names, found, allowed, words)
        elif subject != "science parameters":
            nested = nested_rhat(values[..., moving], superchains)
            yield nested_finding(nested, f" of {subject}", allowance(len(names), superchains))
        apart = bool(found.max() > _PASSABLE_RHAT)
        yield _ess_finding(subject, names, values[..., moving], allowed, words, apart=apart)


def _rhat_finding(
    subject: str, names: list[str], found: np.ndarray, allowed: float, words: Words
) -> Finding:
    """Return the finding on R-hat of a set of quantities.

    Args:
        subject: the name of the set.
        names: the name of each quantity.
        found: R-hat of each quantity.
        allowed: the factor from `allowance`, for the maximum of many quantities.
        words: phrases for chains or runs of particles.
    """
    worst, most = int(found.argmax()), 1 + 0.01 * allowed
    level = grade(-found[worst], good=-most, warning=-_PASSABLE_RHAT)
    of = f" for {len(names)} of them" if allowed > 1 else ""
    value, bound = beside(found[worst], most)
    message = f"highest {value} ({names[worst]}), good below {bound}{of}"
    remedies = {
        "science parameters": f"{words.more}, or give the parameters that move together a stronger "
        "prior",
        "trajectories": f"{words.more}; if {words.one}s stay apart for good, {words.apart} and a "
        "tighter prior",
        "vector field": f"draw more; if {words.one}s stay apart, a smaller network or a smaller "
        "scale of its prior",
    }
    remedies[_AHEAD] = remedies["vector field"]
    return Finding(level, f"R-hat of {subject}", message, remedies[subject])


def _ess_finding(
    subject: str, names: list[str], values: np.ndarray, allowed: float, words: Words, *, apart: bool
) -> Finding:
    """Return the finding on effective sample sizes of a set of quantities.

    Args:
        subject: the name of the set.
        names: the name of each quantity.
        values: their draws, `(chain, draw, quantity)`.
        allowed: the factor from `allowance`, for the minimum of many quantities.
        words: phrases for chains or runs of particles.
        apart: whether chains disagree by R-hat.
    """
    chains, draws = values.shape[:2]
    bulk, tail = effective_sizes(values)
    low = min(bulk.min(), tail.min())
    wanted = 100.0 * min(chains, 4) / allowed
    level = grade(low, good=wanted, warning=wanted / 2)
    message = (
        f"lowest bulk {bulk.min():.0f} ({names[int(bulk.argmin())]}) and tail {tail.min():.0f} "
        f"({names[int(tail.argmin())]}) of {chains * draws} draws, good from {wanted:.0f}"
    )
    # More draws do not help chains that disagree. Otherwise, estimate how many draws suffice.
    needed = int(np.ceil(draws * wanted / max(low, 1.0) / 100)) * 100
    longer = f"{words.longer.format(needed=needed)}, or {words.slow}"
    remedy = f"see why the {words.one}s disagree first (R-hat)" if apart else longer
    return Finding(level, f"effective sample size of {subject}", message, remedy)


def chain_findings(post: xr.DataTree, groups: Iterable[Quantities]) -> Iterator[Finding]:
    """Yield a finding that names chains which are stuck apart from the others.

    Args:
        post: the posterior.
        groups: the sets of quantities in which chains are compared, beside the log density.

    Yields:
        At most one finding.
    """
    words = Words.of(post)
    blocks = [columns.values for columns in groups if columns.names]
    for name, variable in variables(post, "sample_stats"):
        if name == "lp":
            blocks.append(finite_draws(by_chain(variable).astype(float))[0])
    apart = np.any(
        [_chains_apart(block) for block in blocks if block.shape[1] >= FEWEST_DRAWS], axis=0
    )
    stuck = post["posterior"].to_dataset()["chain"].values[np.flatnonzero(apart)]
    if stuck.size == 0:
        return
    several = "" if stuck.size == 1 else "s"
    chains = f"{words.one}{several} {', '.join(map(str, stuck))}"
    where = "away from the others" if 2 * stuck.size < apart.size else "in different places"
    yield Finding(
        "bad",
        f"stuck {words.one}{several}",
        f"{chains} sit{'' if several else 's'} {where}",
        f"{words.again}; if it comes back, the posterior has several modes: tighten the prior, or "
        "report them",
    )


def _chains_apart(values: np.ndarray) -> np.ndarray:
    r"""Flag chains that are stuck, in a quantity that mixes poorly.

    A chain with median $m_c$ is stuck if $|m_c - \mathrm{median}_{c'}\, m_{c'}| > s$, where $c'$
    runs over all chains. Here $s$ is the median over chains of the standard deviation within a
    chain. A chain with a standard deviation below $s / 10$ is stuck, too.

    Args:
        values: draws `(chain, draw, quantity)`.
    """
    chains = values.shape[0]
    # Only quantities that mix poorly count: over few draws, good chains differ by chance.
    mixed_badly = rhat(values) > _PASSABLE_RHAT
    if chains == 1 or not mixed_badly.any():
        return np.zeros(chains, bool)
    medians = np.median(values, axis=1)
    spreads = values.std(axis=1)
    spread = np.median(spreads, axis=0)
    away = np.abs(medians - np.median(medians, axis=0)) > spread
    still = spreads < 0.1 * spread
    return ((away | still) & mixed_badly).any(axis=1)


def energy_findings(post: xr.DataTree) -> Iterator[Finding]:
    """Yield a finding on the energy of Hamiltonian chains (BFMI, Betancourt 2016).

    Yields:
        At most one finding; none without energies.
    """
    from arviz_stats.base.array import array_stats

    energy = dict(variables(post, "sample_stats")).get("energy")
    if energy is None:
        return
    values = finite_draws(by_chain(energy).astype(float))[0][..., 0]
    if values.shape[1] < FEWEST_DRAWS or np.any(np.ptp(values, axis=1) == 0):
        return
    bfmi = np.array(list(array_stats.bfmi(values, chain_axis=0, draw_axis=1)), float)
    chain = energy["chain"].values[bfmi.argmin()]
    level = grade(float(bfmi.min()), good=0.3, warning=0.2)
    message = f"lowest {bfmi.min():.2f} (chain {chain}), good from 0.3"
    remedy = "the tails are explored slowly: use a tighter or non-centred prior"
    yield Finding(level, "BFMI", message, remedy)


def _first_three(names: list[str]) -> str:
    """Return the first three names, and the number of the others in words."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
