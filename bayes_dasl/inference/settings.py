"""Checks of the numbers and words that an engine is given."""

from typing import Any

from .._errors import ModelError


def check_numbers(engine: Any, least: dict[str, int]) -> None:
    """Raises: ModelError unless the fields of an engine are whole numbers of at least so much."""
    for name, smallest in least.items():
        value = getattr(engine, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < smallest:
            kind = type(engine).__name__
            raise ModelError(f"{kind}({name}={value!r}): {name} must be a whole number, at least {smallest}")


def check_words(engine: Any, allowed: dict[str, tuple[str, ...]]) -> None:
    """Raises: ModelError unless the fields of an engine are among these words."""
    for name, words in allowed.items():
        value = getattr(engine, name)
        if value not in words:
            raise ModelError(f"{type(engine).__name__}({name}={value!r}): {name} must be one of {', '.join(words)}")


def check_shares(engine: Any, names: tuple[str, ...], below: float = 1.0, zero: bool = False) -> None:
    """Make fields of an engine plain floats.

    Raises: ModelError unless they lie between 0 and `below`.
    """
    for name in names:
        value = getattr(engine, name)
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not (0 < number < below or (zero and number == 0)):
            limits = f"at least 0 and below {below:g}" if zero else f"between 0 and {below:g}"
            raise ModelError(f"{type(engine).__name__}({name}={value!r}): {name} must lie {limits}")
        object.__setattr__(engine, name, number)
