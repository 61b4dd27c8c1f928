"""Adam for several members at once, with a learning rate for each group of parameters.

A descent is divided into windows of 50 steps. After each window, positions are compared and
learning rates adapted.

With networks inside solvers, each member has its own conditional reparametrisation. In it the
weights of last layers follow from all other parameters.
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
from ..._runs.journal import Arrays, Journal, ProgressBar, concatenated
from ..engine import Facts
from ..problem import Problem, Terms
from ..reparametrisations.reference import References, is_sound, references_of
from ..reparametrisations.reparametrisation import Identity, Reparametrisation
from ..sharding import Sharded
from .descent_settings import WINDOW, Descent

GROUPS = ("science", "network")

# Straightness of a group's path over a window, |end − start| / length. The learning rate rises if
# it is above the first value, and falls if it is below the second one.
_STRAIGHT, _TO_AND_FRO = 0.4, 0.2
_FASTER, _SLOWER = 1.3, 0.6
# Limits of a learning rate, as multiples of the first one.
_HIGHEST, _LOWEST = 100.0, 1e-3
# An improvement by this many nats restarts the patience.
_WORTH_HAVING = 0.05
# The largest norm of the gradient of a group, to which gradients are clipped.
_LARGEST_GRADIENT = 10.0
# Reparametrisations are fitted anew before the windows with these numbers.
_REFITS = (0, 2, 6, 14, 30, 62)

type Objective = Callable[[Array, Any, Array], tuple[Array, Terms]]
"""Maps a position, a member's own arrays and a random key to the loss and its `Terms`."""


