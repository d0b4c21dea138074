"""The job: one TOML file, one frozen and validated value."""

from pipeline.config.job_file import job_from_sections, load_job, resolved
from pipeline.config.keys import INITS, is_uri
from pipeline.config.sections import (
    DaskConfig,
    Job,
    KMeansConfig,
    OutputConfig,
    PrepareConfig,
    ScoresConfig,
    SourceConfig,
    StorageConfig,
)

__all__ = [
    "INITS",
    "DaskConfig",
    "Job",
    "KMeansConfig",
    "OutputConfig",
    "PrepareConfig",
    "ScoresConfig",
    "SourceConfig",
    "StorageConfig",
    "is_uri",
    "job_from_sections",
    "load_job",
    "resolved",
]
