"""Coordinates of numbers whose priors depend on others: centred as far as the data say what they are."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from numpyro.distributions.transforms import AffineTransform, LowerCholeskyAffine, Transform

from ..._jax.trace import traced
from ..._runs.journal import Arrays
from ..problem import Problem
from ..sites import Site, Sites, constrained

_FEW_DRAWS = 10
"""So many draws for each number of a member let what they say of how numbers go together count for half."""

type Told = tuple[Float[Array, "_ _ _"], Float[Array, "_ _"]]
"""What data say of the numbers of a block: a precision P, `(number, number, member)`, and P m of their mean m."""


class Block(NamedTuple):
    """Numbers that are centred together: those of one site, or of all sites that have the same members.

    `places` are theirs in the flat vector, `(number, member)`.
    """

    paths: tuple[str, ...]
    places: Int[np.ndarray, "number member"]

    def prior(self, sites: Sites, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """Location and scale, `(number, member)`; of vectors the scale is a factor `(number, number, member)`."""
        number, members = self.places.shape
        ways = [sites[path].way(values) for path in self.paths]
        if isinstance(ways[0], LowerCholeskyAffine):
            location = jnp.broadcast_to(ways[0].loc, (members, number))
            return location.T, jnp.moveaxis(jnp.broadcast_to(ways[0].scale_tril, (members, number, number)), 0, -1)
        shape = _shape(sites[self.paths[0]])
        of_all = lambda name: jnp.stack([jnp.broadcast_to(getattr(w, name), shape).ravel() for w in ways])  # noqa: E731
        return of_all("loc"), of_all("scale")

    def given(self, told: Told, sites: Sites, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """The lower factor L of the precision of standardised numbers given data, and L⁻¹ precision mean."""
        precision, pulled = told
        location, scale = self.prior(sites, values)
        pulled = pulled - _times(precision, location)
        if scale.ndim == 3:
            precision = jnp.einsum("kim,klm,ljm->ijm", scale, precision, scale)
            pulled = jnp.einsum("kim,km->im", scale, pulled)
        else:
            precision, pulled = scale[:, None] * precision * scale[None], scale * pulled
        lower = _cholesky(jnp.eye(len(scale))[..., None] + precision)
        return lower, _solve(lower, pulled)


class PartlyCentred(eqx.Module):
    r"""Coordinates in which numbers with a dependent prior are nearly standard normal, given what they depend on.

    Numbers $x \sim N(\mu, S)$, of which the data say $x = m$ with a precision $P$, are $N(M, Q^{-1})$ given $\mu$ and
    $S$, where $Q = P + S^{-1}$ and $Q M = P m + S^{-1} \mu$. Their coordinates are $\xi = L^\top (x - M)$ with
    $L L^\top = Q$: they are non-centred where the data say nothing ($P = 0$), and centred where they say all. The
    numbers of one member of a population are centred together, since data tell them together. The posterior stays what
    it is.

    `told` is P and P m of each block of numbers.

    Source: Papaspiliopoulos, Roberts & Sköld (2007), whose weight between the two ways is here what data and prior say.
    """

    told: tuple[Told, ...]
    centring: "Centring" = eqx.field(static=True)

    def position(self, xi: Float[Array, " dimension"]) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """The position that coordinates stand for, and the log of the volume that the way there stretches."""
        return self.centring.ways[0](self.told, xi)

    def coordinates(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The coordinates of a position."""
        return self.centring.ways[1](self.told, x)


