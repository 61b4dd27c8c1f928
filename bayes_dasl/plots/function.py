"""Figures of unknown functions under prior and posterior, and of training by gradient descent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
import xarray as xr
from jaxtyping import Array
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from .._jax.keys import as_key
from .._jax.tree import parts_inside, short_names
from .._statistics.convergence import thinned
from ..errors import MismatchError, ModelError
from ..model import Model
from ..prediction.posterior import check_belongs, draws_of, fitted_data
from ..priors import draw_prior
from ..random import realise
from ._style import (
    BLUE,
    FAINT,
    GREY,
    LINES,
    STYLE,
    VERMILION,
    add_legend,
    fitted,
    small_multiples,
    with_units,
)

type Rate = Callable[[Any, dict[str, Array]], Mapping[str, Any]]
"""`rate(m, u)`: values by name, for a model with numbers for its unknowns and a dict of inputs."""
type Ranges = dict[str, tuple[float, float]]
"""Lowest and highest value of each input."""

_GRID = 81
_MOST_DRAWS = 400
_LINES_SHOWN = 8
_MOST_PANELS = 12


@mpl.rc_context(STYLE)
def plot_function(
    model: Model,
    post: xr.DataTree | None = None,
    function: str | Rate | None = None,
    *,
    over: Mapping[str, tuple[float, float]] | None = None,
    key: int | Array = 0,
) -> Figure:
    """Draw an unknown function, or a rate that is computed from it, over each of its inputs.

    The other inputs are fixed at the middle of their range. The prior is shown as a 90 % band with
    eight draws. With a fit `post`, median and 90 % band of the posterior are added, and ticks at
    the inputs of the data. Far from these inputs the prior dominates. Before a fit, use the figure
    to check size and roughness of the functions under the prior.

    An input of a `bd.Network` is drawn over 2.5 widths to either side of its middle, an input of a
    `bd.Basis` over its range. Other functions are drawn if they have a property `drawn_over`, a
    dict from input to range. Units are those of the model, or else of the data.

    A derived rate is a function `(m, u)`: `m` is the model with numbers for its unknowns, and `u` a
    dict of inputs. It returns a dict of numbers. It is computed for all draws at once, so write it
    with `jnp`. For example, the growth rate of a state x, from an equation with a network, over x:

    `plot_function(model, post, lambda m, u: {"growth": m.layer.vector_field(0.0, u, {})["x"]},
    over={"x": (0.1, 5.0)})`

    Args:
        model: a model, with a `bd.Network` or `bd.Basis` in it unless `function` is a rate.
        post: the result of `fit`; None shows only the prior.
        function: the dotted path of an unknown function, or an unambiguous end of it, if there are
            several; or a derived rate.
        over: ranges of inputs by name, in place of the usual ones. A rate is drawn over these
            inputs only; None takes those of the unknown functions.
        key: a whole number or a JAX random key, for the prior draws.

    Returns:
        The figure.

    Raises:
        ModelError: if there is no unknown function, or several and none is named, or a rate returns
            no dict of numbers.
        MismatchError: if a name is unknown, a range is empty, or the posterior is of another model.
    """
    # 1. Choose the function and its inputs.
    if post is not None:
        check_belongs(model, post)
    rate, inputs, seen = _function_to_draw(model, post, function, dict(over or {}))
    # 2. Evaluate it for all draws along each input.
    draws: dict[str, Any] = {"prior": draw_prior(model, _MOST_DRAWS, key=as_key(key))}
    if post is not None:
        draws["posterior"] = _thinned_draws(draws_of(model, post))
    curves = {
        (group, name): _along_input(model, rate, inputs, name, parameters)
        for group, parameters in draws.items()
        for name in inputs
    }
    # 3. Order the panels by output first.
    outputs = {name: list(curves["prior", name]) for name in inputs}
    panels = [(output, name) for name in inputs for output in outputs[name]]
    panels.sort(key=lambda panel: outputs[panel[1]].index(panel[0]))
    panels = panels[:_MOST_PANELS]
    # 4. Draw the prior, the posterior on top, and ticks at the data.
    units = _units_of_inputs(model, post)
    fig, axes = small_multiples(len(panels), height=1.75)
    for ax, (output, name) in zip(axes, panels, strict=True):
        x = np.linspace(*inputs[name], _GRID)
        _draw_prior_curves(ax, x, curves["prior", name][output])
        if post is not None:
            _draw_posterior_curves(ax, x, curves["posterior", name][output])
        if name in seen:
            look = {
                "color": GREY,
                "ms": 6,
                "alpha": 0.7,
                "label": "data",
            }
            bottom = np.full(seen[name].size, 0.02)
            ax.plot(seen[name], bottom, "|", transform=ax.get_xaxis_transform(), **look)
        ax.set_title(fitted(output))
        ax.set_xlabel(with_units(name, units.get(name)), fontsize=9)
        ax.set_xlim(x[0], x[-1])
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_major_locator(MaxNLocator(5))
    add_legend(fig, 3)
    return fig


def _function_to_draw(
    model: Model, post: xr.DataTree | None, function: str | Rate | None, over: Ranges
) -> tuple[Rate, Ranges, dict[str, np.ndarray]]:
    """Return what `plot_function` draws, from its arguments.

    Returns:
        The function, the range of each input by name, and the inputs at the data by name.

    Raises:
        ModelError: if a rate has no inputs, there is no function, or several and none is named.
        MismatchError: if a range is empty, or an input or function is unknown.
    """
    for name, (low, high) in over.items():
        if not -np.inf < low < high < np.inf:
            raise MismatchError(
                f"over['{name}'] must be a range (low, high) with low < high, not {(low, high)}"
            )
    if callable(function):
        inputs = over or {
            name: ends
            for found in functions_of(model).values()
            for name, ends in found.drawn_over.items()
        }
        if not inputs:
            raise ModelError(
                "say over which inputs the rate is drawn, as in over={'x': (0.0, 5.0)}"
            )
        return function, inputs, _inputs_at_data(post)
    path, found = _function_named(model, function)
    # `over` changes ranges, but adds no inputs.
    inputs = dict(found.drawn_over)
    for name in over:
        if name not in inputs:
            raise MismatchError(
                f"the function has no input '{name}': its inputs are {', '.join(inputs)}"
            )

    def rate(m: Any, u: dict[str, Array]) -> Mapping[str, Any]:
        return functions_of(m)[path](u.get("t", 0.0), {}, u)

    return rate, inputs | over, _inputs_at_data(post, path)


def _inputs_at_data(post: xr.DataTree | None, path: str | None = None) -> dict[str, np.ndarray]:
    """Return the values of inputs at the rows of the data, as far as the fit saved them.

    Args:
        post: the result of `fit`, or None.
        path: the dotted path of an unknown function. None takes the inputs of all functions, and
            also the variables of the data.

    Returns:
        The finite values by name of the input.
    """
    if post is None:
        return {}
    found: dict[str, Any] = {}
    if path is None:
        variables = fitted_data(post).variables.items()
        found = {str(name): v.values for name, v in variables if v.dtype.kind in "iuf"}
    if "function_inputs" in post.children:
        # The names of functions are shortened there, so compare the ends of paths.
        for values in post["function_inputs"].to_dataset().data_vars.values():
            if path is None or f".{path}".endswith(f".{values.attrs['function']}"):
                found[str(values.attrs["input"])] = values.values
    flat = {name: np.ravel(values) for name, values in found.items()}
    return {name: values[np.isfinite(values)] for name, values in flat.items()}


@mpl.rc_context(STYLE)
def plot_training(post: xr.DataTree) -> Figure:
    """Draw the loss of gradient descent and each of its terms, by step and ensemble member.

    Ensemble members may have been selected by another value than the loss, such as the loss on
    held-out data. This value then has a separate panel. The first twentieth of the steps does not
    determine the limits, since its large changes would hide the rest. A step whose solve failed is
    a gap.

    Args:
        post: the result of `fit` with an engine that uses gradient descent.

    Returns:
        The figure.

    Raises:
        MismatchError: if the engine does not use gradient descent.
    """
    if "training" not in post.children:
        raise MismatchError(
            "there are no training curves: only engines that descend, such as bd.Joint, have them"
        )
    curves = post["training"].to_dataset()
    panels = {"loss": "loss (nats)"}
    if _is_judged_otherwise(curves):
        panels["held_out"] = "as judged (nats)"
    for name in map(str, curves.data_vars):
        if name not in ("loss", "held_out"):
            panels[name] = f"log density: {name} (nats)"
    fig, axes = small_multiples(len(panels), height=1.75)
    for ax, (name, title) in zip(axes, panels.items(), strict=True):
        along = str(next(dim for dim in curves[name].dims if dim != "member"))
        values = _infinite_as_nan(curves[name].transpose("member", along).values)
        style = {
            "color": BLUE,
            "lw": 0.9 if len(values) > 1 else 1.4,
            "alpha": 0.7,
        }
        if name == "held_out":
            style |= {
                "color": VERMILION,
                "marker": ".",
                "ms": 3,
            }
        ax.plot(curves[along].values, values.T, **style)
        # Otherwise the large losses of the first steps would determine the limits.
        settled = values[:, values.shape[1] // 20 :]
        if np.isfinite(settled).any():
            ax.set_ylim(*_around(np.nanmin(settled), np.nanmax(settled), 1.1))
        ax.set_title(title)
        ax.set_xlabel("step", fontsize=9)
        ax.set_xlim(0, float(curves["step"][-1]))
        ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return fig


def _is_judged_otherwise(curves: xr.Dataset) -> bool:
    """Whether ensemble members were selected by another value than the loss."""
    # Each value of `held_out` is for the parameters before the step that follows.
    judged = curves["held_out"].transpose("member", "look").values[:, :-1]
    loss = curves["loss"].transpose("member", "step").values[:, curves["look"].values[:-1]]
    both = np.isfinite(judged) & np.isfinite(loss)
    return not np.allclose(judged[both], loss[both], rtol=1e-3, atol=1e-3)


def _infinite_as_nan(values: np.ndarray) -> np.ndarray:
    """Replace infinite values by NaN, which a line leaves out."""
    return np.where(np.isfinite(values), values, np.nan)


def functions_of(model: Model) -> dict[str, Any]:
    """Return the unknown functions of a model that can be drawn, by dotted path."""
    return dict(parts_inside(model, lambda node: hasattr(node, "drawn_over")))


def _function_named(model: Model, name: str | None) -> tuple[str, Any]:
    """Return path and function with the given name, or those of the only function.

    Args:
        model: the model.
        name: the dotted path or an end of it; None for the only function.

    Raises:
        ModelError: if there is no function, or several and no name.
        MismatchError: if no function or several have the name.
    """
    found = functions_of(model)
    if not found:
        raise ModelError(
            "there is no unknown function in the model, such as a bd.Network or a bd.Basis"
        )
    if name is None and len(found) > 1:
        raise ModelError(
            f"there are several functions: name one of {', '.join(short_names(found).values())}"
        )
    chosen = [path for path in found if name is None or f".{path}".endswith(f".{name}")]
    if len(chosen) != 1:
        raise MismatchError(f"no one function is named '{name}'; there are {', '.join(found)}")
    return chosen[0], found[chosen[0]]


def _units_of_inputs(model: Model, post: xr.DataTree | None) -> dict[str, str]:
    """Return the units of variables by name, from the model or else from the data.

    "t" has the units of the index.
    """
    data = xr.Dataset() if post is None else fitted_data(post)
    found = {str(name): str(v.attrs.get("units", "")) for name, v in data.variables.items()}
    found |= {name: units for name, units in model.layer.units.items() if units}
    return {"t": found.get(model.index, "")} | found


def _thinned_draws(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return at most `_MOST_DRAWS` evenly chosen draws of each parameter, by path."""
    # `vmap` over all draws of a long run would need much memory.
    at = thinned(len(next(iter(draws.values()))), _MOST_DRAWS)
    return {path: values[at] for path, values in draws.items()}


