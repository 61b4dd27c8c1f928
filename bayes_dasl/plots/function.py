"""Figures of what unknown functions say, before and after data, and of how descents learned it."""

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
from ._style import BLUE, FAINT, GREY, LINES, SERIES, STYLE, VERMILION, plain, small_multiples

type Rate = Callable[[Any, dict[str, Array]], Mapping[str, Any]]
"""A function of the model, with numbers in place of its unknowns, and of inputs: values by name."""

_GRID = 81
_MOST_DRAWS = 400
_LINES_SHOWN = 8
_MOST_PANELS = 12


def plot_function(
    model: Model,
    post: xr.DataTree | None = None,
    function: str | Rate | None = None,
    *,
    over: Mapping[str, tuple[float, float]] | None = None,
    key: int | Array = 0,
) -> Figure:
    """Draw an unknown function, or a rate that is computed from it, over each of its inputs.

    The other inputs are held in the middle of their range. Under the prior: 90 % of the functions,
    and eight of them; with a fit `post`, the median and 90 % of the posterior on top. So a prior
    can be looked at before there are data: whether its functions are as large and as rough as one
    would believe. With a fit, ticks at the bottom mark the inputs at the rows of the data: between
    and beyond them the prior speaks. An input of a `bd.Network` runs 2.5 of its widths to either
    side of its middle, one of a `bd.Basis` over its range; its units are those of the model, else
    those of the data of the fit. Functions of other kinds are drawn where they have a property
    `drawn_over`, from the name of each input to its range.

    A derived rate is a function `(m, u)` of the model, with a number in place of each unknown, and
    a dict of inputs, each a number; it returns a dict of numbers. It runs for all draws at once, so
    write it with `jnp`. Here the rate of a state x, which a law and the factor of a network make
    together, over x:

    `plot_function(model,
    post, lambda m, u: {"growth": m.layer.vector_field(0.0, u, {})["x"]}, over={"x": (0.1, 5.0)})`

    Args:
        model: a model, with a `bd.Network` or `bd.Basis` in it unless `function` is a rate.
        post: what `fit` returned; only the prior is drawn unless given.
        function: where there are several, the dotted path of the one to be drawn, or an unambiguous
            end of it; or a derived rate.
        over: the range of an input, by name, in place of its usual one. A rate is drawn over these
            inputs alone; unless given, over those of the unknown functions.
        key: a whole number or a JAX random key, for the prior draws.

    Raises:
        ModelError: for a model without unknown functions, or several where none is named, or a rate
            that returns no dict of numbers.
        MismatchError: for an unknown name, an empty range, or a posterior of another model.
    """
    if post is not None:
        check_belongs(model, post)
    rate, inputs, seen = _chosen(model, post, function, dict(over or {}))
    draws = {
        path: np.asarray(values)
        for path, values in draw_prior(model, _MOST_DRAWS, key=as_key(key)).items()
    }
    drawn = (
        {"prior": draws}
        if post is None
        else {"prior": draws, "posterior": _some(draws_of(model, post))}
    )
    said = {
        which: {name: _along(model, rate, inputs, name, d) for name in inputs}
        for which, d in drawn.items()
    }
    panels = [(output, name) for name in inputs for output in said["prior"][name]]
    panels = sorted(panels, key=lambda panel: [*said["prior"][panel[1]]].index(panel[0]))[
        :_MOST_PANELS
    ]
    units = _units(model, post)
    with mpl.rc_context(STYLE):
        fig, axes = small_multiples(len(panels), height=1.75)
        for ax, (output, name) in zip(axes, panels, strict=True):
            grid = np.linspace(inputs[name][0], inputs[name][1], _GRID)
            for which, values in said.items():
                _draw_functions(ax, grid, values[name][output], which)
            if name in seen:
                ticks = {
                    "color": GREY,
                    "ms": 6,
                    "alpha": 0.7,
                    "transform": ax.get_xaxis_transform(),
                }
                ax.plot(seen[name], np.full(seen[name].size, 0.02), "|", label="data", **ticks)
            ax.set_title(plain(output))
            ax.set_xlabel(plain(f"{name} ({units[name]})" if units.get(name) else name), fontsize=9)
            ax.set_xlim(grid[0], grid[-1])
            ax.xaxis.set_major_locator(MaxNLocator(5))
            ax.yaxis.set_major_locator(MaxNLocator(5))
        fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper left", ncols=3)
    return fig


