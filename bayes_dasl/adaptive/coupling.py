"""Parts of one vector field that run at different scales."""

from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx

from .._jax.tree import FrozenDict
from ..errors import ModelError
from ..layers._parts import check_function
from ..random import Module, Scalar, Values, VectorField, check_scalar


class Link(Module):
    """What one part sees of another: `Link("slow.x", "fast.drive", strength)`.

    The value `x` of the part `slow`, times `strength`, is a forcing `drive` of the part `fast`. Several links to one
    target add up.

    Args:
        source: "part.value", where it comes from.
        target: "part.forcing", where it leads to.
        strength: the factor, in the units of the forcing over those of the value.

    Raises: ModelError unless both ends are a part and a name with a dot between.
    """

    source: str = eqx.field(static=True)
    target: str = eqx.field(static=True)
    strength: Scalar = 1.0

    def __check_init__(self):
        for end in (self.source, self.target):
            if not isinstance(end, str) or not all(end.partition(".")):
                raise ModelError(f"a link runs from 'part.value' to 'part.forcing', not {end!r}")

    @property
    def origin(self) -> tuple[str, str]:
        """The part and the value that it comes from."""
        part, _, name = self.source.partition(".")
        return part, name

    @property
    def goal(self) -> tuple[str, str]:
        """The part and the forcing that it leads to."""
        part, _, name = self.target.partition(".")
        return part, name


def as_links(links: Any) -> tuple[Link, ...]:
    """One link or several as a tuple.

    Raises: ModelError for what is no link.
    """
    found = (links,) if isinstance(links, Link) else tuple(links) if isinstance(links, Iterable) else (links,)
    if not all(isinstance(link, Link) for link in found):
        raise ModelError(f"links must be such as (bd.Link('slow.x', 'fast.drive'),), not {links!r}")
    return found


class Coupling(Module):
    r"""A vector field of parts that run at different speeds and see each other through links.

    $\dot y_p = f_p(t, y_p, u \cup \{\text{strength} \cdot \text{linked state}\}) / \tau_p$

    Strengths and time scales may be random.

    Args:
        parts: vector fields by name.
        links: what the parts see of each other: a `Link`, or several.
        states: the names of the states of each part (no name twice, so that `ODE(initial=…)` holds them all).
        timescales: the τ of each part: 1 for a part without one, small for a fast one.

    Shapes: states of any shape; a link passes a state on as it is.
    Units: τ that of time, if f has none; else none.
    Raises: ModelError if a part is no function, if a link or a time scale names an unknown part or state, if two parts
    have a state of the same name, or, when called, if a part returns rates of other states or a forcing has the name of
    a link's target.
    """

    parts: dict[str, VectorField]
    links: tuple[Link, ...] = eqx.field(converter=as_links)
    states: Mapping[str, tuple[str, ...]] = eqx.field(
        static=True, converter=lambda states: FrozenDict((part, _names(names)) for part, names in states.items())
    )
    timescales: dict[str, Scalar] = eqx.field(default_factory=dict)

    def __check_init__(self):
        for part, field in self.parts.items():
            check_function(field, f"parts['{part}']")
        if set(self.states) != set(self.parts):
            raise ModelError(f"states are given for {listed(self.states)}, but the parts are {listed(self.parts)}")
        refuse_twice(self.states, "state")
        check_links(self.links, self.states)
        for part, value in self.timescales.items():
            if part not in self.parts:
                raise ModelError(f"a time scale is given for '{part}'; the parts are {listed(self.parts)}")
            check_scalar(value, f"timescales['{part}']")
            if isinstance(value, (int, float)) and value <= 0:
                raise ModelError(f"timescales['{part}'] must be positive, not {value}")

    def __call__(self, t: Any, y: Values, u: Values) -> Values:
        rates = {}
        for part, names in self.states.items():
            seen = linked(self.links, part, lambda link: y[link.origin[1]])
            _refuse_clash(seen, u, part)
            found = self.parts[part](t, {name: y[name] for name in names}, {**u, **seen})
            if set(found) != set(names):
                raise ModelError(f"part '{part}' returns rates for {listed(found)}, but has states {listed(names)}")
            slowness: Any = self.timescales.get(part, 1.0)
            rates |= {name: found[name] / slowness for name in names}
        return rates


def linked(links: Iterable[Link], part: str, value_of: Any) -> dict[str, Any]:
    """The forcings of a part that come from others, by name."""
    found: dict[str, Any] = {}
    for link in links:
        to, name = link.goal
        if to == part:
            found[name] = found.get(name, 0.0) + link.strength * value_of(link)
    return found


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return (names,) if isinstance(names, str) else tuple(names)


def listed(names: Iterable) -> str:
    """Names for a message."""
    return ", ".join(names) or "none"


def check_links(links: Iterable[Link], values: Mapping[str, tuple[str, ...]]) -> None:
    """Refuse links from or to an unknown part, or from a value that its part does not have."""
    for link in links:
        (source, name), (target, _) = link.origin, link.goal
        for part in (source, target):
            if part not in values:
                raise ModelError(f"a link names '{part}'; the parts are {listed(values)}")
        if name not in values[source]:
            raise ModelError(f"a link comes from '{link.source}'; '{source}' has {listed(values[source])}")


def refuse_twice(names: Mapping[str, Iterable[str]], what: str) -> None:
    """Refuse a name that two parts have."""
    owner: dict[str, str] = {}
    for part, own in names.items():
        for name in own:
            if name in owner:
                raise ModelError(f"{what} '{name}' is in '{owner[name]}' and in '{part}': give it two names")
            owner[name] = part


def _refuse_clash(linked: Mapping, u: Values, part: str) -> None:
    for name in linked:
        if name in u:
            raise ModelError(f"'{part}.{name}' is linked, but '{name}' is a forcing of the model too: rename one")