@dataclasses.dataclass(frozen=True)
class Descended:
    """The result of several descents.

    Args:
        positions: the best position of each member.
        visited: the position of each member after each window of 50 steps.
        curves: the loss and its terms by name, `(member, step)`. `held_out`, the loss that selects
            positions, is `(member, window)`.
        weights: how often each datum counts for each member, by observable.
        steps: number of steps.
        stopped_early: whether all members stopped early; None without a patience.
        references: fits the reparametrisation of the descent; None for the identity.
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
        """The number `descent_steps`, and `descent_stopped`: whether the descent stopped early."""
        ended = {} if self.stopped_early is None else {"descent_stopped": int(self.stopped_early)}
        return {"descent_steps": self.steps, **ended}

    @property
    def findings(self) -> tuple[Finding, ...]:
        """A warning if the descent took all steps without stopping early."""
        if self.stopped_early is not False:
            return ()
        message = f"the loss still fell after {self.steps} steps"
        return (Finding("warning", "descent", message, "allow more steps"),)

    def curves_of(self, member: int) -> dict[str, np.ndarray]:
        """Return the curves of one member, `(1, step)` by name."""
        return {name: values[member : member + 1] for name, values in self.curves.items()}


@dataclasses.dataclass(frozen=True)
class Loss:
    """The loss of a step, and the loss that selects the best position of a member.

    Args:
        objective: maps a position, the member's own arrays and a random key to the loss and its
            `Terms`.
        judge: maps a position and the member's own arrays to the loss that selects positions. This
            is minus the log likelihood of held-out data, if there are any.
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
    """Minimise a loss by Adam with clipped gradients, from several positions at once.

    Steps are in units of prior standard deviations. The weights of last layers in a conditional
    reparametrisation have unit scale instead. After every 50 steps `loss.judge` is evaluated.
    A member keeps the position with its lowest value. It stops if its patience passes without an
    improvement by 0.05 nats.

    Args:
        problem: the posterior, without held-out data.
        descent: steps, learning rates and patience.
        loss: the loss of a step, and the loss that selects positions.
        x: first positions.
        own: arrays that differ between members, such as `weights`, with a leading axis of members.
        key: a JAX random key.
        journal: stores the arrays of every window.
        bar: shows the progress.

    Returns:
        The best position of each member, and the curves of the loss.
    """
    references = None if descent.reparametrisation == "none" else references_of(problem)
    fits = _MemberFits(references)
    program = _Program(descent, loss, problem, fits, x, own)
    state = program.first(x)
    done = 0
    curves = []
    visited = []
    windows = -(-descent.steps // WINDOW)
    bar.start("descending", windows * WINDOW)
    held: Arrays = {}
    while done < windows and not np.all(state["stopped"]):
        # 1. At some windows, fit each member's reparametrisation around its position.
        if done in _REFITS:
            held = journal.step(
                f"frames {done + 1}", functools.partial(fits.around, state["at"], held)
            )
            state = program.entered(state, held)
        # 2. A window of steps for every member, with one evaluation by the judge.
        work = functools.partial(program.window, state, held, own, jax.random.fold_in(key, done))
        arrays = journal.step(f"window {done + 1}", work)
        state = {n: v for n, v in arrays.items() if not n.startswith("curve/")}
        curves.append(
            {n.removeprefix("curve/"): v for n, v in arrays.items() if n.startswith("curve/")}
        )
        visited.append(state["at"])
        done += 1
        bar.advance(WINDOW, f"loss {np.nanmin(curves[-1]['loss'][:, -1]):.4g}")
    # 3. The best position of each member, and all curves.
    stopped = None if descent.patience is None else bool(np.all(state["stopped"]))
    return Descended(
        state["best"],
        np.stack(visited, axis=1),
        concatenated(curves),
        own["weights"],
        done * WINDOW,
        stopped,
        references,
    )


class _MemberFits:
    """The conditional reparametrisation of each member, or the identity for all members.

    Args:
        references: fits the reparametrisations; None for the identity.
    """

    def __init__(self, references: References | None):
        self._references = references

    def of(self, held: Any) -> Reparametrisation:
        """Return the reparametrisation of one member from its arrays."""
        return Identity() if self._references is None else self._references.restored(held)

    def widths(self, problem: Problem) -> Float[np.ndarray, " dimension"]:
        """Return the scale of each parameter in the reparametrisation, `(dimension,)`."""
        widths = problem.prior_widths()
        return widths if self._references is None else self._references.widths(widths)

    def blank(self) -> dict[str, Array]:
        """Return arrays of zeros by name, in the shapes of a reparametrisation."""
        leaves = [] if self._references is None else jax.tree.leaves(self._references.like)
        return {f"leaf {i}": jnp.zeros(leaf.shape, leaf.dtype) for i, leaf in enumerate(leaves)}

    def around(self, x: Float[np.ndarray, "member dimension"], before: Arrays) -> Arrays:
        """Fit a reparametrisation around the position of each member.

        A member whose fit is not finite keeps its previous reparametrisation. Without a previous
        one it takes the reparametrisation of another member.

        Args:
            x: positions of the members.
            before: arrays of the previous reparametrisations, empty at first.

        Returns:
            Arrays of the reparametrisations, with a leading axis of members.
        """
        if self._references is None:
            return {}
        found = [self._references.from_draws(row[None]) for row in x]
        spare = next(filter(is_sound, found), found[0])
        kept = []
        for i, fit in enumerate(found):
            previous = {name: leaf[i] for name, leaf in before.items()}
            kept.append(fit if is_sound(fit) else previous or spare)
        return {name: np.stack([fit[name] for fit in kept]) for name in spare}


class _Program:
    """The compiled program that runs a window of steps for every member.

    The state of the members is a dict of arrays with a leading axis of members:

    - `position`: the parameters z of the reparametrisation; `at`: the unconstrained parameters x.
    - `best`: the best x so far; `lowest`: the value of `loss.judge` there.
    - `learning_rates`, and Adam's moments `memory/…`.
    - `since_best`: the number of windows without an improvement; `stopped`: whether the member has
      stopped.

    Args:
        descent: steps, learning rates and patience.
        loss: the loss of a step, and the loss that selects positions.
        problem: the posterior.
        fits: the reparametrisation of each member.
        x: first positions of the members.
        own: arrays that differ between members.
    """

    def __init__(
        self,
        descent: Descent,
        loss: Loss,
        problem: Problem,
        fits: _MemberFits,
        x: np.ndarray,
        own: Any,
    ):
        self._descent, self._fits = descent, fits
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
        at = jnp.asarray(x[0])
        mine = jax.tree.map(lambda a: jnp.asarray(a[0]), own)
        held = fits.blank()
        self._widths = jnp.asarray(fits.widths(problem))

        # The loss is a function of x, not a density of z, so it has no log |det J|.
        def objective(z: Array, held: Any, own: Any, key: Array) -> tuple[Array, Terms]:
            return loss.objective(fits.of(held).forward(z)[0], own, key)

        self._slope = traced(
            jax.value_and_grad(objective, has_aux=True), at, held, mine, jax.random.key(0)
        )
        self._judge = traced(loss.judge, at, mine)
        self._enter = jax.jit(jax.vmap(lambda x, held: fits.of(held).inverse(x)))
        blank = lambda x: self._transform.init(self._parted(x))  # noqa: E731
        self._blank = jax.jit(jax.vmap(blank))
        self._structure = jax.tree.structure(jax.eval_shape(blank, at))
        self._run = Sharded(self._of_a_member, len(x))

    def _parted(self, x: Array) -> dict[str, Array]:
        """Split a flat vector into the parameters of "science" and of "network"."""
        return {group: x[at] for group, at in self._of.items()}

    def _joined(self, parts: dict[str, Array]) -> Array:
        """Return the flat vector from the parameters of "science" and of "network"."""
        order = np.concatenate([*self._of.values()])
        flat = jnp.concatenate([parts[group] for group in self._of])
        return jnp.zeros(len(order)).at[order].set(flat)

    def first(self, x: Float[np.ndarray, "member dimension"]) -> Arrays:
        """Return the state of members at their first positions."""
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
        """Return the state in new reparametrisations, with the same x and Adam's moments reset.

        Args:
            state: the state of all members.
            held: arrays of the reparametrisations; without any the state does not change.
        """
        if not held:
            return state
        z = np.asarray(self._enter(jnp.asarray(state["at"]), jax.tree.map(jnp.asarray, held)))
        return state | self._no_memory(z) | {"position": z}

    def _no_memory(self, x: Float[np.ndarray, "member dimension"]) -> Arrays:
        """Return Adam's moments before the first gradient, as arrays by name."""
        leaves = enumerate(jax.tree.leaves(self._blank(x)))
        return {f"memory/{i}": np.asarray(leaf) for i, leaf in leaves}

    def window(self, state: Arrays, held: Arrays, own: Any, key: Array) -> Arrays:
        """Run a window of steps for every member.

        Args:
            state: the state of all members.
            held: arrays of their reparametrisations.
            own: arrays that differ between members.
            key: a JAX random key.

        Returns:
            The next state, with the curves of the window under names `curve/…`.
        """
        keys = jax.random.split(key, len(state["position"]))
        return self._run((state, held, own, keys))

    def _of_a_member(self, item: Any) -> Any:
        """Run a window of steps for one member, unless it has stopped.

        Args:
            item: the member's state, reparametrisation, own arrays and random key.

        Returns:
            The next state, with curves.
        """
        state, held, own, key = item
        # A stopped member keeps its state and costs nothing.
        still = self._still(state)
        return jax.lax.cond(
            state["stopped"], lambda: still, lambda: self._advanced(state, held, own, key)
        )

    def _still(self, state: Any) -> Any:
        """Return the unchanged state of a stopped member, with curves of NaN."""
        nothing = jnp.full(WINDOW, jnp.nan)
        curves = {f"curve/{name}": nothing for name in ("loss", *Terms._fields)}
        return state | curves | {"curve/held_out": nothing[:1]}

    def _advanced(self, state: Any, held: Any, own: Any, key: Array) -> Any:
        """Return the state of one member after a window of steps, with curves.

        Args:
            state: the state of the member.
            held: arrays of its reparametrisation.
            own: its own arrays.
            key: a JAX random key.
        """
        memory = jax.tree.unflatten(
            self._structure, [state[f"memory/{i}"] for i in range(self._structure.num_leaves)]
        )

        def step(carry, number):
            x, memory, length = carry
            # 1. The gradient in units of the prior widths w: w ∂loss/∂z.
            (loss, found), slope = self._slope(x, held, own, jax.random.fold_in(key, number))
            slope = jnp.where(jnp.isfinite(slope), slope * self._widths, 0.0)
            # 2. Clipped Adam by group: z ← z − w · rate · update.
            update: Any
            update, memory = self._transform.update(self._parted(slope), memory)
            moved = {g: -state["learning_rates"][i] * update[g] for i, g in enumerate(GROUPS)}
            length = length + jnp.stack([jnp.linalg.norm(moved[g]) for g in GROUPS])
            terms = {"loss": loss, **found._asdict()}
            return (x + self._widths * self._joined(moved), memory, length), terms

        begun = state["position"], memory, jnp.zeros(len(GROUPS))
        (x, memory, length), curve = jax.lax.scan(step, begun, jnp.arange(WINDOW))
        # 3. Evaluate `loss.judge`, and keep the best position.
        at = self._fits.of(held).forward(x)[0]
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
        curves = {f"curve/{name}": values for name, values in curve.items()}
        return after | leaves | curves | {"curve/held_out": held_out[None]}

    def _new_learning_rates(self, state: Any, x: Array, length: Array) -> Array:
        """Return the learning rates after a window, from the straightness of each group's path.

        Args:
            state: the state of the member before the window.
            x: its position after the window.
            length: length of the path of each group in the window.
        """
        if not self._descent.adaptive:
            return state["learning_rates"]
        away = self._parted((x - state["position"]) / self._widths)
        distance = jnp.stack([jnp.linalg.norm(away[g]) for g in GROUPS])
        straight = distance / jnp.where(length > 0, length, 1.0)
        slower = jnp.where(straight < _TO_AND_FRO, _SLOWER, 1.0)
        factor = jnp.where(straight > _STRAIGHT, _FASTER, slower)
        return jnp.clip(
            state["learning_rates"] * factor,
            _LOWEST * self._learning_rates,
            _HIGHEST * self._learning_rates,
        )
