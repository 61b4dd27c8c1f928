"""Units as text: compare them, convert values, and find their dimensions.

The optional package pint reads them. It is imported only when two texts differ or an equation is
checked. An unknown word, such as `pelts`, becomes a dimension of its own.
"""

import functools
import re
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

# The power in `m3` or `s-1`, but not the exponent of a number such as 1e3.
_POWER = re.compile(r"(?<=[A-Za-zµμΩ°])(?<!\d[eE])([-−]?\d+)\b")
# Largest number of unknown words in one text.
_UNKNOWN = 20


class Unit(NamedTuple):
    """A unit as a multiple of base units.

    Args:
        name: its text as pint writes it.
        factor: the number of base units in it; None for a scale with an offset, such as °C, and for
            a logarithmic scale.
        scale: the factor without dimensionless words such as percent and degree, which formulas
            convert themselves. For a scale with an offset it is the factor of differences. It is
            None for a logarithmic scale.
        dimensions: the power of each base dimension, by name.
        offset: the distance of its zero from the zero of the base units, in this unit: 273.15 for
            °C.
    """

    name: str
    factor: float | None
    scale: float | None
    dimensions: dict[str, float]
    offset: float = 0.0


def same_text(one: str, other: str) -> bool:
    """Return whether two texts are equal apart from spaces."""
    return " ".join(one.split()) == " ".join(other.split())


@functools.cache
def parsed(text: str) -> Unit | None:
    """Read a unit; None if it cannot be read, or pint is not installed."""
    registry = _registry()
    found = None if registry is None else _read(registry, text)
    if registry is None or found is None:
        return None
    quantity, unit = found
    dimensions = {str(name): float(power) for name, power in unit.dimensionality.items()}
    # Dimensionless words, such as percent, are left out of the scale.
    words = dict(registry.Quantity(1.0, unit).unit_items())
    counted = {word: power for word, power in words.items() if registry.Unit(word).dimensionality}
    plain = registry.Unit(registry.UnitsContainer(counted))
    factor, offset = _factor(registry, quantity, unit)
    scale, _ = _factor(registry, quantity, plain)
    return Unit(f"{quantity:g} {unit}", None if offset else factor, scale, dimensions, offset)


def _factor(registry: Any, quantity: float, unit: Any) -> tuple[float | None, float]:
    """Return the factor and the offset of a unit.

    Args:
        registry: the units of pint.
        quantity: the number before the unit, as in `1000 m3`.
        unit: the unit in pint's type.

    Returns:
        The number of base units in the quantity, None for a logarithmic scale; and the offset of
        the unit's zero, in this unit.
    """
    zero, one, two = (
        registry.Quantity(number, unit).to_root_units().magnitude for number in (0.0, 1.0, 2.0)
    )
    step = one - zero
    # A logarithmic scale has no constant step.
    if not np.isclose(two - one, step):
        return None, 0.0
    has_offset = not np.isclose(zero + step, step, rtol=1e-9)
    return quantity * step, zero / step if has_offset else 0.0


def agree(one: str, other: str) -> bool | None:
    """Return whether two texts mean the same unit; None if one of them cannot be read."""
    if same_text(one, other):
        return True
    a = parsed(one)
    b = parsed(other)
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
    """Convert values to another unit; None if dimensions differ or a unit cannot be read."""
    a = parsed(have)
    b = parsed(want)
    if a is None or b is None or a.dimensions != b.dimensions:
        return None
    if a.factor is not None and b.factor is not None:
        return values * (a.factor / b.factor)
    # Offsets and logarithms: leave them to pint.
    registry: Any = _registry()
    held, wanted = (_read(registry, text) for text in (have, want))
    if held is None or wanted is None:
        return None
    try:
        return np.asarray(registry.Quantity(values, held[1]).to(wanted[1]).magnitude)
    except Exception:  # pint raises many types for scales that it cannot convert
        return None


def installed() -> bool:
    """Return whether pint is installed, so that units can be read."""
    return _registry() is not None


@functools.cache
def _registry() -> Any:
    """Return the unit registry of pint; None if pint is not installed."""
    try:
        import pint
    except ImportError:
        return None
    return pint.UnitRegistry()


def _read(registry: Any, text: str) -> tuple[float, Any] | None:
    """Read a text as a number and a unit in pint's type; None if pint cannot read it."""
    import pint

    # m3 and s-1 are powers, unless pint knows them as words.
    spelt = _POWER.sub(lambda found: "**" + found[1].replace("−", "-"), text)
    for _ in range(_UNKNOWN):
        try:
            return _meaning(registry, spelt)
        except pint.UndefinedUnitError as error:
            unknown = error.unit_names
        except Exception:  # pint raises many types for text that is no unit
            return None
        # An unknown word becomes a dimension of its own, and the text is read again.
        for name in (unknown,) if isinstance(unknown, str) else unknown:
            try:
                registry.define(f"{name} = [{name}]")
            except Exception:  # no word that can name a unit
                return None
    return None


def _meaning(registry: Any, text: str) -> tuple[float, Any]:
    """Read a text that pint knows as a number and a unit; the number is 1 without a factor."""
    try:
        return 1.0, registry.parse_units(text)
    except ValueError:  # a factor before the unit
        quantity = registry.Quantity(text)
        return float(quantity.magnitude), quantity.units
