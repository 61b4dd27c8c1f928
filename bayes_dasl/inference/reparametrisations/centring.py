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

# Draws per effect at which the estimated correlations of a group's effects count for half.
_FEW_DRAWS = 10
# The most effects of a group that are centred together. Elements of longer vectors are separate.
_TOGETHER = 8
# Share of a change of the gradient that may come from other groups.
_APART = 0.05

type Information = tuple[Float[Array, "_ _ _"], Float[Array, "_ _"]]
"""Information of the data on a block: a precision P, `(effect, effect, group)`, and P m."""


class Block(NamedTuple):
    """Random effects that are centred together, of one site or of several with the same groups.

    `places` are their indices in the flat vector, `(number, member)`.
    """

    paths: tuple[str, ...]
    places: Int[np.ndarray, "number member"]

    def prior(self, sites: Sites, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return location μ and scale S of the prior, `(number, member)`.

        The scale of vectors is a Cholesky factor `(number, number, member)`.
        """
        ways = [sites[path].way(values) for path in self.paths]
        shape = _unconstrained_shape(sites[self.paths[0]])
        if isinstance(ways[0], LowerCholeskyAffine):
            number = shape[-1]
            location = jnp.broadcast_to(ways[0].loc, shape).reshape(-1, number)
            factor = jnp.broadcast_to(ways[0].scale_tril, (*shape, number))
            return location.T, jnp.moveaxis(factor.reshape(-1, number, number), 0, -1)

        def of_all(name):
            return jnp.stack([jnp.broadcast_to(getattr(w, name), shape).ravel() for w in ways])

        return of_all("loc"), of_all("scale")

    def given(
        self, by_data: Information, sites: Sites, values: Mapping[str, Array]
    ) -> tuple[Array, Array]:
        """Return L and L⁻¹ Q M of the standardised effects, normal N(M, Q⁻¹) with Q = L Lᵀ."""
        # Q = 1 + Sᵀ P S, and Q M = Sᵀ (P m − P μ).
        precision, pulled = by_data
        location, scale = self.prior(sites, values)
        pulled = pulled - _products(precision, location)
        if scale.ndim == 3:
            precision = jnp.einsum("kim,klm,ljm->ijm", scale, precision, scale)
            pulled = jnp.einsum("kim,km->im", scale, pulled)
        else:
            precision = scale[:, None] * precision * scale[None]
            pulled = scale * pulled
        lower = _cholesky(jnp.eye(len(scale))[..., None] + precision)
        return lower, _solve(lower, pulled)


class PartlyCentred(Reparametrisation):
    r"""Partly centred random effects, nearly standard normal given their hyperparameters.

    By their prior, effects $x = \mu + S z$ are standard normal in $z$. If the data give $x = m$
    with a precision $P$, then $z$ is $N(M, Q^{-1})$ given $\mu$ and $S$, where
    $Q = 1 + S^\top P S$ and $Q M = S^\top P (m - \mu)$. The new parameters are
    $\xi = L^\top (z - M)$ with $L L^\top = Q$. They are non-centred without information from the
    data ($P = 0$), and centred with much information. The effects of one group are centred
    together, since the same data inform them. The posterior itself does not change.

    `by_data` has P and P m of each block of effects.

    Source: Papaspiliopoulos, Roberts & Sköld (2007), with a weight between the two ways from data
    and prior.
    """

    by_data: tuple[Information, ...]
    centring: "Centring" = eqx.field(static=True)

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return the unconstrained parameters, and log |det J|."""
        return self.centring.ways[0](self.by_data, z)

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return the new parameters ξ for unconstrained parameters x."""
        return self.centring.ways[1](self.by_data, x)


class Centring:
    """Fits `PartlyCentred`, with minus the derivative of the likelihood's score as information.

    `dependent` are the indices of all random effects, `others` those of all other parameters.
    """

    kind = "partly centred"
    evaluated_anew = False

    def __init__(self, problem: Problem):
        self._problem = problem
        self._sites = problem.sites
        self._blocks, self._order = _effect_blocks(problem)
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
            precision, weighted = _information(x[:, block.places], score[:, block.places])
            arrays |= {f"precision {i}": precision, f"weighted {i}": weighted}
        return arrays

    def around(
        self,
        position: Float[np.ndarray, " dimension"],
        gradients: Callable[[Float[np.ndarray, "n dimension"]], Float[np.ndarray, "n dimension"]],
    ) -> Arrays:
        """Return the arrays fitted to the log density around a position.

        Args:
            position: unconstrained parameters.
            gradients: returns gradients of the log density at positions.
        """

        def by_likelihood(x):
            return gradients(x) - np.asarray(self._by_prior(x))

        arrays = {}
        slope = by_likelihood(position[None])[0]
        for i, (block, prior) in enumerate(zip(self._blocks, self._given(position), strict=True)):
            # 1. −∂score/∂x of the effects x of each group: their precision given the data.
            location, factor = (np.moveaxis(np.asarray(a), -1, 0) for a in prior)
            places = block.places.T
            known, eigenvalues = _informed(_curvature_by_group(by_likelihood, position, places))
            # 2. P in the directions that data inform, and P m = P x + score.
            score = np.where(np.isfinite(slope), slope, 0.0)[places]
            by_data, pulled = _precision_and_pull(known, eigenvalues, position[places], score)
            # 3. From standardised effects to x = μ + S z: the precision is S⁻ᵀ P S⁻¹, and P m
            # moves by P μ.
            to_standard = np.linalg.inv(factor)
            by_data = np.einsum("mki,mkl,mlj->mij", to_standard, by_data, to_standard)
            pulled = np.einsum("mki,mk->mi", to_standard, pulled)
            pulled = pulled + np.einsum("mij,mj->mi", by_data, location)
            arrays[f"precision {i}"] = np.moveaxis(by_data, 0, -1)
            arrays[f"weighted {i}"] = pulled.T
        return arrays

    def precision(self, optimiser: Optimiser, z: Float[np.ndarray, " dimension"]) -> np.ndarray:
        """Return minus the Hessian by z, with 1 for random effects."""
        return precision_at(optimiser, z, self.others)

    def restored(self, arrays: Mapping[str, Any]) -> PartlyCentred:
        """Return the reparametrisation of such arrays."""
        by_data = []
        for i in range(len(self._blocks)):
            precision = jnp.asarray(arrays[f"precision {i}"])
            by_data.append((precision, jnp.asarray(arrays[f"weighted {i}"])))
        return PartlyCentred(tuple(by_data), self)

    def _forward(self, by_data: Sequence[Information], xi: Array) -> tuple[Array, Array]:
        """Return the unconstrained parameters and log |det J|."""
        x = xi
        log_det = jnp.zeros(())
        values = {}
        # Values come first that a prior of random effects depends on.
        for step in self._order:
            if isinstance(step, str):
                values[step] = self._sites[step].value(x, values)[0]
                continue
            places = self._blocks[step].places
            # L Lᵀ = 1 + SᵀPS, so that z = L⁻ᵀ(L⁻¹Q M + ξ) and log|det J| = −Σ log Lᵢᵢ.
            lower, mean = self._blocks[step].given(by_data[step], self._sites, values)
            x = x.at[places].set(_solve(lower, mean + xi[places], transposed=True))
            log_det = log_det - jnp.sum(jnp.log(jnp.diagonal(lower)))
        return x, log_det

    def _inverse(self, by_data: Sequence[Information], x: Array) -> Array:
        """Return ξ of unconstrained parameters."""
        xi, (values, _) = x, constrained(self._sites, x)
        for block, of_block in zip(self._blocks, by_data, strict=True):
            # ξ = Lᵀ z − L⁻¹ Q M.
            lower, mean = block.given(of_block, self._sites, values)
            upper = jnp.swapaxes(lower * jnp.tri(len(lower))[..., None], 0, 1)
            xi = xi.at[block.places].set(_products(upper, x[block.places]) - mean)
        return xi

    def _standards(self, x: Array) -> list[tuple[Array, Array]]:
        """Return location and Cholesky factor of each block's prior at a position."""
        values, _ = constrained(self._sites, x)
        found = [block.prior(self._sites, values) for block in self._blocks]
        return [(m, s if s.ndim == 3 else jnp.eye(len(s))[..., None] * s) for m, s in found]

    def _score(self, x: Array, gradient: Array) -> tuple[Array, Array]:
        """Return each effect x = μ + S z, and the score of the likelihood by x.

        The hyperparameters are fixed, so that the score by x is S⁻ᵀ times the score by z.
        """
        by_likelihood = gradient - jax.grad(self._problem.log_prior)(x)
        own, score = x, by_likelihood
        for block, (location, factor) in zip(self._blocks, self._standards(x), strict=True):
            places = block.places
            own = own.at[places].set(location + _products(factor, x[places]))
            score = score.at[places].set(_solve(factor, by_likelihood[places], transposed=True))
        return own, score


def centring_of(problem: Problem) -> Centring | None:
    """Return what fits `PartlyCentred`, or None if no prior depends on another parameter."""
    return Centring(problem) if has_dependent(problem) else None


def has_dependent(problem: Problem) -> bool:
    """Whether the prior of a parameter depends on another one."""
    return any(site.standardised is not None for site in problem.sites.values())


def _curvature_by_group(
    gradients: Callable[[np.ndarray], np.ndarray],
    position: Float[np.ndarray, " dimension"],
    places: Int[np.ndarray, "member number"],
) -> Float[np.ndarray, "member number number"]:
    """Return minus the derivative of the gradient by each of a group's effects.

    An effect is moved in all groups at once, so that a thousand groups cost no more gradients than
    two. If groups influence each other, each group is moved separately.
    """
    (members, number), dimension = places.shape, len(position)
    # 1. One direction per effect, for all groups at once.
    of_all = np.zeros((number, dimension))
    of_all[np.arange(number)[:, None], places.T] = 1.0
    # 2. A test direction with random signs, half of the groups up and half of them down.
    tried = np.zeros((1, dimension))
    signs = np.repeat(np.where(np.arange(members) % 2, 1.0, -1.0)[:, None], number, axis=1)
    tried[0, places] = np.random.default_rng(0).permuted(signs, axis=0)
    # 3. Derivatives −H v, by `(direction, group, effect)`.
    fell = falls(gradients, position, np.concatenate([of_all, tried]))[:, places]
    found = np.moveaxis(fell[:-1], 0, 1)
    along = fell[-1]
    # 4. For independent groups the block-diagonal Hessian explains the test direction.
    missed = along - np.einsum("mij,mi->mj", found, tried[0, places])
    if np.linalg.norm(missed) > _APART * np.linalg.norm(along):
        each = falls(gradients, position, np.eye(dimension)[places.ravel()])
        each = each.reshape(members, number, dimension)
        found = np.stack([of_group[:, own] for of_group, own in zip(each, places, strict=True)])
    return found


class _Asked(dict[str, Array]):
    """Values by path that record which of them are read."""

    def __init__(self, values: Mapping[str, Array]):
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, path: str) -> Array:
        self.asked.add(path)
        return super().__getitem__(path)


