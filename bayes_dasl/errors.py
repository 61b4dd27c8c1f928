"""The errors of the package. Their messages say what is wrong, where, and what would be right."""


class BayesDaslError(Exception):
    """The base class of all errors that bayes_dasl raises on purpose."""


class DataError(BayesDaslError, ValueError):
    """The data cannot be used as they are."""


class ModelError(BayesDaslError, ValueError):
    """The model is invalid, or does not fit the data."""


class ShapeError(ModelError):
    """A value in the model has a wrong shape."""


class UnreadableError(ModelError):
    """The model has no fingerprint: it calls Python with an object that cannot be hashed."""


class MismatchError(BayesDaslError, ValueError):
    """A posterior or forecast belongs to another model or other data."""


class WriteError(BayesDaslError, OSError):
    """A result could not be written; no incomplete file is left."""


class ReadError(BayesDaslError, OSError):
    """A file is missing or damaged, or was not written by this package."""


class Interrupted(BayesDaslError, KeyboardInterrupt):
    """The user stopped the run; the message says what was saved and how to resume."""
