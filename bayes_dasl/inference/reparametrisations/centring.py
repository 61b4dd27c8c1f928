"""Random effects that are centred as far as the data inform them."""

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

# With this number of draws per effect, estimated correlations of a group's effects are halved.
_FEW_DRAWS = 10
# Up to this number, the effects of a group are centred together, with correlations between them.
_TOGETHER = 8
# Groups are treated as independent if at most this share of a change of the gradient comes from
# other groups.
_APART = 0.05

type Information = tuple[Float[Array, "_ _ _"], Float[Array, "_ _"]]
"""Information of the data on a block: a precision P, `(effect, effect, group)`, and P m for a mean
m, `(effect, group)`.
"""


class Block(NamedTuple):
    """Random effects that are centred together: one site, or several sites with the same groups.

    Args:
        paths: paths of the sites.
        places: indices of the effects in the flat vector, `(effect, group)`.
    """

    paths: tuple[str, ...]
    places: Int[np.ndarray, "number member"]

    def prior(self, sites: Sites, values: Mapping[str, Array]) -> tuple[Array, Array]:
        """Return the prior's location μ `(effect, group)` and scale S.

        S is `(effect, group)` for independent effects. For vectors it is a Cholesky factor,
        `(effect, effect, group)`.

        Args:
            sites: all sites by path.
            values: constrained values of the leaves on which the prior depends, by path.
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
        """Return the posterior of the standardised effects given their hyperparameters.

        This posterior is N(M, Q⁻¹), with M and Q as in `PartlyCentred`.

        Args:
            by_data: the information of the data on the block.
            sites: all sites by path.
            values: constrained values of the leaves on which the prior depends, by path.

        Returns:
            The Cholesky factor L of Q, `(effect, effect, group)`, and L⁻¹ Q M, `(effect, group)`.
        """
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

    By their prior, effects $x = \mu + S z$ are standard normal in $z$. If the data inform $x$ like
    a normal likelihood with mean $m$ and precision $P$, then $z$ is $N(M, Q^{-1})$ given $\mu$ and
    $S$. Here $Q = 1 + S^\top P S$ and $Q M = S^\top P (m - \mu)$. The new parameters are
    $\xi = L^\top (z - M)$ with $L L^\top = Q$.

    Without information from the data ($P = 0$) the effects are non-centred, and with much
    information they are centred. The effects of one group are centred together, since the same data
    inform them. The posterior itself does not change.

    Args:
        by_data: $P$ and $P m$ of each block of effects.
        centring: the object that fitted it.

    Source: Papaspiliopoulos, Roberts & Sköld (2007). Here data and prior determine how far effects
    are centred.
    """

    by_data: tuple[Information, ...]
    centring: "Centring" = eqx.field(static=True)

    def forward(
        self, z: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """Return the unconstrained parameters for new parameters ξ, and log |det J|."""
        return self.centring.ways[0](self.by_data, z)

    def inverse(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """Return the new parameters ξ for unconstrained parameters x."""
        return self.centring.ways[1](self.by_data, x)


class Centring:
    """Fits `PartlyCentred`.

    The information of the data on the effects is minus the derivative of the likelihood's score.
    The attribute `dependent` has the indices of all random effects, and `others` those of all other
    parameters.

    Args:
        problem: the posterior.
    """

    kind = "partly centred"
    evaluated_anew = False
    ends_early = False

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
        """Return the arrays of the reparametrisation, fitted to draws.

        Args:
            positions: the draws, as unconstrained parameters.
            gradients: gradients of the log density at the draws.

        Returns:
            P as `precision 0`, … and P m as `weighted 0`, …, for each block.
        """
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
        """Return the arrays of the reparametrisation, fitted to the log density around a position.

        Args:
            position: unconstrained parameters.
            gradients: returns gradients of the log density at many positions.

        Returns:
            P as `precision 0`, … and P m as `weighted 0`, …, for each block.
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
        """Return minus the Hessian by z, with rows and columns of the identity for random effects.

        Args:
            optimiser: evaluates gradients in the reparametrisation.
            z: the position.
        """
        return precision_at(optimiser, z, self.others)

    def restored(self, arrays: Mapping[str, Any]) -> PartlyCentred:
        """Return the reparametrisation from its arrays."""
        by_data = []
        for i in range(len(self._blocks)):
            precision = jnp.asarray(arrays[f"precision {i}"])
            by_data.append((precision, jnp.asarray(arrays[f"weighted {i}"])))
        return PartlyCentred(tuple(by_data), self)

    def _forward(self, by_data: Sequence[Information], xi: Array) -> tuple[Array, Array]:
        """Return the unconstrained parameters for new parameters ξ, and log |det J|.

        Args:
            by_data: the information of the data on each block.
            xi: new parameters ξ.
        """
        x = xi
        log_det = jnp.zeros(())
        values = {}
        # `_order` puts values before the random effects whose prior depends on them.
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
        """Return the new parameters ξ for unconstrained parameters.

        Args:
            by_data: the information of the data on each block.
            x: unconstrained parameters.
        """
        xi, (values, _) = x, constrained(self._sites, x)
        for block, of_block in zip(self._blocks, by_data, strict=True):
            # ξ = Lᵀ z − L⁻¹ Q M.
            lower, mean = block.given(of_block, self._sites, values)
            upper = jnp.swapaxes(lower * jnp.tri(len(lower))[..., None], 0, 1)
            xi = xi.at[block.places].set(_products(upper, x[block.places]) - mean)
        return xi

    def _standards(self, x: Array) -> list[tuple[Array, Array]]:
        """Return location and Cholesky factor of each block's prior at a position.

        They are `(effect, group)` and `(effect, effect, group)`.
        """
        values, _ = constrained(self._sites, x)
        found = [block.prior(self._sites, values) for block in self._blocks]
        return [(m, s if s.ndim == 3 else jnp.eye(len(s))[..., None] * s) for m, s in found]

    def _score(self, x: Array, gradient: Array) -> tuple[Array, Array]:
        """Return each effect x = μ + S z, and the score of the likelihood by x.

        The score is the derivative of the log likelihood. Since hyperparameters are fixed, the
        score by x is S⁻ᵀ times the score by z.

        Args:
            x: unconstrained parameters, in which effects are standardised.
            gradient: gradient of the log density at this position.

        Returns:
            Two vectors `(dimension,)`; elements of other parameters have no use.
        """
        by_likelihood = gradient - jax.grad(self._problem.log_prior)(x)
        own, score = x, by_likelihood
        for block, (location, factor) in zip(self._blocks, self._standards(x), strict=True):
            places = block.places
            own = own.at[places].set(location + _products(factor, x[places]))
            score = score.at[places].set(_solve(factor, by_likelihood[places], transposed=True))
        return own, score


def centring_of(problem: Problem) -> Centring | None:
    """Return a `Centring` for the model, or None if no prior depends on another parameter."""
    return Centring(problem) if has_dependent(problem) else None


def has_dependent(problem: Problem) -> bool:
    """Whether a parameter is non-centred, since its prior depends on another one."""
    return any(site.standardised is not None for site in problem.sites.values())


def _curvature_by_group(
    gradients: Callable[[np.ndarray], np.ndarray],
    position: Float[np.ndarray, " dimension"],
    places: Int[np.ndarray, "member number"],
) -> Float[np.ndarray, "member number number"]:
    """Return minus the derivatives of a group's gradient by the effects of the group.

    An effect is moved in all groups at once, so that a thousand groups need no more gradients than
    two. If this shows that groups influence each other, each group is moved separately.

    Args:
        gradients: returns gradients at many positions.
        position: unconstrained parameters.
        places: indices of the effects of each group, here named members.
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
    # 4. For independent groups the block-diagonal Hessian predicts the derivative along the test
    #    direction.
    missed = along - np.einsum("mij,mi->mj", found, tried[0, places])
    if np.linalg.norm(missed) > _APART * np.linalg.norm(along):
        each = falls(gradients, position, np.eye(dimension)[places.ravel()])
        each = each.reshape(members, number, dimension)
        found = np.stack([of_group[:, own] for of_group, own in zip(each, places, strict=True)])
    return found


class _Asked(dict[str, Array]):
    """Values by path, which record in `asked` the paths that are read."""

    def __init__(self, values: Mapping[str, Array]):
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, path: str) -> Array:
        self.asked.add(path)
        return super().__getitem__(path)


def _effect_blocks(problem: Problem) -> tuple[list[Block], list[str | int]]:
    """Divide the random effects into blocks.

    Sites with the same groups form one block if no other prior depends on them. These blocks come
    last.

    Args:
        problem: the posterior.

    Returns:
        The blocks, and the order of evaluation. In this order a text is the path of a site, and a
        number the index of a block.
    """
    sites = problem.sites
    # 1. Evaluating all priors once shows which values other priors depend on.
    values = _Asked(constrained(sites, jnp.zeros(problem.dimension))[0])
    ways = {path: site.way(values) for path, site in sites.items()}
    blocks: list[Block] = []
    order: list[str | int] = []
    together: dict[Any, list[str]] = {}
    # 2. A site of vectors, or one on which other sites depend, is a block of its own in the order.
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
    """Return the indices of a site's effects in the flat vector, `(effect, group)`.

    If the site has vectors, each vector has the effects of one group.

    Args:
        site: the site.
        way: its transform from standardised to unconstrained parameters.
    """
    number = way.scale_tril.shape[-1] if isinstance(way, LowerCholeskyAffine) else 1
    return np.arange(site.start, site.start + site.size).reshape(-1, number).T


def _unconstrained_shape(site: Site) -> tuple[int, ...]:
    """Return the shape of a site's unconstrained parameters."""
    return site.bijector.inverse_shape(site.shape)


def _information(x: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the information of the data on a block, from draws and the likelihood's score.

    The score of a normal likelihood is linear in the effects, with minus the precision as slope:
    score = P (m − x). Correlations from few draws are shrunk.

    Args:
        x: effects, `(draw, effect, group)`.
        score: derivatives of the log likelihood by the effects, `(draw, effect, group)`.

    Returns:
        P, `(effect, effect, group)`, and P m, `(effect, group)`.
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
    """Return eigenvectors and eigenvalues of each group's precision matrix.

    Eigenvectors of eigenvalues that are not positive are set to zero.

    Args:
        precision: `(group, effect, effect)`.
    """
    eigenvalues, vectors = np.linalg.eigh((precision + np.swapaxes(precision, -1, -2)) / 2)
    return np.where((eigenvalues > 0)[:, None], vectors, 0.0), eigenvalues


def _precision_and_pull(
    known: np.ndarray, eigenvalues: np.ndarray, at: np.ndarray, score: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the precision P from its eigenvectors V, and P m = P x + V Vᵀ score.

    Args:
        known: V for each group, with zeros for directions without information.
        eigenvalues: eigenvalues of P for each group.
        at: effects x of each group.
        score: derivatives of the log likelihood by the effects.
    """
    precision = np.einsum("mik,mk,mjk->mij", known, eigenvalues, known)
    along = np.einsum("mik,mjk,mj->mi", known, known, score)
    return precision, np.einsum("mij,mj->mi", precision, at) + along


def _products(matrix: Array, vector: Array) -> Array:
    """Return the product of each group's matrix and vector.

    Args:
        matrix: `(effect, effect, group)`.
        vector: `(effect, group)`.
    """
    return jnp.sum(matrix * vector, axis=1)


def _cholesky(matrix: Float[Array, "number number member"]) -> Float[Array, "number number member"]:
    """Return the lower Cholesky factor of each group's matrix; its lower triangle is read."""
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
    """Solve L v = right for each group's lower factor L.

    Args:
        lower: L, `(effect, effect, group)`.
        right: `(effect, group)`.
        transposed: whether to solve Lᵀ v = right.
    """
    # Substitution for all groups at once, as above.
    if len(right) > _TOGETHER:
        solve = partial(solve_triangular, trans=int(transposed), lower=True)
        return jax.vmap(solve, in_axes=-1, out_axes=-1)(lower, right)
    found: dict[int, Array] = {}
    for i in reversed(range(len(right))) if transposed else range(len(right)):
        found[i] = right[i] / lower[i, i]
        right = right - (lower[i] if transposed else lower[:, i]) * found[i]
    return jnp.stack([found[i] for i in range(len(right))])