def _chosen(
    model: Model,
    post: xr.DataTree | None,
    function: str | Rate | None,
    over: dict[str, tuple[float, float]],
) -> tuple[Rate, dict[str, tuple[float, float]], dict[str, np.ndarray]]:
    """The function to be drawn, the range of each of its inputs, and the inputs at the rows of the
    data.

    Raises:
        ModelError: if so.
        MismatchError: likewise.
    """
    for name, (low, high) in over.items():
        if not -np.inf < low < high < np.inf:
            raise MismatchError(
                f"over['{name}'] must be a range (low, high) with low < high, not {(low, high)}"
            )
    if callable(function):
        ranges = {
            name: range_
            for found in functions_of(model).values()
            for name, range_ in found.drawn_over.items()
        }
        inputs = over or ranges
        if not inputs:
            raise ModelError(
                "say over which inputs the rate is drawn, as in over={'x': (0.0, 5.0)}"
            )
        return function, inputs, _seen(post)
    path, found = _only(model, function)
    inputs = dict(found.drawn_over)
    for name in over:
        if name not in inputs:
            raise MismatchError(
                f"the function has no input '{name}': its inputs are {', '.join(inputs)}"
            )
    return (
        lambda m, u: functions_of(m)[path](u.get("t", 0.0), {}, u),
        inputs | over,
        _seen(post, path),
    )


def _seen(post: xr.DataTree | None, path: str | None = None) -> dict[str, np.ndarray]:
    """Inputs at the rows of the data, by name, as far as the fit kept them.

    Args:
        post: what `fit` returned.
        path: the dotted path of an unknown function, of which they are inputs; those of all unless
            given, and where none has an input of that name, what the data themselves hold of it.
    """
    if post is None:
        return {}
    found: dict[str, Any] = {}
    if path is None:
        data = fitted_data(post)
        found = {str(n): v.values for n, v in data.variables.items() if v.dtype.kind in "iuf"}
    if "function_inputs" in post.children:
        held = post["function_inputs"].to_dataset().data_vars.values()
        found |= {
            str(v.attrs["input"]): v.values
            for v in held
            if path is None or f".{path}".endswith(f".{v.attrs['function']}")
        }
    return {name: np.ravel(values)[np.isfinite(np.ravel(values))] for name, values in found.items()}


