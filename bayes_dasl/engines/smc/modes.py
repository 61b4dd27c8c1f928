"""Modes among particles: groups with empty space between them, and the posterior weight of each."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]

from ..._statistics.convergence import thinned
from ...inference.engine import Modes

_SMALLEST = 0.01  # share of all particles: smaller groups are outliers of another mode
_FEWEST = 50  # different positions
_NEIGHBOURS, _MOST = 10, 2000
_GAP = 0.5  # standard deviations of either side


def modes_among(
    position: Float[np.ndarray, "run particle dimension"],
    log_density: Float[np.ndarray, "run particle"],
) -> tuple[Modes, Int[np.ndarray, "run particle"]]:
    """The modes, the one with the largest weight first, and the number of each particle's mode.

    1. Particles are split where a coordinate has a wide gap, group by group.
    2. Within a group each particle is linked to its nearest neighbours, in units of the group's
       standard deviations.
       Unlinked sets are different modes if their distance exceeds half the standard deviation of
       either. Without this condition, links along a line would break by chance.
    3. Small groups join the nearest mode. A weight is a share of the particles, with a standard
       error from the runs.
    """
    runs, size, dimension = position.shape
    flat = position.reshape(-1, dimension)
    number = np.zeros(len(flat), int)
    groups = list(_parted(flat, np.arange(len(flat)), max(_SMALLEST * len(flat), _FEWEST)))
    for i, members in enumerate(groups):
        number[members] = i
    order = np.argsort(-np.bincount(number), kind="stable")
    number = np.argsort(order)[number].reshape(runs, size)
    shares = np.stack([(number == i).mean(axis=1) for i in range(len(groups))])
    lowest = np.where(np.isfinite(log_density), log_density, -np.inf)
    tops = [int(np.where(number == i, lowest, -np.inf).argmax()) for i in range(len(groups))]
    error = shares.std(axis=1, ddof=1) / np.sqrt(runs) if runs > 1 else np.full(len(groups), np.nan)
    return Modes(flat[tops], lowest.ravel()[tops], shares.mean(axis=1), error), number


def _parted(flat: np.ndarray, members: np.ndarray, least: float) -> Iterator[np.ndarray]:
    """The groups into which particles split, none smaller than `least`."""
    parts = _by_gap(flat[members], least) or _by_links(flat[members], least)
    if not parts:
        yield members
    for part in parts:
        yield from _parted(flat, members[part], least)


def _by_gap(values: np.ndarray, least: float) -> list[np.ndarray]:
    """The two parts beside the widest gap of a coordinate, in standard deviations; none if the gap
    is small.
    """
    side, widest, found = int(np.ceil(least)), _GAP, []
    if len(values) < 2 * side:
        return []
    for column in values.T:
        order = column.argsort()
        gaps = np.diff(column[order])[side - 1 : len(column) - side]
        split = side + int(gaps.argmax())
        parts = [np.sort(order[:split]), np.sort(order[split:])]
        spread = max(column[part].std() for part in parts)
        if gaps.max() > widest * max(spread, 1e-300):
            widest, found = gaps.max() / max(spread, 1e-300), parts
    return found


def _by_links(values: np.ndarray, least: float) -> list[np.ndarray]:
    """Parts that are not connected by links between nearest neighbours;
    none if there is only one.
    """
    # A resampled particle that was never moved occurs several times.
    unique, inverse = np.unique(values, axis=0, return_inverse=True)
    if len(unique) < 2 * _FEWEST:
        return []
    spread = unique.std(axis=0)
    scaled = unique / np.where(spread > 0, spread, 1.0)
    linked = scaled[thinned(len(scaled), _MOST)]
    near = cKDTree(linked).query(linked, _NEIGHBOURS + 1)[1][:, 1:]
    start = np.repeat(np.arange(len(linked)), _NEIGHBOURS)
    graph = coo_array((np.ones(len(start)), (start, near.ravel())), (len(linked),) * 2)
    group = _joined(linked, connected_components(graph, directed=False)[1])
    nearest = group[cKDTree(linked).query(scaled)[1]][inverse.ravel()]
    large = np.flatnonzero(np.bincount(nearest) >= least)
    if len(large) < 2:
        return []
    kept = np.isin(group, large)
    nearest = group[kept][cKDTree(linked[kept]).query(scaled)[1]][inverse.ravel()]
    return [np.flatnonzero(nearest == i) for i in large]


def _joined(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """The groups, after merging those that lie next to each other."""
    parts = [values[group == i] for i in range(group.max() + 1)]
    spread = np.array([part.std(axis=0).max() for part in parts])
    apart = [[cKDTree(one).query(other)[0].min() for other in parts] for one in parts]
    near = np.array(apart) < _GAP * np.minimum.outer(spread, spread)
    return connected_components(near, directed=False)[1][group]
