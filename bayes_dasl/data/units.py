"""Units as texts: whether two mean the same, what turns one into the other, and of which dimensions
they are.

What they mean is asked of pint, which is optional and loads when two texts differ or an equation is
checked. A word that pint does not know, such as `pelts`, is a dimension of its own.
"""

import functools
import re
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

_POWER = re.compile(r"(?<=[A-Za-zµμΩ°])(?<!\d[eE])([-−]?\d+)\b")
_UNKNOWN = 20  # words of one text


class Unit(NamedTuple):
    """A unit as a multiple of base units; its factor is none for a scale with an offset, such as
    degrees Celsius.

    Args:
        name: its text as pint writes it.
        factor: how many of the base units it is.
        scale: that without words that have no dimension, such as percent and degree: a formula
            turns those by itself. For a scale with an offset it is that of differences; none for a
            logarithmic scale.
        dimensions: the powers of base dimensions.
        offset: how far the zero of the scale lies above that of the base units, in this unit:
            273.15 for degrees Celsius.
    """

    name: str
    factor: float | None
    scale: float | None
    dimensions: dict[str, float]
    offset: float = 0.0


def same_text(one: str, other: str) -> bool:
    """Whether two texts are equal but for spaces."""
    return " ".join(one.split()) == " ".join(other.split())


@functools.cache
def parsed(text: str) -> Unit | None:
    """What a text means; none if it cannot be read, or pint is not installed."""
    registry = _registry()
    found = None if registry is None else _read(registry, text)
    if registry is None or found is None:
        return None
    quantity, unit = found
    dimensions = {str(name): float(power) for name, power in unit.dimensionality.items()}
    words = dict(registry.Quantity(1.0, unit).unit_items())
    counted = {word: power for word, power in words.items() if registry.Unit(word).dimensionality}
    plain = registry.Unit(registry.UnitsContainer(counted))
    (factor, offset), (scale, _) = (_factor(registry, quantity, each) for each in (unit, plain))
    return Unit(f"{quantity:g} {unit}", None if offset else factor, scale, dimensions, offset)


def _factor(registry: Any, quantity: float, unit: Any) -> tuple[float | None, float]:
    """How many base units a step of a unit is, none for a logarithmic scale, and the offset of its
    zero.
    """
    zero, one, two = (
        registry.Quantity(number, unit).to_root_units().magnitude for number in (0.0, 1.0, 2.0)
    )
    step = one - zero
    if not np.isclose(two - one, step):
        return None, 0.0
    return quantity * step, 0.0 if np.isclose(zero + step, step, rtol=1e-9) else zero / step


def agree(one: str, other: str) -> bool | None:
    """Whether two texts mean the same unit; none if that cannot be told."""
    if same_text(one, other):
        return True
    a, b = parsed(one), parsed(other)
    if a is None or b is None:
        return None
    if a.dimensions != b.dimensions:
        return False
    if a.factor is None or b.factor is None:
        return a.name == b.name
    return bool(np.isclose(a.factor, b.factor, rtol=1e-9, atol=0.0))


def convert(
    values: Float[np.ndarray, "..."], have: str, want: str
) -> Float[np.ndarray, "..."] | None:
    """Values in another unit; none if the units have other dimensions, or one of them cannot be
    read.
    """
    a, b = parsed(have), parsed(want)
    if a is None or b is None or a.dimensions != b.dimensions:
        return None
    if a.factor is not None and b.factor is not None:
        return values * (a.factor / b.factor)
    registry: Any = _registry()
    held, wanted = (_read(registry, text) for text in (have, want))
    if held is None or wanted is None:
        return None
    try:
        return np.asarray(registry.Quantity(values, held[1]).to(wanted[1]).magnitude)
    except Exception:  # whatever pint may raise of scales that it cannot convert
        return None


def installed() -> bool:
    """Whether units can be read."""
    return _registry() is not None


@functools.cache
def _registry() -> Any:
    try:
        import pint
    except ImportError:
        return None
    return pint.UnitRegistry()


def _read(registry: Any, text: str) -> tuple[float, Any] | None:
    """A number and a unit; none if pint makes nothing of the text."""
    import pint

    # m3 and s-1 are powers, unless pint knows them as words.
    spelt = _POWER.sub(lambda found: "**" + found[1].replace("−", "-"), text)
    for _ in range(_UNKNOWN):
        try:
            return _meaning(registry, spelt)
        except pint.UndefinedUnitError as error:
            unknown = error.unit_names
        except Exception:  # whatever pint may raise of a text
            return None
        for name in (unknown,) if isinstance(unknown, str) else unknown:
            try:
                registry.define(f"{name} = [{name}]")
            except Exception:  # no word that can name a unit
                return None
    return None


def _meaning(registry: Any, text: str) -> tuple[float, Any]:
    try:
        return 1.0, registry.parse_units(text)
    except ValueError:  # a factor before the unit
        quantity = registry.Quantity(text)
        return float(quantity.magnitude), quantity.units
