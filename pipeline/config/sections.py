"""The job's sections as frozen pydantic models: every key with its bounds, default and description."""

from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from pipeline.config.keys import (
    INITS,
    LARGEST_SWEEP,
    byte_count,
    cluster_numbers,
    init_name,
    location,
    one_or_many,
    restarts,
    scheduler_address,
)

Name = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Name, ...], Field(strict=False)]
Location = Annotated[str, Field(min_length=1), AfterValidator(location)]
Locations = Annotated[
    tuple[Location, ...],
    Field(strict=False, min_length=1),
    BeforeValidator(one_or_many, json_schema_input_type=str | list[str]),
]
Restarts = Annotated[
    int | Literal["auto"], PlainValidator(restarts, json_schema_input_type=int | Literal["auto"])
]
Bytes = Annotated[int, BeforeValidator(byte_count, json_schema_input_type=int | str)]


class Section(BaseModel):
    """A section of the job: frozen, unknown keys refused, no value converted from another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class StorageConfig(Section):
    """Where an object store is; credentials come from the environment alone."""

    endpoint: Location | None = Field(
        None,
        description="URL of an S3-compatible server; default: the provider's own",
        examples=["http://localhost:9000"],
    )
    region: Name | None = Field(
        None,
        description="region of the bucket; default: from the environment",
        examples=["eu-central-1"],
    )
    anonymous: bool = Field(False, description="read without credentials")


class SourceConfig(Section):
    """The Parquet dataset to cluster."""

    path: Locations = Field(
        description="file, directory, glob, s3:// or file:// URI, or a list of these",
        examples=["data/*.parquet"],
    )
    columns: Annotated[Names, Field(min_length=1)] | None = Field(
        None,
        description="features; default: every numeric column that is not boolean, id, weight or partition",
        examples=[["temp", "humid"]],
    )
    ids: Names = Field((), description="columns carried into the labels", examples=[["origin", "time_hour"]])
    weight: Name | None = Field(
        None, description="column of row weights, zero or more; default: every row weighs 1", examples=["w"]
    )
    filter: Name | None = Field(
        None, description="keep the rows for which this holds", examples=["year >= 2013 and temp is not None"]
    )
    nulls: Literal["error", "drop", "mean"] = Field(
        "error",
        description="a null or NaN feature: an error, a row without label, or the column's mean",
    )
    storage: StorageConfig = Field(StorageConfig(), description="the source's object store")


class PrepareConfig(Section):
    """What happens to the features before clustering."""

    scale: Literal["none", "standard"] = Field(
        "none", description="standard: divide by the standard deviation; constant columns become 0"
    )
    blocks: Literal["auto", "memory", "disk"] = Field(
        "auto",
        description="where packed rows lie while they are clustered; auto: in memory if they fit, else on local disks",
    )


class ClusterRange(Section):
    """The numbers of clusters from min to max."""

    min: int = Field(ge=1, lt=2**31, description="the smallest")
    max: int = Field(ge=2, lt=2**31, description="the largest, if the steps reach it")
    step: int = Field(1, ge=1, description="from one to the next")


_ClusterNumber = Annotated[int, Field(ge=1, lt=2**31)]
_ClusterList = Annotated[list[_ClusterNumber], Field(min_length=2, max_length=LARGEST_SWEEP)]
ClusterNumbers = Annotated[
    int | tuple[int, ...],
    BeforeValidator(cluster_numbers, json_schema_input_type=_ClusterNumber | _ClusterList | ClusterRange),
]


class KMeansConfig(Section):
    """The algorithm's keys, as in the Python API."""

    n_clusters: ClusterNumbers = Field(
        description="number of clusters; or several to choose from, as a list or as min, max and step",
        examples=[8, [2, 3, 5, 8], {"min": 2, "max": 20}],
    )
    init: Annotated[Name, AfterValidator(init_name), AfterValidator(location)] = Field(
        "k-means||", description="k-means||, k-means++, random, or the path of a stored model"
    )
    n_init: Restarts = Field(
        "auto",
        description="restarts; the one with the lowest inertia is kept; "
        "auto: 1 from a stored model or with refine, else 10",
        examples=[10],
    )
    refine: bool | Literal["auto"] = Field(
        "auto",
        description="search on from where each restart ends; auto: unless n_init is given, from a stored model, "
        "and for several n_clusters",
    )
    max_iter: int = Field(300, ge=1, le=1_000_000, description="most iterations of a restart")
    tol: float = Field(
        1e-4,
        ge=0,
        allow_inf_nan=False,
        description="stop when the squared shift is within tol times the mean feature variance; "
        "0: when no label changes",
    )
    max_seconds: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="time limit of the restarts; default: none",
        examples=[3600],
    )
    seed: int = Field(0, ge=0, lt=2**63, description="the source of all randomness")
    dtype: Literal["float32", "float64"] = Field("float32", description="how the prepared rows are stored")
    metric: Literal["euclidean", "cosine"] = Field(
        "euclidean", description="cosine: spherical k-means, rows and centroids of unit length"
    )
    frozen_centroids: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(strict=False)] = Field(
        (),
        description="clusters of the stored model in `init` whose centroids must not move",
        examples=[[0, 3]],
    )

    @property
    def numbers(self) -> tuple[int, ...]:
        """Every number of clusters to try, increasing."""
        return (self.n_clusters,) if isinstance(self.n_clusters, int) else self.n_clusters

    @property
    def largest(self) -> int:
        """The largest number of clusters to try."""
        return self.numbers[-1]

    @property
    def refines(self) -> bool:
        """Whether restarts are refined."""
        if self.refine == "auto":
            return self.init in INITS and self.n_init == "auto" and not self.is_sweep
        return self.refine

    @property
    def is_sweep(self) -> bool:
        """Whether there are several to choose from."""
        return len(self.numbers) > 1

    @model_validator(mode="after")
    def _frozen_of_a_start(self) -> Self:
        """Refuse frozen centroids that no stored model gives."""
        if self.is_sweep and self.init not in INITS:
            rule = (
                "init is {init}, and a stored model has one number of clusters. Set n_clusters to that number"
            )
            raise PydanticCustomError("exclusive", rule, {"init": self.init})
        beyond = [j for j in self.frozen_centroids if j >= self.largest]
        if beyond:
            rule = "frozen_centroids holds {found}; clusters are numbered from 0 to {last}. Name only those"
            raise PydanticCustomError("exclusive", rule, {"found": beyond, "last": self.largest - 1})
        if self.frozen_centroids and self.init in INITS:
            rule = (
                "frozen_centroids are centroids of a stored model; init is {init}. Set init to a model's path"
            )
            raise PydanticCustomError("exclusive", rule, {"init": self.init})
        return self


