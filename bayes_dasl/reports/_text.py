"""Formatting of numbers and lists as text."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

MISSING = "\N{EN DASH}"
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MINUS = str.maketrans("-", "\N{MINUS SIGN}")


def number(value: object, digits: int = 3) -> str:
    """Format a number with `digits` significant digits; NaN and non-numbers become a dash."""
    x = _as_float(value)
    if math.isnan(x):
        return MISSING
    if math.isinf(x):
        return "∞" if x > 0 else "\N{MINUS SIGN}∞"
    # Very large and very small numbers as a × 10ᵇ.
    if x != 0 and not 1e-4 <= abs(x) < 1e6:
        # `1.23e-05` becomes `1.23 × 10⁻⁵`.
        mantissa, exponent = f"{x:.{digits - 1}e}".split("e")
        power = str(int(exponent)).translate(_SUPERSCRIPT)
        return f"{mantissa.translate(_MINUS)} \N{MULTIPLICATION SIGN} 10{power}"
    # 0.00123 has its first digit at the third decimal: three digits need five.
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(x)))) if x else 0
    return f"{x:.{decimals}f}".translate(_MINUS)


def fixed(value: object, decimals: int) -> str:
    """Format a number with `decimals` decimals; NaN and non-numbers become a dash."""
    x = _as_float(value)
    return f"{x:.{decimals}f}".translate(_MINUS) if math.isfinite(x) else number(x)


def percent(value: object) -> str:
    """Format a fraction, such as 0.12, as a whole percentage; NaN becomes a dash."""
    x = _as_float(value)
    return f"{round(100 * x)} %".translate(_MINUS) if math.isfinite(x) else MISSING


def count(n: int, noun: str, plural: str | None = None) -> str:
    """Format a number with a noun, such as `1 draw` or `2 draws`; the default plural adds an s."""
    return f"{n:,} {noun if n == 1 else plural or noun + 's'}".replace(",", " ")


def listed(words: Sequence[str]) -> str:
    """Join words as in `a`, `a and b`, or `a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def slug(text: str) -> str:
    """Convert text to lower-case letters, digits and hyphens, as part of an HTML id."""
    return re.sub(r"[^A-Za-z0-9]+", "-", text).strip("-").lower() or "x"


def seconds(value: object) -> str:
    """Format a duration given in seconds as seconds, minutes or hours; NaN becomes a dash."""
    x = _as_float(value)
    if not math.isfinite(x):
        return MISSING
    if x < 120:
        return f"{x:.1f} s"
    return f"{x / 60:.1f} min" if x < 7200 else f"{x / 3600:.1f} h"


def _as_float(value: object) -> float:
    """Convert a value to a float; NaN if it cannot be converted."""
    try:
        return float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return math.nan