def plot_training(post: xr.DataTree) -> Figure:
    """Draw the loss of a descent and each of its terms, step by step, one line a member.

    What members were judged by at each look has a panel of its own where it is not that loss: it
    was on data held out, say, or on all data where a step saw some of them. What the descent gained
    in its first twentieth is cut off, or it would hide the rest. A step whose solve failed is a
    gap.

    Args:
        post: what `fit` returned, by an engine that descends.

    Raises:
        MismatchError: for a result of an engine that does not descend.
    """
    if "training" not in post.children:
        raise MismatchError(
            "there are no training curves: only engines that descend, such as bd.Joint, have them"
        )
    curves = post["training"].to_dataset()
    panels = {"loss": "loss (nats)"} | (
        {"held_out": "as judged (nats)"} if _judged_by_another(curves) else {}
    )
    panels |= {
        str(name): f"log density: {name} (nats)"
        for name in curves.data_vars
        if name not in ("loss", "held_out")
    }
    with mpl.rc_context(STYLE):
        fig, axes = small_multiples(len(panels), height=1.75)
        for ax, (name, title) in zip(axes, panels.items(), strict=True):
            along = str(next(dim for dim in curves[name].dims if dim != "member"))
            values = _finite(curves[name].transpose("member", along).values)
            style = {"color": BLUE, "lw": 0.9 if len(values) > 1 else 1.4, "alpha": 0.7}
            if name == "held_out":
                style |= {"color": VERMILION, "marker": ".", "ms": 3}
            for line in values:
                ax.plot(curves[along].values, line, **style)
            settled = values[:, values.shape[1] // 20 :]
            if np.isfinite(settled).any():
                ax.set_ylim(*_around(np.nanmin(settled), np.nanmax(settled), 1.1))
            ax.set_title(title)
            ax.set_xlabel("step", fontsize=9)
            ax.set_xlim(0, float(curves["step"][-1]))
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    return fig


def _judged_by_another(curves: xr.Dataset) -> bool:
    """Whether a look says another thing than the loss of the next step, which begins where the look
    was.
    """
    held_out = curves["held_out"].transpose("member", "look").values
    loss = curves["loss"].transpose("member", "step").values[:, curves["look"].values[:-1]]
    judged, loss = _finite(held_out[:, :-1]), _finite(loss)
    both = np.isfinite(judged) & np.isfinite(loss)
    return not np.allclose(judged[both], loss[both], rtol=1e-3, atol=1e-3)


def _finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def functions_of(model: Model) -> dict[str, Any]:
    """The unknown functions inside a model that can be drawn, by their dotted paths."""
    is_one = lambda node: hasattr(node, "drawn_over")  # noqa: E731
    return dict(parts_inside(model, is_one))


def _only(model: Model, name: str | None) -> tuple[str, Any]:
    found = functions_of(model)
    if not found:
        raise ModelError(
            "there is no unknown function in the model, such as a bd.Network or a bd.Basis"
        )
    if name is None:
        if len(found) > 1:
            raise ModelError(
                f"there are several functions: name one of {', '.join(short_names(found).values())}"
            )
        return next(iter(found.items()))
    chosen = [path for path in found if path == name or path.endswith(f".{name}")]
    if len(chosen) != 1:
        raise MismatchError(f"no one function is named '{name}'; there are {', '.join(found)}")
    return chosen[0], found[chosen[0]]


def _units(model: Model, post: xr.DataTree | None) -> dict[str, str]:
    """What the model says of units, and where it says nothing, the data of the fit; "t" is the time
    of either.
    """
    data = xr.Dataset() if post is None else fitted_data(post)
    found = {str(name): str(v.attrs.get("units", "")) for name, v in data.variables.items()}
    found |= {name: units for name, units in model.layer.units.items() if units}
    return {"t": found.get(model.index, "")} | found


def _some(draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    total = len(next(iter(draws.values())))
    at = thinned(total, _MOST_DRAWS)
    return {path: values[at] for path, values in draws.items()}


def _along(
    model: Model,
    rate: Rate,
    ranges: Mapping[str, tuple[float, float]],
    name: str,
    draws: dict[str, np.ndarray],
) -> dict[str, np.ndarray]:
    """The values of each draw of a function along one input: `(draw, input)` by output.

    Raises:
        ModelError: for values that are no dict of numbers.
    """
    known = {other: jnp.full(_GRID, (low + high) / 2) for other, (low, high) in ranges.items()}
    known |= {name: jnp.linspace(ranges[name][0], ranges[name][1], _GRID)}

    def one(draw):
        drawn = realise(model, draw)

        def at(u):
            values = rate(drawn, u)
            if not isinstance(values, Mapping) or any(
                jnp.shape(value) for value in values.values()
            ):
                raise ModelError(
                    "a rate returns a dict of numbers, one for each name, for inputs that are "
                    "numbers; of arrays, such "
                    "as those of members, choose one part"
                )
            return {output: jnp.asarray(value, float) for output, value in values.items()}

        return jax.vmap(at)(known)

    values = jax.jit(jax.vmap(one))({path: jnp.asarray(v) for path, v in draws.items()})
    return {output: np.asarray(v) for output, v in values.items()}


def _draw_functions(ax: Axes, grid: np.ndarray, values: np.ndarray, which: str) -> None:
    low, middle, high = np.nanquantile(values, [0.05, 0.5, 0.95], axis=0)
    if which == "prior":
        ax.fill_between(grid, low, high, color=FAINT, lw=0, label="prior, 90 %")
        for i, line in enumerate(values[:_LINES_SHOWN]):
            ax.plot(
                grid,
                line,
                color=GREY,
                lw=0.7,
                ls=LINES[i % len(LINES)],
                label="prior draws" if i == 0 else None,
            )
        lowest, highest = np.nanquantile(values, [0.01, 0.99])
        ax.set_ylim(*_around(lowest, highest, 1.1))
    else:
        ax.set_ylim(*_window(ax.get_ylim(), (low.min(), high.max())))
        ax.fill_between(grid, low, high, color=BLUE, alpha=0.35, lw=0, label="posterior, 90 %")
        ax.plot(grid, middle, color=SERIES[0], lw=1.8, label="posterior median")


def _window(prior: tuple[float, float], posterior: tuple[float, float]) -> tuple[float, float]:
    """All of a posterior, and of its prior what lies near: it may be so wide that nothing else
    could be seen.
    """
    (low, high), (lowest, highest) = _around(*posterior, 1.1), _around(*posterior, 3.0)
    return max(lowest, min(low, prior[0])), min(highest, max(high, prior[1]))


def _around(low: float, high: float, room: float) -> tuple[float, float]:
    """Limits that leave room around a range: so many times as wide."""
    middle, half = (low + high) / 2, room * (high - low) / 2 + 1e-9 * (1 + abs(low) + abs(high))
    return float(middle - half), float(middle + half)