class DaskConfig(Section):
    """A Dask cluster: a local one of worker processes, or the one at `address`."""

    workers: int = Field(2, ge=1, le=10_000, description="worker processes of a local cluster")
    threads_per_worker: int = Field(1, ge=1, le=1024, description="threads of each worker of a local cluster")
    memory_limit: Bytes = Field(
        2 * 2**30,
        ge=2**20,
        description="memory of each worker of a local cluster, as bytes or like 2GiB",
        json_schema_extra={"default": "2GiB"},
        examples=["2GiB"],
    )
    local_directory: Location | None = Field(
        None,
        description="scratch directory of a local cluster's workers; default: a temporary one",
        examples=["scratch"],
    )
    block_bytes: Bytes = Field(
        64 * 2**20,
        ge=2**10,
        le=2**34,
        description="size of a block of rows in memory, as bytes or like 64MiB; no result depends on it",
        json_schema_extra={"default": "64MiB"},
        examples=["64MiB"],
    )
    address: Annotated[Location, AfterValidator(scheduler_address)] | None = Field(
        None,
        description="an existing scheduler, instead of a local cluster",
        examples=["tcp://scheduler:8786"],
    )

    @model_validator(mode="after")
    def _one_cluster(self) -> Self:
        """Refuse settings of a local cluster beside the address of an existing one."""
        local = ("workers", "threads_per_worker", "memory_limit", "local_directory")
        # A form sends every key, so only a value that differs from the default was meant.
        given = [key for key in local if getattr(self, key) != type(self).model_fields[key].default]
        if self.address is not None and given:
            rule = "address is set, and {keys} would be ignored. Remove one or the other"
            raise PydanticCustomError("exclusive", rule, {"keys": ", ".join(given)})
        return self


class ScoresConfig(Section):
    """How well the clusters describe the rows, told with the result: two more passes, and a sample."""

    sample_rows: int = Field(
        4096,
        ge=2,
        le=2**16,
        description="rows of the silhouette's sample; 32 for each cluster where that is more, all where that is less",
        examples=[4096],
    )
    groups: Name | None = Field(
        None, description="one of source.ids: known groups to compare the clusters with", examples=["species"]
    )


class OutputConfig(Section):
    """Where the results are committed."""

    path: Location = Field(description="directory or s3:// or file:// URI", examples=["out"])
    storage: StorageConfig = Field(StorageConfig(), description="the output's object store")


class Job(Section):
    """One job: what is read, how it is clustered, where, and what is written."""

    source: SourceConfig = Field(description="the Parquet dataset to cluster")
    prepare: PrepareConfig = Field(PrepareConfig(), description="what happens to the features first")
    kmeans: KMeansConfig = Field(description="the algorithm")
    dask: DaskConfig | None = Field(None, description="a Dask cluster; default: this process, all cores")
    scores: ScoresConfig | None = Field(None, description="scores of the clusters; default: none are made")
    output: OutputConfig = Field(description="where the results are committed")

    @model_validator(mode="after")
    def _groups_are_ids(self) -> Self:
        """Refuse groups that no id column holds."""
        groups = None if self.scores is None else self.scores.groups
        if groups is not None and groups not in self.source.ids:
            rule = "scores.groups is {groups}, which is not one of source.ids: {ids}. Add it to these"
            ids = ", ".join(self.source.ids) or "none"
            raise PydanticCustomError("exclusive", rule, {"groups": repr(groups), "ids": ids})
        return self