class Centring:
    """Makes frames from draws: what data say of numbers is how the score of the likelihood falls with them."""

    def __init__(self, problem: Problem):
        self._problem, self._sites = problem, problem.sites
        self._blocks, self._order = _blocks(problem)
        sizes = [block.places.shape for block in self._blocks]
        nothing = tuple((jnp.zeros((d, d, n)), jnp.zeros((d, n))) for d, n in sizes)
        self.like = PartlyCentred(nothing, self)
        vector = jnp.zeros(problem.dimension)
        self.ways = tuple(traced(way, nothing, vector) for way in (self._position, self._coordinates))
        self._scores = jax.jit(jax.vmap(self._score))

    def frame(self, positions: Float[np.ndarray, "n dimension"], gradients: Float[np.ndarray, "n dimension"]) -> Arrays:
        """The arrays of the frame that draws, and the gradients of the log density there, ask for."""
        x, score = map(np.asarray, self._scores(positions, gradients))
        arrays = {}
        for i, block in enumerate(self._blocks):
            arrays[f"precision {i}"], arrays[f"mean {i}"] = _told(x[:, block.places], score[:, block.places])
        return arrays

    def restored(self, arrays: Mapping[str, Any]) -> PartlyCentred:
        """The frame of such arrays."""
        of = lambda name: jnp.asarray(arrays[name])  # noqa: E731
        return PartlyCentred(tuple((of(f"precision {i}"), of(f"mean {i}")) for i in range(len(self._blocks))), self)

    def _position(self, told: Sequence[Told], xi: Array) -> tuple[Array, Array]:
        x, volume, values = xi, jnp.zeros(()), {}
        for step in self._order:
            if isinstance(step, str):
                values[step] = self._sites[step].value(x, values)[0]
                continue
            places = self._blocks[step].places
            lower, mean = self._blocks[step].given(told[step], self._sites, values)
            x = x.at[places].set(_solve(lower, mean + xi[places], transposed=True))
            volume = volume - jnp.sum(jnp.log(jnp.diagonal(lower)))
        return x, volume

    def _coordinates(self, told: Sequence[Told], x: Array) -> Array:
        xi, values = x, {}
        for step in self._order:
            if isinstance(step, str):
                values[step] = self._sites[step].value(x, values)[0]
                continue
            places = self._blocks[step].places
            lower, mean = self._blocks[step].given(told[step], self._sites, values)
            upper = jnp.swapaxes(lower * jnp.tri(len(lower))[..., None], 0, 1)
            xi = xi.at[places].set(_times(upper, x[places]) - mean)
        return xi

    def _score(self, x: Array, gradient: Array) -> tuple[Array, Array]:
        """Each number on its unconstrained scale, and the score of the likelihood there.

        Scores are those with what it depends on held: of a standardised number divided by the scale.
        """
        by_likelihood = gradient - jax.grad(self._problem.log_prior)(x)
        own, score, values = x, by_likelihood, {}
        for step in self._order:
            if isinstance(step, str):
                values[step] = self._sites[step].value(x, values)[0]
                continue
            places = self._blocks[step].places
            location, scale = self._blocks[step].prior(self._sites, values)
            factor = scale if scale.ndim == 3 else jnp.eye(len(scale))[..., None] * scale
            own = own.at[places].set(location + _times(factor, x[places]))
            score = score.at[places].set(_solve(factor, by_likelihood[places], transposed=True))
        return own, score


def centring_of(problem: Problem) -> Centring | None:
    """What makes frames for the numbers of a problem whose priors depend on others; none where there are none."""
    return Centring(problem) if any(site.standardised is not None for site in problem.sites.values()) else None


class _Asked(dict[str, Array]):
    """Values by path, and which of them were asked for."""

    def __init__(self, values: Mapping[str, Array]):
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, path: str) -> Array:
        self.asked.add(path)
        return super().__getitem__(path)


