"""The job: one TOML file, one frozen and validated value."""

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A section of the job: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class StorageConfig(Section):
    """Where an object store is; credentials come from the environment alone."""

    endpoint: str | None = Field(None, description="URL of an S3-compatible server; default: the provider's own")
    region: str | None = Field(None, description="region of the bucket; default: from the environment")
    anonymous: bool = Field(False, description="read without credentials")
