"""Coordinates in which chains and members move: the posterior's own, or others that are made to
suit it.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..._jax.compiling import Program
from ..._jax.devices import computing_devices
from ..._runs.journal import Arrays
from ...errors import MismatchError

_BATCH = 100


@runtime_checkable
class Frame(Protocol):
    """A way from coordinates to positions and back, a pytree of arrays.

    One whose ways have most of their work in common has a method `both_ways`, so that one program
    serves both. One that may be off, so that its coordinates are the plain ones, has a flag `on`.
    """

    def position(
        self, xi: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """The position that coordinates stand for, and the log of the volume that the way there
        stretches.
        """
        ...

    def coordinates(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The coordinates of a position."""
        ...


class Plain(eqx.Module):
    """The unconstrained coordinates themselves."""

    kind: ClassVar[str] = "plain"

    def position(
        self, xi: Float[Array, " dimension"]
    ) -> tuple[Float[Array, " dimension"], Float[Array, ""]]:
        """The position that coordinates stand for, and the log of the volume that the way there
        stretches.
        """
        return xi, jnp.zeros(())

    def coordinates(self, x: Float[Array, " dimension"]) -> Float[Array, " dimension"]:
        """The coordinates of a position."""
        return x


def is_on(frame: Frame) -> bool:
    """Whether coordinates in a frame may be others than the plain ones."""
    return not isinstance(frame, Plain) and bool(getattr(frame, "on", True))


@runtime_checkable
class FrameMaker(Protocol):
    """Makes frames from draws and the gradients of the log density there, as arrays that a journal
    can keep.

    `kind` says in a word what its coordinates are.
    """

    kind: str

    def frame(
        self,
        positions: Float[np.ndarray, "n dimension"],
        gradients: Float[np.ndarray, "n dimension"],
    ) -> Arrays: ...

    def restored(self, arrays: Arrays) -> Frame: ...


def arrays_of(frame: Any) -> Arrays:
    """A frame as arrays that a journal can keep."""
    return {f"leaf {i}": np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(frame))}


def frame_of(arrays: Mapping[str, Any], like: Any) -> Any:
    """The frame of such arrays, of the kind of another one.

    Raises:
        MismatchError: for arrays of a checkpoint that another version of the package wrote.
    """
    structure = jax.tree.structure(like)
    if {f"leaf {i}" for i in range(structure.num_leaves)} - {*arrays}:
        raise MismatchError(
            "the checkpoint holds coordinates of another version of bayes_dasl: delete it, and fit "
            "anew"
        )
    return jax.tree.unflatten(
        structure, [jnp.asarray(arrays[f"leaf {i}"]) for i in range(structure.num_leaves)]
    )


def moved(
    log_density: Callable[[Array], Array], frame: Frame, xi: Float[Array, " dimension"]
) -> Float[Array, ""]:
    """The log density of coordinates in a frame."""
    if isinstance(frame, Plain):
        return log_density(xi)
    x, log_volume = frame.position(xi)
    value = log_density(x) + log_volume
    return jnp.where(jnp.isnan(value), -jnp.inf, value)


def moved_gradient(
    value_and_gradient: Callable[[Array], tuple[Array, Array]],
    frame: Frame,
    xi: Float[Array, " dimension"],
) -> tuple[Float[Array, ""], Float[Array, " dimension"]]:
    """The log density of coordinates in a frame, and its gradient by them."""
    if isinstance(frame, Plain):
        return value_and_gradient(xi)
    (x, log_volume), pull = jax.vjp(frame.position, xi)
    value, gradient = value_and_gradient(x)
    return value + log_volume, pull((gradient, jnp.ones(())))[0]


def positions(frame: Frame, xi: Float[np.ndarray, "n dimension"]) -> tuple[np.ndarray, np.ndarray]:
    """Positions of many coordinates, and the log volumes."""
    if hasattr(frame, "both_ways"):
        return _in_batches(_both_ways, (frame, False), (xi,))  # pyright: ignore
    return _in_batches(_positions, (frame,), (xi,))  # pyright: ignore


def coordinates(
    frame: Frame, x: Float[np.ndarray, "n dimension"]
) -> Float[np.ndarray, "n dimension"]:
    """The coordinates of many positions in a frame."""
    if hasattr(frame, "both_ways"):
        return with_volumes(frame, x)[0]
    return _in_batches(_coordinates, (frame,), (x,))[0]


def with_volumes(
    frame: Frame, x: Float[np.ndarray, "n dimension"]
) -> tuple[np.ndarray, np.ndarray]:
    """The coordinates of many positions in a frame that knows both ways, and the log volumes."""
    return _in_batches(_both_ways, (frame, True), (x,))  # pyright: ignore


def entered(
    frame: Frame,
    x: Float[np.ndarray, "n dimension"],
    lp: Float[np.ndarray, " n"],
    gradient: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Coordinates of positions in a frame, with log densities and gradients there;
    no solver runs.
    """
    return _in_batches(_entered, (frame,), (x, lp, gradient))


def left(
    frame: Frame,
    xi: Float[np.ndarray, "n dimension"],
    lp: Float[np.ndarray, " n"],
    gradient: np.ndarray,
) -> tuple[np.ndarray, ...]:
    """Positions of coordinates in a frame, with log densities and gradients of their own; no solver
    runs.
    """
    return _in_batches(_left, (frame,), (xi, lp, gradient))


def _each(one: Callable[..., Any], *rows: Array) -> Any:
    """What becomes of each row: on a CPU one after another, whose work fits its cache; on
    accelerators all at once.
    """
    if computing_devices()[0].platform == "cpu":
        return jax.lax.map(lambda row: one(*row), rows)
    return jax.vmap(one)(*rows)


@Program
def _positions(frame, xi):
    return _each(frame.position, xi)


@Program
def _coordinates(frame, x):
    return (_each(frame.coordinates, x),)


@Program
def _both_ways(frame, back, v):
    return _each(lambda v: frame.both_ways(v, back), v)


@Program
def _entered(frame, x, lp, gradient):
    def one(x, lp, gradient):
        xi = frame.coordinates(x)
        (_, log_volume), pull = jax.vjp(frame.position, xi)
        return xi, lp + log_volume, pull((gradient, jnp.ones(())))[0]

    return _each(one, x, lp, gradient)


@Program
def _left(frame, xi, lp, gradient):
    def one(xi, lp, gradient):
        x, log_volume = frame.position(xi)
        slope = jax.grad(lambda q: frame.position(q)[1])(xi)
        (by_position,) = jax.vjp(frame.coordinates, x)[1](gradient - slope)
        return x, lp - log_volume, by_position

    return _each(one, xi, lp, gradient)


def _in_batches(
    program: Any, shared: tuple, arrays: tuple[np.ndarray, ...]
) -> tuple[np.ndarray, ...]:
    """Results for any number of rows; always so many at once that one compiled program serves."""
    number, parts = len(arrays[0]), []
    for begin in range(0, number, _BATCH):
        index = np.minimum(np.arange(begin, begin + _BATCH), number - 1)
        parts.append(program(*shared, *(np.asarray(a)[index] for a in arrays)))
    return tuple(
        np.concatenate([np.asarray(p) for p in column])[:number]
        for column in zip(*parts, strict=True)
    )
