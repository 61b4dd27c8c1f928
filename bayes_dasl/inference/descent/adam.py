"""Descent of several members at once, with a transform and a learning rate of its own for each
group of random leaves.

Where networks sit inside solvers each member moves in conditional coordinates of its own
(`coordinates`): their last layers then follow what moves.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float

from ..._findings import Finding
from ..._jax.trace import traced
from ..._runs.journal import Arrays, Journal, ProgressBar
from ..engine import Facts
from ..problem import Problem, Terms
from ..reparametrisations.reference import References, is_sound, references_of
from ..reparametrisations.reparametrisation import Identity, Reparametrisation
from ..sharding import Sharded
from .descent_settings import WINDOW, Descent

GROUPS = ("science", "network")

# Over a window a group that goes straight on gets a higher learning rate, one that goes to and fro
# a lower one.
_STRAIGHT, _TO_AND_FRO = 0.4, 0.2
_FASTER, _SLOWER = 1.3, 0.6
_HIGHEST, _LOWEST = 100.0, 1e-3  # of a learning rate, as multiples of the first one
_WORTH_HAVING = 0.05  # nats
_LARGEST_GRADIENT = 10.0  # norm, per group
_NEW_FRAMES = (0, 2, 6, 14, 30, 62)  # windows before which members get frames around where they are

type Objective = Callable[[Array, Any, Array], tuple[Array, Terms]]
"""From a position, what is a member's own, and a random key: what to lower, and the terms of the
log density.
"""


@dataclasses.dataclass(frozen=True)
class Descended:
    """Where the members ended, `(member, dimension)`, and their curves `(member, step)` by term.

    `visited` is where they were after each window, `weights` how often each saw each datum.
    `stopped_early` is none where all steps were to be taken. `references` make the coordinates in
    which members moved; none for plain ones.
    """

    positions: Float[np.ndarray, "member dimension"]
    visited: Float[np.ndarray, "member window dimension"]
    curves: dict[str, np.ndarray]
    weights: dict[str, np.ndarray]
    steps: int
    stopped_early: bool | None
    references: References | None = None

    @property
    def facts(self) -> Facts:
        """How the descent ended."""
        ended = {} if self.stopped_early is None else {"descent_stopped": int(self.stopped_early)}
        return {"descent_steps": self.steps, **ended}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Whether it ended by itself."""
        if self.stopped_early is not False:
            return ()
        message = f"the loss still fell after {self.steps} steps"
        return (Finding("warning", "descent", message, "allow more steps"),)

    def curves_of(self, member: int) -> dict[str, np.ndarray]:
        """The curves of one member."""
        return {name: values[member : member + 1] for name, values in self.curves.items()}


@dataclasses.dataclass(frozen=True)
class Loss:
    """What members lower, and the loss by which they are judged,
    on data held out if there are any.
    """

    objective: Objective
    judge: Callable[[Array, Any], Array]


