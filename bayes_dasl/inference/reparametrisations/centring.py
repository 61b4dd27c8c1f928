"""Random effects, centred as far as the data inform them."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, Int
from numpyro.distributions.transforms import AffineTransform, LowerCholeskyAffine, Transform

from ..._jax.compiling import Program
from ..._jax.trace import traced
from ..._runs.journal import Arrays
from ..problem import Problem
from ..sites import Site, Sites, constrained
from ..starts import Optimiser, falls, precision_at
from .reparametrisation import Reparametrisation

_FEW_DRAWS = 10
"""So many draws for each number of a member let what they say of how numbers go together count for
half.
"""

_TOGETHER = 8
"""So many numbers of a member are centred together at most; of longer vectors each is told by
itself.
"""

_APART = 0.05  # of a fall of the gradient: so much of it may be due to other members

type Told = tuple[Float[Array, "_ _ _"], Float[Array, "_ _"]]
"""What data say of the numbers of a block: a precision P, `(number, number, member)`, and P m of
their mean m.
"""


class Block(NamedTuple):
    """Numbers that are centred together: those of one site, or of several that have one number for
    each of the members.

    `places` are theirs in the flat vector, `(number, member)`.
    """

    paths: tuple[str, ...]
    places: Int[np.ndarray, "number member"]

    def prior(self, sites: Sites, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """Location and scale, `(number, member)`; of vectors the scale is a factor
        `(number, number, member)`.
        """
        ways, shape = [sites[path].way(values) for path in self.paths], _shape(sites[self.paths[0]])
        if isinstance(ways[0], LowerCholeskyAffine):
            number = shape[-1]
            location = jnp.broadcast_to(ways[0].loc, shape).reshape(-1, number)
            factor = jnp.broadcast_to(ways[0].scale_tril, (*shape, number)).reshape(
                -1, number, number
            )
            return location.T, jnp.moveaxis(factor, 0, -1)

        def of_all(name):
            return jnp.stack([jnp.broadcast_to(getattr(w, name), shape).ravel() for w in ways])

        return of_all("loc"), of_all("scale")

    def given(self, told: Told, sites: Sites, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """The lower factor L of the precision of standardised numbers given data, and L⁻¹ precision
        mean.
        """
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


class PartlyCentred(Reparametrisation):
    r"""Partly centred random effects, nearly standard normal given their hyperparameters.

    Numbers $x = \mu + S z$ are standard normal in $z$ by their prior. If the data say $x = m$ with
    a precision $P$, then $z$ is $N(M, Q^{-1})$ given $\mu$ and $S$, where $Q = 1 + S^\top P S$ and
    $Q M = S^\top P (m - \mu)$. The new parameters are $\xi = L^\top (z - M)$ with $L L^\top = Q$:
    they are non-centred where the data say nothing ($P = 0$), and centred where they say all. The
    numbers of one member of a population are centred together, since data tell them together. The
    posterior stays what it is.

    `told` is P and P m of each block of numbers.

    Source: Papaspiliopoulos, Roberts & Sköld (2007), whose weight between the two ways is here what
    data and prior say.
    """

    told: tuple[Told, ...]
    centring: "Centring" = eqx.field(static=True)

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return the unconstrained parameters, and log |det J|."""
        return self.centring.ways[0](self.told, z)

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return z(x)."""
        return self.centring.ways[1](self.told, x)


class Centring:
    """Fits `PartlyCentred`: the information in the data is how the likelihood's score falls.

    `dependent` are the places of all numbers of blocks, `others` those of all others.
    """

    kind = "partly centred"
    evaluated_anew = False

    def __init__(self, problem: Problem):
        self._problem, self._sites = problem, problem.sites
        self._blocks, self._order = _blocks(problem)
        sizes = [block.places.shape for block in self._blocks]
        nothing = tuple((jnp.zeros((d, d, n)), jnp.zeros((d, n))) for d, n in sizes)
        self.like = PartlyCentred(nothing, self)
        dependent = np.concatenate([block.places.ravel() for block in self._blocks])
        self.dependent = tuple(np.sort(dependent).tolist())
        self.others = tuple(np.setdiff1d(np.arange(problem.dimension), dependent).tolist())
        vector = jnp.zeros(problem.dimension)
        self.ways = tuple(traced(way, nothing, vector) for way in (self._forward, self._inverse))
        self._scores = Program(jax.vmap(self._score))
        self._by_prior = Program(jax.vmap(jax.grad(problem.log_prior)))
        self._given = Program(self._standards)

    def from_draws(
        self,
        positions: Float[np.ndarray, "n dimension"],
        gradients: Float[np.ndarray, "n dimension"],
    ) -> Arrays:
        """Return the arrays fitted to draws and the gradients of the log density there."""
        x, score = map(np.asarray, self._scores(positions, gradients))
        arrays = {}
        for i, block in enumerate(self._blocks):
            arrays[f"precision {i}"], arrays[f"weighted {i}"] = _told(
                x[:, block.places], score[:, block.places]
            )
        return arrays

    def around(
        self,
        position: Float[np.ndarray, " dimension"],
        gradients: Callable[[Float[np.ndarray, "n dimension"]], Float[np.ndarray, "n dimension"]],
    ) -> Arrays:
        """Return the arrays fitted to the log density around a position.

        Args:
            position: where, by unconstrained parameters.
            gradients: those of the log density at positions.
        """

        def by_likelihood(x):
            return gradients(x) - np.asarray(self._by_prior(x))

        arrays, slope = {}, by_likelihood(position[None])[0]
        for i, (block, prior) in enumerate(zip(self._blocks, self._given(position), strict=True)):
            # 1. −∂score/∂x of each group: the precision of the standardised effects given data.
            location, factor = (np.moveaxis(np.asarray(a), -1, 0) for a in prior)
            places = block.places.T
            known, eigenvalues = _known(_of_each_member(by_likelihood, position, places))
            # 2. P in the directions that data inform, and P m = P x + score.
            by_data, pulled = _precision_and_pull(
                known,
                eigenvalues,
                position[places],
                np.where(np.isfinite(slope), slope, 0.0)[places],
            )
            # 3. From z to x = μ + S z: the precision is S⁻ᵀ P S⁻¹, and P m moves by P μ.
            to_standard = np.linalg.inv(factor)
            by_data = np.einsum("mki,mkl,mlj->mij", to_standard, by_data, to_standard)
            pulled = np.einsum("mki,mk->mi", to_standard, pulled) + np.einsum(
                "mij,mj->mi", by_data, location
            )
            arrays[f"precision {i}"], arrays[f"weighted {i}"] = (
                np.moveaxis(by_data, 0, -1),
                pulled.T,
            )
        return arrays

    def precision(self, optimiser: Optimiser, z: Float[np.ndarray, " dimension"]) -> np.ndarray:
        """Return minus the Hessian by z, taken as 1 for the numbers of blocks."""
        return precision_at(optimiser, z, self.others)

    def restored(self, arrays: Mapping[str, Any]) -> PartlyCentred:
        """Return the reparametrisation of such arrays."""
        of = lambda name: jnp.asarray(arrays[name])  # noqa: E731
        return PartlyCentred(
            tuple((of(f"precision {i}"), of(f"weighted {i}")) for i in range(len(self._blocks))),
            self,
        )

    def _forward(self, told: Sequence[Told], xi: Array) -> tuple[Array, Array]:
        x, log_det, values = xi, jnp.zeros(()), {}
        for step in self._order:
            if isinstance(step, str):
                values[step] = self._sites[step].value(x, values)[0]
                continue
            places = self._blocks[step].places
            # L Lᵀ = 1 + SᵀPS, so that z = L⁻ᵀ(L⁻¹Q M + ξ) and log|det J| = −Σ log Lᵢᵢ.
            lower, mean = self._blocks[step].given(told[step], self._sites, values)
            x = x.at[places].set(_solve(lower, mean + xi[places], transposed=True))
            log_det = log_det - jnp.sum(jnp.log(jnp.diagonal(lower)))
        return x, log_det

    def _inverse(self, told: Sequence[Told], x: Array) -> Array:
        xi, (values, _) = x, constrained(self._sites, x)
        for block, of_block in zip(self._blocks, told, strict=True):
            lower, mean = block.given(of_block, self._sites, values)
            upper = jnp.swapaxes(lower * jnp.tri(len(lower))[..., None], 0, 1)
            xi = xi.at[block.places].set(_times(upper, x[block.places]) - mean)
        return xi

    def _standards(self, x: Array) -> list[tuple[Array, Array]]:
        """Of each block the location and the factor of its prior at a position."""
        values, _ = constrained(self._sites, x)
        found = [block.prior(self._sites, values) for block in self._blocks]
        return [(m, s if s.ndim == 3 else jnp.eye(len(s))[..., None] * s) for m, s in found]

    def _score(self, x: Array, gradient: Array) -> tuple[Array, Array]:
        """Each number on its unconstrained scale, and the score of the likelihood there.

        Scores are those with what it depends on held: of a standardised number divided by the
        scale.
        """
        by_likelihood = gradient - jax.grad(self._problem.log_prior)(x)
        own, score = x, by_likelihood
        for block, (location, factor) in zip(self._blocks, self._standards(x), strict=True):
            places = block.places
            own = own.at[places].set(location + _times(factor, x[places]))
            score = score.at[places].set(_solve(factor, by_likelihood[places], transposed=True))
        return own, score


def centring_of(problem: Problem) -> Centring | None:
    """Return what fits `PartlyCentred`, or None if no prior depends on another parameter."""
    return Centring(problem) if has_dependent(problem) else None


def has_dependent(problem: Problem) -> bool:
    """Whether the prior of a number depends on another."""
    return any(site.standardised is not None for site in problem.sites.values())


def _of_each_member(
    gradients: Callable[[np.ndarray], np.ndarray],
    position: Float[np.ndarray, " dimension"],
    places: Int[np.ndarray, "member number"],
) -> Float[np.ndarray, "member number number"]:
    """How the gradient by a member's numbers falls along each of them.

    A number is nudged in all members at once, so that it takes no more gradients for a thousand of
    them than for two. Whether members go apart is tried by nudges of which half go up and half go
    down; if they do not, each member is nudged by itself.
    """
    (members, number), dimension = places.shape, len(position)
    of_all = np.zeros((number, dimension))
    of_all[np.arange(number)[:, None], places.T] = 1.0
    tried = np.zeros((1, dimension))
    signs = np.where(np.arange(members) % 2, 1.0, -1.0)
    tried[0, places] = np.random.default_rng(0).permuted(
        np.repeat(signs[:, None], number, axis=1), axis=0
    )
    fell = falls(gradients, position, np.concatenate([of_all, tried]))[
        :, places
    ]  # (direction, member, number)
    found, along = np.moveaxis(fell[:-1], 0, 1), fell[-1]
    missed = along - np.einsum("mij,mi->mj", found, tried[0, places])
    if np.linalg.norm(missed) > _APART * np.linalg.norm(along):
        each = falls(gradients, position, np.eye(dimension)[places.ravel()]).reshape(
            members, number, dimension
        )
        found = np.stack(
            [of_member[:, where] for of_member, where in zip(each, places, strict=True)]
        )
    return found


class _Asked(dict[str, Array]):
    """Values by path, and which of them were asked for."""

    def __init__(self, values: Mapping[str, Array]):
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, path: str) -> Array:
        self.asked.add(path)
        return super().__getitem__(path)


def _blocks(problem: Problem) -> tuple[list[Block], list[str | int]]:
    """The blocks, and in which order sites have values and blocks are gone through, by path and by
    number.

    Sites that have one number for each of the same members, on which no other prior depends, are
    one block, which comes last.
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
    for found in together.values():
        for paths in [found] if len(found) <= _TOGETHER else [[path] for path in found]:
            order.append(len(blocks))
            places = np.concatenate([_places(sites[path], ways[path]) for path in paths])
            blocks.append(Block(tuple(paths), places))
    return blocks, order


