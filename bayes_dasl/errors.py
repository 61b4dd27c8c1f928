"""Errors say what is wrong, where, and what would be right."""


class BayesDaslError(Exception):
    """Base class of every error that bayes_dasl raises on purpose."""


class DataError(BayesDaslError, ValueError):
    """The data cannot be used as they are."""


class ModelError(BayesDaslError, ValueError):
    """The model is not well formed, or does not fit the data."""


class ShapeError(ModelError):
    """Something in the model has a shape that it must not have."""


class UnreadableError(ModelError):
    """The model calls Python with an object that cannot be read, so that it has no fingerprint."""


class MismatchError(BayesDaslError, ValueError):
    """A posterior or forecast belongs to another model or other data."""


class WriteError(BayesDaslError, OSError):
    """A result could not be written; nothing is left half-written."""


class ReadError(BayesDaslError, OSError):
    """A file is missing, torn, or not one of ours."""


class Interrupted(BayesDaslError, KeyboardInterrupt):
    """The user stopped the run; the message says what was saved and how to resume."""