def descend(
    problem: Problem,
    descent: Descent,
    loss: Loss,
    x: Float[np.ndarray, "member dimension"],
    own: Any,
    *,
    key: Array,
    journal: Journal,
    bar: ProgressBar,
) -> Descended:
    """Adam on a loss, clipped, by group, from several positions at once.

    A step is measured in widths of the prior, whatever the unit of a parameter; last layers in
    conditional coordinates are unit normals there. A member keeps the best position of any window,
    and has done when none was better by a twentieth of a nat for as long as its patience.

    Args:
        problem: the posterior, without the data that are held out.
        descent: steps, learning rates and patience.
        loss: what to lower, and what to judge by.
        x: where members begin.
        own: what is a member's own, a tree with a leading axis of members.
        key: a JAX random key.
        journal: keeps every window.
        bar: shows how far members have come.
    """
    references = None if descent.coordinates == "plain" else references_of(problem)
    frames = _Frames(references)
    program = _Program(descent, loss, problem, frames, x, own)
    state, done, curves, visited = program.first(x), 0, [], []
    windows = -(-descent.steps // WINDOW)
    bar.start("descending", windows * WINDOW)
    held: Arrays = {}
    while done < windows and not np.all(state["stopped"]):
        if done in _NEW_FRAMES:
            held = journal.step(
                f"frames {done + 1}", functools.partial(frames.around, state["at"], held)
            )
            state = program.entered(state, held)
        work = functools.partial(program.window, state, held, own, jax.random.fold_in(key, done))
        arrays = journal.step(f"window {done + 1}", work)
        state = {n: v for n, v in arrays.items() if not n.startswith("curve/")}
        curves.append(
            {n.removeprefix("curve/"): v for n, v in arrays.items() if n.startswith("curve/")}
        )
        visited.append(state["at"])
        done += 1
        bar.advance(WINDOW, f"loss {np.nanmin(curves[-1]['loss'][:, -1]):.4g}")
    joined = {n: np.concatenate([c[n] for c in curves], axis=1) for n in curves[0]}
    stopped = None if descent.patience is None else bool(np.all(state["stopped"]))
    return Descended(
        state["best"],
        np.stack(visited, axis=1),
        joined,
        own["weights"],
        done * WINDOW,
        stopped,
        references,
    )


class _Frames:
    """The coordinates in which members move: conditional ones of each, or the plain ones of all."""

    def __init__(self, references: References | None):
        self._references = references

    def of(self, held: Any) -> Reparametrisation:
        """The frame of one member."""
        return Identity() if self._references is None else self._references.restored(held)

    def widths(self, problem: Problem) -> Float[np.ndarray, " dimension"]:
        """By how much a coordinate varies."""
        widths = problem.prior_widths()
        return widths if self._references is None else self._references.widths(widths)

    def blank(self) -> dict[str, Array]:
        """The arrays of a frame, by their shapes only."""
        leaves = [] if self._references is None else jax.tree.leaves(self._references.like)
        return {f"leaf {i}": jnp.zeros(leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)}

    def around(self, x: Float[np.ndarray, "member dimension"], before: Arrays) -> Arrays:
        """Frames around where members are; where one has none, it keeps that from before, or takes
        another's.
        """
        if self._references is None:
            return {}
        found = [self._references.from_draws(row[None]) for row in x]
        good = [is_sound(frame) for frame in found]
        spare = next((frame for frame, fine in zip(found, good, strict=True) if fine), found[0])
        kept = []
        for i, (frame, fine) in enumerate(zip(found, good, strict=True)):
            own = {name: leaf[i] for name, leaf in before.items()} or spare
            kept.append(frame if fine else own)
        return {name: np.stack([frame[name] for frame in kept]) for name in spare}


class _Program:
    """A window of steps for every member, compiled once."""

    def __init__(
        self,
        descent: Descent,
        loss: Loss,
        problem: Problem,
        frames: _Frames,
        x: np.ndarray,
        own: Any,
    ):
        self._descent, self._frames = descent, frames
        self._learning_rates = np.asarray([descent.science_rate, descent.network_rate])
        self._patience = np.inf if descent.patience is None else descent.patience
        network = problem.of_groups("network")
        everything = range(problem.dimension)
        self._of = {
            "science": np.asarray([i for i in everything if i not in set(network)], int),
            "network": np.asarray(network, int),
        }
        clipped = optax.chain(optax.clip_by_global_norm(_LARGEST_GRADIENT), optax.scale_by_adam())
        self._transform = optax.multi_transform(
            dict.fromkeys(GROUPS, clipped), {g: g for g in GROUPS}
        )
        at, mine = jnp.asarray(x[0]), jax.tree.map(lambda a: jnp.asarray(a[0]), own)
        held, self._widths = frames.blank(), jnp.asarray(frames.widths(problem))

        def objective(xi: Array, held: Any, own: Any, key: Array) -> tuple[Array, Terms]:
            return loss.objective(frames.of(held).forward(xi)[0], own, key)

        self._slope = traced(
            jax.value_and_grad(objective, has_aux=True), at, held, mine, jax.random.key(0)
        )
        self._judge = traced(loss.judge, at, mine)
        self._enter = jax.jit(jax.vmap(lambda x, held: frames.of(held).inverse(x)))
        blank = lambda x: self._transform.init(self._parted(x))  # noqa: E731
        self._blank = jax.jit(jax.vmap(blank))
        self._structure = jax.tree.structure(jax.eval_shape(blank, at))
        self._run = Sharded(self._of_a_member, len(x))

    def _parted(self, x: Array) -> dict[str, Array]:
        return {group: x[at] for group, at in self._of.items()}

    def _joined(self, parts: dict[str, Array]) -> Array:
        return (
            jnp.zeros(sum(len(at) for at in self._of.values()))
            .at[np.concatenate([*self._of.values()])]
            .set(jnp.concatenate([parts[group] for group in self._of]))
        )

    def first(self, x: Float[np.ndarray, "member dimension"]) -> Arrays:
        """The state of members that begin here."""
        members = len(x)
        return self._no_memory(x) | {
            "position": x,
            "at": x,
            "best": x,
            "lowest": np.full(members, np.inf),
            "learning_rates": np.tile(self._learning_rates, (members, 1)),
            "since_best": np.zeros(members, int),
            "stopped": np.zeros(members, bool),
        }

    def entered(self, state: Arrays, held: Arrays) -> Arrays:
        """The state in new frames: the same places, and nothing remembered of slopes in the old
        ones.
        """
        if not held:
            return state
        xi = np.asarray(
            self._enter(jnp.asarray(state["at"]), {n: jnp.asarray(v) for n, v in held.items()})
        )
        return state | self._no_memory(xi) | {"position": xi}

    def _no_memory(self, x: Float[np.ndarray, "member dimension"]) -> Arrays:
        """What the transforms remember of slopes before the first one."""
        return {
            f"memory/{i}": np.asarray(leaf)
            for i, leaf in enumerate(jax.tree.leaves(self._blank(x)))
        }

    def window(self, state: Arrays, held: Arrays, own: Any, key: Array) -> Arrays:
        """The state of all members after a window, and their curves."""
        keys = jax.random.split(key, len(state["position"]))
        return self._run((state, held, own, keys))

    def _of_a_member(self, item: Any) -> Any:
        state, held, own, key = item
        still = self._still(state)
        return jax.lax.cond(
            state["stopped"], lambda: still, lambda: self._advanced(state, held, own, key)
        )

    def _still(self, state: Any) -> Any:
        nothing = jnp.full(WINDOW, jnp.nan)
        return (
            state
            | {f"curve/{name}": nothing for name in ("loss", *Terms._fields)}
            | {"curve/held_out": nothing[:1]}
        )

    def _advanced(self, state: Any, held: Any, own: Any, key: Array) -> Any:
        memory = jax.tree.unflatten(
            self._structure, [state[f"memory/{i}"] for i in range(self._structure.num_leaves)]
        )

        def step(carry, number):
            x, memory, length = carry
            (loss, found), slope = self._slope(x, held, own, jax.random.fold_in(key, number))
            slope = jnp.where(jnp.isfinite(slope), slope * self._widths, 0.0)
            update: Any
            update, memory = self._transform.update(self._parted(slope), memory)
            moved = {g: -state["learning_rates"][i] * update[g] for i, g in enumerate(GROUPS)}
            length = length + jnp.stack([jnp.linalg.norm(moved[g]) for g in GROUPS])
            return (x + self._widths * self._joined(moved), memory, length), {
                "loss": loss,
                **found._asdict(),
            }

        begun = state["position"], memory, jnp.zeros(len(GROUPS))
        (x, memory, length), curve = jax.lax.scan(step, begun, jnp.arange(WINDOW))
        at = self._frames.of(held).forward(x)[0]
        held_out = self._judge(at, own)
        better = held_out < state["lowest"]
        since = jnp.where(held_out < state["lowest"] - _WORTH_HAVING, 0, state["since_best"] + 1)
        after = {
            "position": x,
            "at": at,
            "best": jnp.where(better, at, state["best"]),
            "lowest": jnp.where(better, held_out, state["lowest"]),
            "learning_rates": self._new_learning_rates(state, x, length),
            "since_best": since,
            "stopped": since >= self._patience,
        }
        leaves = {f"memory/{i}": leaf for i, leaf in enumerate(jax.tree.leaves(memory))}
        curves = {f"curve/{name}": values for name, values in curve.items()} | {
            "curve/held_out": held_out[None]
        }
        return after | leaves | curves

    def _new_learning_rates(self, state: Any, x: Array, length: Array) -> Array:
        if not self._descent.adaptive:
            return state["learning_rates"]
        away = self._parted((x - state["position"]) / self._widths)
        straight = jnp.stack([jnp.linalg.norm(away[g]) for g in GROUPS]) / jnp.where(
            length > 0, length, 1.0
        )
        factor = jnp.where(
            straight > _STRAIGHT, _FASTER, jnp.where(straight < _TO_AND_FRO, _SLOWER, 1.0)
        )
        return jnp.clip(
            state["learning_rates"] * factor,
            _LOWEST * self._learning_rates,
            _HIGHEST * self._learning_rates,
        )
