"""Modes among particles: groups with empty space between them, and their posterior weights."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree  # pyright: ignore[reportAttributeAccessIssue]

from ..._statistics.convergence import thinned
from ...inference.engine import Modes

# Smallest group, as a share of all particles: smaller groups are outliers of another mode.
_SMALLEST = 0.01
# Smallest number of particles in a group. A split needs twice as many distinct positions.
_FEWEST = 50
# Neighbours to which a particle is linked, and the most particles that are linked.
_NEIGHBOURS = 10
_MOST = 2000
# Smallest empty space between groups, in standard deviations.
_GAP = 0.5


def modes_among(
    position: Float[np.ndarray, "run particle dimension"],
    log_density: Float[np.ndarray, "run particle"],
) -> tuple[Modes, Int[np.ndarray, "run particle"]]:
    """Find separate modes among particles, and number them from the heaviest.

    1. Particles are split at wide gaps in a coordinate, recursively.
    2. A group without such a gap is split by links. Each particle is linked to its nearest
       neighbours, in units of the group's standard deviations. Sets of particles without a link
       between them are different modes if they are far apart: by more than half the smaller of
       their standard deviations. Without this condition, links along a line would break by chance.
    3. Small groups join the nearest mode. The weight of a mode is its share of the particles. The
       standard error of the weight comes from the variation between runs.

    Args:
        position: the particles of all runs.
        log_density: the log density of the posterior at each particle.

    Returns:
        The modes in decreasing order of weight, and the number of the mode of each particle.
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
    # 4. The position of a mode is its particle of highest density.
    finite = np.where(np.isfinite(log_density), log_density, -np.inf)
    tops = [int(np.where(number == i, finite, -np.inf).argmax()) for i in range(len(groups))]
    return Modes(flat[tops], finite.ravel()[tops], shares.mean(axis=1), error), number


def _separate_groups(flat: np.ndarray, group: np.ndarray, least: float) -> Iterator[np.ndarray]:
    """Yield the groups into which particles split.

    Args:
        flat: the positions of all particles, `(particle, dimension)`.
        group: indices of the particles to split.
        least: the smallest number of particles in a group.

    Yields:
        Indices of the particles of each group.
    """
    parts = _by_gap(flat[group], least) or _by_links(flat[group], least)
    if not parts:
        yield group
    for part in parts:
        yield from _separate_groups(flat, group[part], least)


def _by_gap(values: np.ndarray, least: float) -> list[np.ndarray]:
    """Split particles at the widest gap in any coordinate.

    The width of a gap is measured in standard deviations of the wider part, in that coordinate.

    Args:
        values: positions, `(particle, dimension)`.
        least: the smallest number of particles in a part.

    Returns:
        Indices of the particles of both parts. The list is empty if no gap is wider than `_GAP`.
    """
    side = int(np.ceil(least))
    widest = _GAP
    found = []
    if len(values) < 2 * side:
        return []
    for column in values.T:
        order = column.argsort()
        # Only gaps with at least `side` particles on each side count.
        gaps = np.diff(column[order])[side - 1 : len(column) - side]
        split = side + int(gaps.argmax())
        parts = [np.sort(order[:split]), np.sort(order[split:])]
        spread = max(column[part].std() for part in parts)
        if gaps.max() > widest * max(spread, 1e-300):
            widest = gaps.max() / max(spread, 1e-300)
            found = parts
    return found


def _by_links(values: np.ndarray, least: float) -> list[np.ndarray]:
    """Split particles into sets between which no links of nearest neighbours exist.

    Args:
        values: positions, `(particle, dimension)`.
        least: the smallest number of particles in a set.

    Returns:
        Indices of the particles of each set. The list is empty if all particles are in one set.
    """
    # 1. A resampled particle that never moved occurs several times: take it once.
    unique, inverse = np.unique(values, axis=0, return_inverse=True)
    if len(unique) < 2 * _FEWEST:
        return []
    # 2. Take at most _MOST particles. Link each to its nearest neighbours, with distances in
    #    standard deviations.
    spread = unique.std(axis=0)
    scaled = unique / np.where(spread > 0, spread, 1.0)
    linked = scaled[thinned(len(scaled), _MOST)]
    near = cKDTree(linked).query(linked, _NEIGHBOURS + 1)[1][:, 1:]
    start = np.repeat(np.arange(len(linked)), _NEIGHBOURS)
    graph = coo_array((np.ones(len(start)), (start, near.ravel())), (len(linked),) * 2)
    # 3. Connected components are groups. Components close to each other are merged.
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
    """Merge groups of particles that lie close together.

    Two groups are close if their nearest particles are less than half a standard deviation apart.
    The standard deviation of a group is its largest over the dimensions; the smaller of the two
    groups counts. Chains of close groups become one group.

    Args:
        values: positions, `(particle, dimension)`.
        group: the group number of each particle.

    Returns:
        The new group number of each particle.
    """
    parts = [values[group == i] for i in range(group.max() + 1)]
    spread = np.array([part.std(axis=0).max() for part in parts])
    apart = [[cKDTree(one).query(other)[0].min() for other in parts] for one in parts]
    near = np.array(apart) < _GAP * np.minimum.outer(spread, spread)
    return connected_components(near, directed=False)[1][group]
