"""The errors a user can meet, each with the command line's exit code."""


class KMeansError(Exception):
    """Bad input or configuration: the message names the place, the rule, the value found and the fix."""

    exit_code = 2


class ConfigError(KMeansError):
    """A key or a value of the job or of an argument."""


class DataError(KMeansError):
    """A file, a column or a row of the source."""


class TooFewSamplesError(DataError):
    """Fewer rows than clusters."""


class ModelError(KMeansError):
    """A stored model that is missing, damaged, of another version, or for other features."""


class InfrastructureError(KMeansError):
    """A scheduler, store, Prefect API or worker failed; a retry may help."""

    exit_code = 3


class StopRequested(BaseException):
    """Raised inside a fit to abandon it: an interrupt, a lost run, a user's stop."""
