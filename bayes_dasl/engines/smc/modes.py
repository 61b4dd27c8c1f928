"""Modes among particles: groups with empty space between them, and their posterior weights."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]

from ..._statistics.convergence import thinned
from ...inference.engine import Modes

# Share of all particles: smaller groups are outliers of another mode.
_SMALLEST = 0.01
# Different positions that a group has at least.
_FEWEST = 50
# Neighbours to which a particle is linked, and the most particles that are linked.
_NEIGHBOURS = 10
_MOST = 2000
# Width of the empty space between groups, in standard deviations of either.
_GAP = 0.5


def modes_among(
    position: Float[np.ndarray, "run particle dimension"],
    log_density: Float[np.ndarray, "run particle"],
) -> tuple[Modes, Int[np.ndarray, "run particle"]]:
    """Return the modes, the heaviest first, and the number of each particle's mode.

    1. Particles are split where a coordinate has a wide gap, group by group.
    2. Within a group each particle is linked to its nearest neighbours, in units of the group's
       standard deviations. Unlinked sets are different modes if their distance exceeds half the
       standard deviation of either. Otherwise links along a line would break by chance.
    3. Small groups join the nearest mode. A weight is a share of the particles, with a standard
       error from the runs.
    """
    runs, size, dimension = position.shape
    # 1. and 2. Groups of particles.
    flat = position.reshape(-1, dimension)
    number = np.zeros(len(flat), int)
    least = max(_SMALLEST * len(flat), _FEWEST)
    groups = list(_separate_groups(flat, np.arange(len(flat)), least))
    for i, group in enumerate(groups):
        number[group] = i
    # 3. Number them by weight: w = mean over runs of the share, se(w) = sd over runs / √runs.
    order = np.argsort(-np.bincount(number), kind="stable")
    number = np.argsort(order)[number].reshape(runs, size)
    shares = np.stack([(number == i).mean(axis=1) for i in range(len(groups))])
    error = shares.std(axis=1, ddof=1) / np.sqrt(runs) if runs > 1 else np.full(len(groups), np.nan)
    # 4. The particle of the highest density stands for its mode.
    finite = np.where(np.isfinite(log_density), log_density, -np.inf)
    tops = [int(np.where(number == i, finite, -np.inf).argmax()) for i in range(len(groups))]
    return Modes(flat[tops], finite.ravel()[tops], shares.mean(axis=1), error), number


def _separate_groups(flat: np.ndarray, group: np.ndarray, least: float) -> Iterator[np.ndarray]:
    """Yield the groups into which particles split, none smaller than `least`."""
    parts = _by_gap(flat[group], least) or _by_links(flat[group], least)
    if not parts:
        yield group
    for part in parts:
        yield from _separate_groups(flat, group[part], least)


def _by_gap(values: np.ndarray, least: float) -> list[np.ndarray]:
    """Return the two parts beside the widest gap in any coordinate, none if the gap is small.

    Gaps are measured in standard deviations of the wider part.
    """
    side = int(np.ceil(least))
    widest = _GAP
    found = []
    if len(values) < 2 * side:
        return []
    for column in values.T:
        order = column.argsort()
        # Only gaps with at least `side` particles on either side count.
        gaps = np.diff(column[order])[side - 1 : len(column) - side]
        split = side + int(gaps.argmax())
        parts = [np.sort(order[:split]), np.sort(order[split:])]
        spread = max(column[part].std() for part in parts)
        if gaps.max() > widest * max(spread, 1e-300):
            widest = gaps.max() / max(spread, 1e-300)
            found = parts
    return found


def _by_links(values: np.ndarray, least: float) -> list[np.ndarray]:
    """Return the parts that no link between nearest neighbours connects, none if there is one."""
    # 1. A resampled particle that never moved occurs several times: take it once.
    unique, inverse = np.unique(values, axis=0, return_inverse=True)
    if len(unique) < 2 * _FEWEST:
        return []
    # 2. Link each of some particles to its nearest neighbours, in standard deviations.
    spread = unique.std(axis=0)
    scaled = unique / np.where(spread > 0, spread, 1.0)
    linked = scaled[thinned(len(scaled), _MOST)]
    near = cKDTree(linked).query(linked, _NEIGHBOURS + 1)[1][:, 1:]
    start = np.repeat(np.arange(len(linked)), _NEIGHBOURS)
    graph = coo_array((np.ones(len(start)), (start, near.ravel())), (len(linked),) * 2)
    # 3. Connected components are groups, except for those next to each other.
    group = _merged(linked, connected_components(graph, directed=False)[1])
    # 4. Each particle belongs to the group of the nearest linked one.
    nearest = group[cKDTree(linked).query(scaled)[1]][inverse.ravel()]
    large = np.flatnonzero(np.bincount(nearest) >= least)
    if len(large) < 2:
        return []
    # 5. Particles of small groups join the nearest large group.
    kept = np.isin(group, large)
    nearest = group[kept][cKDTree(linked[kept]).query(scaled)[1]][inverse.ravel()]
    return [np.flatnonzero(nearest == i) for i in large]


def _merged(values: np.ndarray, group: np.ndarray) -> np.ndarray:
    """Return the groups after merging those that lie next to each other."""
    parts = [values[group == i] for i in range(group.max() + 1)]
    spread = np.array([part.std(axis=0).max() for part in parts])
    apart = [[cKDTree(one).query(other)[0].min() for other in parts] for one in parts]
    near = np.array(apart) < _GAP * np.minimum.outer(spread, spread)
    return connected_components(near, directed=False)[1][group]