def _blocks(problem: Problem) -> tuple[list[Block], list[str | int]]:
    """The blocks, and in which order sites have values and blocks are gone through, by path and by number.

    Numbers of the same members on which no other prior depends are one block, which comes last.
    """
    sites = problem.sites
    values = _Asked(constrained(sites, jnp.zeros(problem.dimension))[0])
    ways = {path: site.way(values) for path, site in sites.items()}
    blocks: list[Block] = []
    order: list[str | int] = []
    together: dict[Any, list[str]] = {}
    for path, site in sites.items():
        if site.standardised is not None:
            dims = site.standardised.dims
            if dims and path not in values.asked and isinstance(ways[path], AffineTransform):
                together.setdefault((dims, _shape(site)), []).append(path)
                continue
            order.append(len(blocks))
            blocks.append(Block((path,), _places(site, ways[path])))
        order.append(path)
    for paths in together.values():
        order.append(len(blocks))
        places = np.concatenate([_places(sites[path], ways[path]) for path in paths])
        blocks.append(Block(tuple(paths), places))
    return blocks, order


def _places(site: Site, way: Transform | None) -> Int[np.ndarray, "number member"]:
    """Where the numbers of a site lie: of vectors each is a member's."""
    number = way.loc.shape[-1] if isinstance(way, LowerCholeskyAffine) else 1
    return np.arange(site.start, site.start + site.size).reshape(-1, number).T


def _shape(site: Site) -> tuple[int, ...]:
    """Its unconstrained shape."""
    return site.bijector.inverse_shape(site.shape)


def _told(x: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What data say of the numbers of a block, by draws of them and of the score of the likelihood.

    The score of a normal likelihood is linear in the numbers, by minus the precision. What few draws say of how numbers
    go together counts for less than it seems.

    Shapes: `(draw, number, member)`; those of `Told`.
    """
    x, score = np.moveaxis(x, -1, 1), np.moveaxis(score, -1, 1)  # (draw, member, number), as NumPy's algebra has it
    draws, _, number = x.shape
    sd = np.std(x, axis=0)
    usable = np.isfinite(score).all((0, 2)) & (sd > 0).all(1)
    sd = np.where(usable[:, None], sd, 1.0)
    away, slope = (x - x.mean(0)) / sd, np.where(usable[:, None], score, 0.0) * sd
    counted = np.where(np.eye(number), 1.0, draws / (draws + _FEW_DRAWS * number))
    together, falling = (counted * np.einsum("dmi,dmj->mij", away, other) / draws for other in (away, -slope))
    fall = np.linalg.solve(np.where(usable[:, None, None], together, np.eye(number)), falling)
    eigenvalues, vectors = np.linalg.eigh((fall + np.swapaxes(fall, -1, -2)) / 2)
    known = np.where((eigenvalues > 0)[:, None], vectors, 0.0)  # directions of which data say something
    precision = np.einsum("mik,mk,mjk->mij", known, eigenvalues, known)
    pulled = np.einsum("mij,mj->mi", precision, x.mean(0) / sd)
    pulled += np.einsum("mik,mjk,mj->mi", known, known, slope.mean(0))
    return np.moveaxis(precision / (sd[:, :, None] * sd[:, None]), 0, -1), (pulled / sd).T


def _times(matrix: Array, vector: Array) -> Array:
    return jnp.sum(matrix * vector, axis=1)


def _cholesky(matrix: Float[Array, "number number member"]) -> Float[Array, "number number member"]:
    """The lower factor of each matrix; what stands above its diagonal is not looked at."""
    columns: list[Array] = []
    for k in range(len(matrix)):  # all members at a time: LAPACK would be called for one after the other
        columns.append(matrix[:, k] / jnp.sqrt(matrix[k, k]))
        matrix = matrix - columns[k][:, None] * columns[k]
    return jnp.stack(columns, axis=1)


def _solve(lower: Array, right: Float[Array, "number member"], *, transposed: bool = False) -> Array:
    """The solution v of L v = right, or of Lᵀ v = right, for each lower factor L."""
    found: dict[int, Array] = {}
    for i in reversed(range(len(right))) if transposed else range(len(right)):
        found[i] = right[i] / lower[i, i]
        right = right - (lower[i] if transposed else lower[:, i]) * found[i]
    return jnp.stack([found[i] for i in range(len(right))])