def _effect_blocks(problem: Problem) -> tuple[list[Block], list[str | int]]:
    """Return the blocks, and the order of evaluation: paths of sites and numbers of blocks.

    Sites with the same groups, on which no other prior depends, form one block, which comes last.
    """
    sites = problem.sites
    # 1. Evaluating all priors once shows which values other priors depend on.
    values = _Asked(constrained(sites, jnp.zeros(problem.dimension))[0])
    ways = {path: site.way(values) for path, site in sites.items()}
    blocks: list[Block] = []
    order: list[str | int] = []
    together: dict[Any, list[str]] = {}
    # 2. A site that others depend on, or of vectors, is a block at its place in the order.
    for path, site in sites.items():
        if site.standardised is not None:
            dims = site.standardised.dims
            if dims and path not in values.asked and isinstance(ways[path], AffineTransform):
                together.setdefault((dims, _unconstrained_shape(site)), []).append(path)
                continue
            order.append(len(blocks))
            blocks.append(Block((path,), _indices(site, ways[path])))
        order.append(path)
    # 3. The effects of the same groups form one block, unless they are too many.
    for found in together.values():
        for paths in [found] if len(found) <= _TOGETHER else [[path] for path in found]:
            order.append(len(blocks))
            places = np.concatenate([_indices(sites[path], ways[path]) for path in paths])
            blocks.append(Block(tuple(paths), places))
    return blocks, order


