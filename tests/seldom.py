"""Parameters of a test of which some are asked in slow runs only."""

from collections.abc import Iterable

import pytest


def seldom(values: Iterable[str], *slow: str) -> list:
    """All values, for `pytest.mark.parametrize`; those in `slow` carry its mark."""
    return [
        pytest.param(value, marks=pytest.mark.slow if value in slow else ()) for value in values
    ]