def _along_input(
    model: Model, rate: Rate, ranges: Ranges, name: str, draws: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Evaluate a function along one input for all draws.

    Args:
        model: the model.
        rate: the function.
        ranges: range of each input by name.
        name: name of the input that varies; the others are fixed at the middle of their range.
        draws: draws by path of the parameter.

    Returns:
        Values `(draw, input)` by name of the output.

    Raises:
        ModelError: if the function returns no dict of numbers.
    """
    # The other inputs stay in the middle of their range.
    points = {other: jnp.full(_GRID, (low + high) / 2) for other, (low, high) in ranges.items()}
    points[name] = jnp.linspace(*ranges[name], _GRID)

    def of_draw(draw):
        drawn = realise(model, draw)

        def at(u):
            values = rate(drawn, u)
            if not isinstance(values, Mapping) or any(map(jnp.shape, values.values())):
                raise ModelError(
                    "a rate returns a dict of numbers, one for each name, for inputs that are "
                    "numbers; of arrays, such as those of members, choose one part"
                )
            return {output: jnp.asarray(value, float) for output, value in values.items()}

        return jax.vmap(at)(points)

    values = jax.jit(jax.vmap(of_draw))({path: jnp.asarray(v) for path, v in draws.items()})
    return {output: np.asarray(v) for output, v in values.items()}


def _draw_prior_curves(ax: Axes, x: np.ndarray, values: np.ndarray) -> None:
    """Draw the 90 % band of prior curves, and some of the curves.

    Args:
        ax: the panel.
        x: the values of the input.
        values: the curves, `(draw, x)`.
    """
    low, high = np.nanquantile(values, [0.05, 0.95], axis=0)
    ax.fill_between(x, low, high, color=FAINT, lw=0, label="prior, 90 %")
    for i, line in enumerate(values[:_LINES_SHOWN]):
        label = None if i else "prior draws"
        ax.plot(
            x,
            line,
            color=GREY,
            lw=0.7,
            ls=LINES[i % len(LINES)],
            label=label,
        )
    # Otherwise a few extreme curves would determine the limits.
    lowest, highest = np.nanquantile(values, [0.01, 0.99])
    ax.set_ylim(*_around(lowest, highest, 1.1))


def _draw_posterior_curves(ax: Axes, x: np.ndarray, values: np.ndarray) -> None:
    """Draw median and 90 % band of posterior curves, and set the limits around the band.

    Args:
        ax: the panel.
        x: the values of the input.
        values: the curves, `(draw, x)`.
    """
    low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95], axis=0)
    ax.set_ylim(*_focused_limits(ax.get_ylim(), (low.min(), high.max())))
    ax.fill_between(
        x,
        low,
        high,
        color=BLUE,
        alpha=0.35,
        lw=0,
        label="posterior, 90 %",
    )
    ax.plot(x, middle, color=BLUE, lw=1.8, label="posterior median")


def _focused_limits(
    prior: tuple[float, float], posterior: tuple[float, float]
) -> tuple[float, float]:
    """Return vertical limits that contain the posterior band.

    They also contain the prior, but at most three times the width of the posterior band, since the
    prior may be very wide.

    Args:
        prior: limits that contain the prior curves.
        posterior: lowest and highest value of the posterior band.
    """
    # All of the posterior with some room, and at most three times its width.
    low, high = _around(*posterior, 1.1)
    lowest, highest = _around(*posterior, 3.0)
    return max(lowest, min(low, prior[0])), min(highest, max(high, prior[1]))


def _around(low: float, high: float, room: float) -> tuple[float, float]:
    """Return limits with the same middle as `low` and `high`, and `room` times their distance."""
    middle = (low + high) / 2
    # A constant has a width of zero, and needs limits that differ.
    half = room * (high - low) / 2 + 1e-9 * (1 + abs(low) + abs(high))
    return float(middle - half), float(middle + half)