def _places(site: Site, way: Transform | None) -> Int[np.ndarray, "number member"]:
    """Where the numbers of a site lie: of vectors each is a member's."""
    number = way.scale_tril.shape[-1] if isinstance(way, LowerCholeskyAffine) else 1
    return np.arange(site.start, site.start + site.size).reshape(-1, number).T


def _shape(site: Site) -> tuple[int, ...]:
    """Its unconstrained shape."""
    return site.bijector.inverse_shape(site.shape)


def _told(x: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What data say of the numbers of a block, by draws of them and of the score of the likelihood.

    The score of a normal likelihood is linear in the numbers, by minus the precision. What few
    draws say of how numbers go together counts for less than it seems.

    Shapes: `(draw, number, member)`; those of `Told`.
    """
    x, score = (
        np.moveaxis(x, -1, 1),
        np.moveaxis(score, -1, 1),
    )  # (draw, member, number), as NumPy's algebra has it
    draws, _, number = x.shape
    sd = np.std(x, axis=0)
    usable = (np.isfinite(score).all(0) & np.isfinite(x).all(0) & (sd > 0)).all(-1)
    sd, mean = (
        np.where(usable[:, None], values, fill) for values, fill in ((sd, 1.0), (x.mean(0), 0.0))
    )
    deviation, score = (
        np.where(usable[:, None], values, 0.0) for values in ((x - mean) / sd, score * sd)
    )
    shrinkage = np.where(
        np.eye(number), 1.0, draws / (draws + _FEW_DRAWS * number) if number <= _TOGETHER else 0.0
    )
    # The regression of scores on numbers, in units of their standard deviations.
    of_numbers, of_scores = (
        shrinkage * np.einsum("dmi,dmj->mij", deviation, v) / draws for v in (deviation, score)
    )
    slope = np.linalg.solve(np.where(usable[:, None, None], of_numbers, np.eye(number)), -of_scores)
    precision, weighted = _precision_and_pull(*_known(slope), mean / sd, score.mean(0))
    return np.moveaxis(precision / (sd[:, :, None] * sd[:, None]), 0, -1), (weighted / sd).T


def _known(precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The directions of which data say something, as columns, the others zero; and how precisely,
    of each member.
    """
    eigenvalues, vectors = np.linalg.eigh((precision + np.swapaxes(precision, -1, -2)) / 2)
    return np.where((eigenvalues > 0)[:, None], vectors, 0.0), eigenvalues


def _precision_and_pull(
    known: np.ndarray, eigenvalues: np.ndarray, at: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The precision P in the known directions, and P m, where a likelihood has this score at some
    numbers.
    """
    precision = np.einsum("mik,mk,mjk->mij", known, eigenvalues, known)
    return precision, np.einsum("mij,mj->mi", precision, at) + np.einsum(
        "mik,mjk,mj->mi", known, known, score
    )


def _times(matrix: Array, vector: Array) -> Array:
    return jnp.sum(matrix * vector, axis=1)


def _cholesky(matrix: Float[Array, "number number member"]) -> Float[Array, "number number member"]:
    """The lower factor of each matrix; what stands above its diagonal is not looked at."""
    if len(matrix) > _TOGETHER:
        return jnp.moveaxis(jnp.linalg.cholesky(jnp.moveaxis(matrix, -1, 0)), 0, -1)
    columns: list[Array] = []
    for k in range(len(matrix)):  # all members at a time: LAPACK is called for one after the other
        columns.append(matrix[:, k] / jnp.sqrt(matrix[k, k]))
        matrix = matrix - columns[k][:, None] * columns[k]
    return jnp.stack(columns, axis=1)


def _solve(
    lower: Array, right: Float[Array, "number member"], *, transposed: bool = False
) -> Array:
    """The solution v of L v = right, or of Lᵀ v = right, for each lower factor L."""
    if len(right) > _TOGETHER:
        solve = partial(solve_triangular, trans=int(transposed), lower=True)
        return jax.vmap(solve, in_axes=-1, out_axes=-1)(lower, right)
    found: dict[int, Array] = {}
    for i in reversed(range(len(right))) if transposed else range(len(right)):
        found[i] = right[i] / lower[i, i]
        right = right - (lower[i] if transposed else lower[:, i]) * found[i]
    return jnp.stack([found[i] for i in range(len(right))])
