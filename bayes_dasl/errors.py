"""Errors that the package raises on purpose: each says what is wrong, where, and what would be right."""

from ._errors import (
    BayesDaslError as BayesDaslError,
    DataError as DataError,
    Interrupted as Interrupted,
    MismatchError as MismatchError,
    ModelError as ModelError,
    ReadError as ReadError,
    ShapeError as ShapeError,
    WriteError as WriteError,
)