def _indices(site: Site, way: Transform | None) -> Int[np.ndarray, "number member"]:
    """Return the indices of a site's effects; each vector belongs to one group."""
    number = way.scale_tril.shape[-1] if isinstance(way, LowerCholeskyAffine) else 1
    return np.arange(site.start, site.start + site.size).reshape(-1, number).T


def _unconstrained_shape(site: Site) -> tuple[int, ...]:
    """Return the shape of a site's unconstrained parameters."""
    return site.bijector.inverse_shape(site.shape)


def _information(x: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the information of the data on a block, by draws and the likelihood's score there.

    The score of a normal likelihood is linear in the effects, with minus the precision as slope:
    score = P (m − x). Correlations from few draws are shrunk.

    Shapes: `(draw, effect, group)`; returns those of `Information`.
    """
    # 1. Axes (draw, group, effect), as NumPy's linear algebra wants them.
    x = np.moveaxis(x, -1, 1)
    score = np.moveaxis(score, -1, 1)
    draws, _, number = x.shape
    # 2. Effects in standard deviations; a group without finite values has no information.
    sd = np.std(x, axis=0)
    usable = (np.isfinite(score).all(0) & np.isfinite(x).all(0) & (sd > 0)).all(-1)
    sd = np.where(usable[:, None], sd, 1.0)
    mean = np.where(usable[:, None], x.mean(0), 0.0)
    deviation = np.where(usable[:, None], (x - mean) / sd, 0.0)
    score = np.where(usable[:, None], score * sd, 0.0)
    # 3. Regression of scores on effects: P = −Cov(x, x)⁻¹ Cov(x, score), with shrunk off-diagonals.
    share = draws / (draws + _FEW_DRAWS * number) if number <= _TOGETHER else 0.0
    shrinkage = np.where(np.eye(number), 1.0, share)
    of_effects, of_scores = (
        shrinkage * np.einsum("dmi,dmj->mij", deviation, v) / draws for v in (deviation, score)
    )
    of_effects = np.where(usable[:, None, None], of_effects, np.eye(number))
    slope = np.linalg.solve(of_effects, -of_scores)
    # 4. P in the directions that data inform, back in the units of x.
    precision, weighted = _precision_and_pull(*_informed(slope), mean / sd, score.mean(0))
    return np.moveaxis(precision / (sd[:, :, None] * sd[:, None]), 0, -1), (weighted / sd).T


def _informed(precision: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return eigenvectors and eigenvalues of a precision, zero vectors for negative eigenvalues."""
    eigenvalues, vectors = np.linalg.eigh((precision + np.swapaxes(precision, -1, -2)) / 2)
    return np.where((eigenvalues > 0)[:, None], vectors, 0.0), eigenvalues


def _precision_and_pull(
    known: np.ndarray, eigenvalues: np.ndarray, at: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the precision P in the informed directions V, and P m = P x + V Vᵀ score."""
    precision = np.einsum("mik,mk,mjk->mij", known, eigenvalues, known)
    along = np.einsum("mik,mjk,mj->mi", known, known, score)
    return precision, np.einsum("mij,mj->mi", precision, at) + along


def _products(matrix: Array, vector: Array) -> Array:
    """Return the product of each group's matrix and vector."""
    return jnp.sum(matrix * vector, axis=1)


def _cholesky(matrix: Float[Array, "number number member"]) -> Float[Array, "number number member"]:
    """Return the lower Cholesky factor of each matrix, from its lower triangle."""
    if len(matrix) > _TOGETHER:
        return jnp.moveaxis(jnp.linalg.cholesky(jnp.moveaxis(matrix, -1, 0)), 0, -1)
    columns: list[Array] = []
    # Column by column for all groups at once, since LAPACK would take one after the other:
    # l_k = a_k / sqrt(a_kk), and then A ← A − l_k l_kᵀ.
    for k in range(len(matrix)):
        columns.append(matrix[:, k] / jnp.sqrt(matrix[k, k]))
        matrix = matrix - columns[k][:, None] * columns[k]
    return jnp.stack(columns, axis=1)


def _solve(
    lower: Array, right: Float[Array, "number member"], *, transposed: bool = False
) -> Array:
    """Return the solution v of L v = right, or of Lᵀ v = right, for each lower factor L."""
    # Substitution for all groups at once, as above.
    if len(right) > _TOGETHER:
        solve = partial(solve_triangular, trans=int(transposed), lower=True)
        return jax.vmap(solve, in_axes=-1, out_axes=-1)(lower, right)
    found: dict[int, Array] = {}
    for i in reversed(range(len(right))) if transposed else range(len(right)):
        found[i] = right[i] / lower[i, i]
        right = right - (lower[i] if transposed else lower[:, i]) * found[i]
    return jnp.stack([found[i] for i in range(len(right))])
