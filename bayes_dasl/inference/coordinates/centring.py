"""Coordinates of numbers whose priors depend on others: centred as far as the data say what they are."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform, LowerCholeskyAffine, Transform

from ..._jax.trace import traced
from ..._runs.journal import Arrays
from ..problem import Problem
from ..sites import Site


class PartlyCentred(eqx.Module):
    r"""Coordinates in which numbers with a dependent prior are nearly standard normal, given what they depend on.

    A number $x \sim N(\mu, s)$, of which the data say $x = m$ with a precision $p$, is $N(M, P^{-1/2})$ given $\mu$ and
    $s$, where $P = p + s^{-2}$ and $P M = p m + s^{-2} \mu$. Its coordinate is $\xi = P^{1/2} (x - M)$: it is
    non-centred where the data say nothing ($p = 0$), and centred where they say all. The posterior stays what it is.

    `precision` and `middle` are p and m of each number of the flat vector, on its unconstrained scale; p is zero of all
    whose prior does not depend on others.

    Source: Papaspiliopoulos, Roberts & Sköld (2007), whose weight between the two ways is here what data and prior say.
    """

    precision: Float[Array, " dimension"]
    middle: Float[Array, " dimension"]
    centring: "Centring" = eqx.field(static=True)

    def position(self, xi: Float[Array, " dimension"]) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """The position that coordinates stand for, and the log of the volume that the way there stretches."""
        return self.centring.ways[0](self.precision, self.middle, xi)

    def coordinates(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The coordinates of a position."""
        return self.centring.ways[1](self.precision, self.middle, x)


class Centring:
    """Makes frames from draws: what data say of a number is how the score of the likelihood falls with it."""

    def __init__(self, problem: Problem):
        self._problem = problem
        sites = problem.sites.values()
        self._depends = np.repeat([site.standardised is not None for site in sites], [site.size for site in sites])
        nothing = jnp.zeros(problem.dimension)
        self.like = PartlyCentred(nothing, nothing, self)
        self.ways = tuple(traced(way, nothing, nothing, nothing) for way in (self._position, self._coordinates))
        self._scores = jax.jit(jax.vmap(self._score))

    def frame(self, positions: Float[np.ndarray, "n dimension"], gradients: Float[np.ndarray, "n dimension"]) -> Arrays:
        """The arrays of the frame that draws, and the gradients of the log density there, ask for."""
        x, score = map(np.asarray, self._scores(positions, gradients))
        spread = np.var(x, axis=0)
        slope = np.mean((x - x.mean(0)) * score, axis=0) / np.where(spread > 0, spread, 1.0)
        told = self._depends & (slope < 0) & np.isfinite(slope) & (spread > 0)
        precision = np.where(told, -slope, 0.0)
        middle = np.where(told, x.mean(0) + score.mean(0) / np.where(told, precision, 1.0), 0.0)
        return {"precision": precision, "middle": middle}

    def restored(self, arrays: Mapping[str, Any]) -> PartlyCentred:
        """The frame of such arrays."""
        return PartlyCentred(jnp.asarray(arrays["precision"]), jnp.asarray(arrays["middle"]), self)

    def _position(self, precision: Array, middle: Array, xi: Array) -> tuple[Array, Array]:
        x, volume, values = xi, jnp.zeros(()), {}
        for path, site in self._problem.sites.items():
            at = slice(site.start, site.start + site.size)
            if (way := site.way(values)) is not None:
                p, m, at_xi = _of(site, precision, middle, xi)
                mean, factor = _told(way, p, m)
                if factor.ndim > at_xi.ndim:
                    standard = mean + jnp.linalg.solve(jnp.swapaxes(factor, -1, -2), at_xi[..., None])[..., 0]
                    factor = jnp.diagonal(factor, axis1=-2, axis2=-1)
                else:
                    standard = mean + at_xi / factor
                x, volume = x.at[at].set(jnp.ravel(standard)), volume - jnp.sum(jnp.log(factor))
            values[path] = site.value(x, values)[0]
        return x, volume

    def _coordinates(self, precision: Array, middle: Array, x: Array) -> Array:
        xi, values = x, {}
        for path, site in self._problem.sites.items():
            at = slice(site.start, site.start + site.size)
            if (way := site.way(values)) is not None:
                p, m, z = _of(site, precision, middle, x)
                mean, factor = _told(way, p, m)
                away = z - mean
                moved = factor * away if factor.ndim == z.ndim else jnp.einsum("...ji,...j->...i", factor, away)
                xi = xi.at[at].set(jnp.ravel(moved))
            values[path] = site.value(x, values)[0]
        return xi

    def _score(self, x: Array, gradient: Array) -> tuple[Array, Array]:
        """Each number on its unconstrained scale, and the score of the likelihood there.

        Scores are those with what it depends on held: of a standardised number divided by the scale.
        """
        by_likelihood = gradient - jax.grad(self._problem.log_prior)(x)
        own, score, values = x, by_likelihood, {}
        for path, site in self._problem.sites.items():
            at = slice(site.start, site.start + site.size)
            if (way := site.way(values)) is not None:
                z, slope = _of(site, x, by_likelihood)
                own = own.at[at].set(jnp.ravel(way(z)))
                pulled = jax.vjp(lambda u, way=way: way.inv(u), way(z))[1](slope)[0]
                score = score.at[at].set(pulled.ravel())
            values[path] = site.value(x, values)[0]
        return own, score


def centring_of(problem: Problem) -> Centring | None:
    """What makes frames for the numbers of a problem whose priors depend on others; none where there are none."""
    return Centring(problem) if any(site.standardised is not None for site in problem.sites.values()) else None


def _of(site: Site, *vectors: Array) -> tuple[Array, ...]:
    """The parts of flat vectors that belong to a site, in its shape."""
    shape = site.bijector.inverse_shape(site.shape)
    return tuple(vector[site.start : site.start + site.size].reshape(shape) for vector in vectors)


def _told(way: Transform, precision: Array, middle: Array) -> tuple[Array, Array]:
    """Mean of standardised numbers given what they depend on, and a factor of their precision: of vectors a matrix."""
    if isinstance(way, LowerCholeskyAffine):
        factor = jnp.swapaxes(jnp.asarray(way.scale_tril), -1, -2)
        data = factor @ (precision[..., None] * jnp.asarray(way.scale_tril))
        both = jnp.eye(data.shape[-1]) + data
        at = factor @ (precision * (middle - way.loc))[..., None]
        return jnp.linalg.solve(both, at)[..., 0], jnp.linalg.cholesky(both)
    assert isinstance(way, AffineTransform)
    both = 1 + precision * jnp.square(way.scale)
    return precision * way.scale * (middle - way.loc) / both, jnp.sqrt(both)
