"""The errors a user can meet, each with the command line's exit code."""


class KMeansError(Exception):
    """Bad input or configuration: the message names the place, the rule, the value found and the fix."""

    exit_code = 2


class ConfigError(KMeansError, ValueError):
    """A key or a value of the job or of an argument; a ValueError, as Python's callers expect."""


class DataError(KMeansError, ValueError):
    """A file, a column or a row of the source; a ValueError, as Python's callers expect."""


class TooFewSamplesError(DataError):
    """Fewer rows than clusters."""


class ModelError(KMeansError, ValueError):
    """A stored model that is missing, damaged, of another version, or for other features."""


class InfrastructureError(KMeansError):
    """A scheduler, store, Prefect API or worker failed; a retry may help."""

    exit_code = 3


class StopRequested(BaseException):
    """Raised inside a fit to abandon it: an interrupt, a lost run, a user's stop."""
