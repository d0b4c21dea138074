"""The job file: what is accepted, what is refused, and how a refusal reads."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from kmeans_dask.errors import ConfigError
from pipeline.config import Job, job_from_sections, load_job, resolved

SMALL = '[source]\npath = "data/*.parquet"\n[kmeans]\nn_clusters = 3\n[output]\npath = "out"\n'


def job_file(tmp_path: Path, text: str = SMALL) -> Path:
    """Write a job file and return its path."""
    path = tmp_path / "job.toml"
    path.write_text(text)
    return path


def refusal(tmp_path: Path, text: str = SMALL, sets: tuple[str, ...] = ()) -> str:
    """Return the error of a job that must be refused."""
    with pytest.raises(ConfigError) as caught:
        load_job(job_file(tmp_path, text), sets)
    return str(caught.value)


def test_defaults(tmp_path: Path) -> None:
    """The smallest job has the documented defaults, and paths relative to the job file."""
    job = load_job(job_file(tmp_path))
    assert job.source.path == (str(tmp_path / "data/*.parquet"),)
    assert job.output.path == str(tmp_path / "out")
    assert (job.source.nulls, job.prepare.scale, job.dask) == ("error", "none", None)
    kmeans = job.kmeans
    assert (kmeans.init, kmeans.n_init, kmeans.max_iter, kmeans.tol) == ("k-means||", "auto", 300, 1e-4)
    assert (kmeans.max_seconds, kmeans.seed, kmeans.dtype) == (None, 0, "float32")


def test_every_key(tmp_path: Path) -> None:
    """Every key of the issue's example is read."""
    job = load_job(
        job_file(
            tmp_path,
            """
            [source]
            path = ["a.parquet", "s3://bucket/b", "/c"]
            columns = ["temp", "humid"]
            ids = ["origin"]
            weight = "w"
            filter = "year >= 2013"
            nulls = "drop"
            storage = { endpoint = "http://localhost:9000", region = "x", anonymous = true }
            [prepare]
            scale = "standard"
            [kmeans]
            n_clusters = 8
            init = "models/latest"
            n_init = 2
            max_iter = 5
            tol = 0
            max_seconds = 3600
            seed = 9223372036854775807
            dtype = "float64"
            [dask]
            workers = 3
            threads_per_worker = 2
            memory_limit = "1.5 GiB"
            local_directory = "scratch"
            block_bytes = 1048576
            [output]
            path = "file:///out"
            storage = { region = "y" }
            """,
        )
    )
    assert job.source.path == (str(tmp_path / "a.parquet"), "s3://bucket/b", "/c")
    assert job.source.columns == ("temp", "humid")
    assert job.source.storage.anonymous
    assert job.kmeans.init == str(tmp_path / "models/latest")
    assert job.dask is not None
    assert job.dask.memory_limit == 3 * 2**29
    assert job.dask.block_bytes == 2**20
    assert job.dask.local_directory == str(tmp_path / "scratch")
    assert job.output.path == "file:///out"


@pytest.mark.parametrize(
    ("size", "expected"),
    [("64MiB", 2**26), ("2GB", 2 * 10**9), ("5000kB", 5_000_000), ("2048", 2048), (4096, 4096)],
)
def test_sizes(size: str | int, expected: int) -> None:
    """Sizes are bytes, or text with a decimal or binary unit."""
    sections = {"source": {"path": "a"}, "kmeans": {"n_clusters": 1}, "output": {"path": "o"}}
    job = job_from_sections(sections | {"dask": {"block_bytes": size}}, "/")
    assert job.dask is not None
    assert job.dask.block_bytes == expected


def test_sets(tmp_path: Path) -> None:
    """A set overrides the file; its value is TOML, or else a string; it can open a section."""
    sets = [
        "kmeans.n_clusters=12",
        "source.columns=['a', 'b']",
        "kmeans.init=k-means++",
        "dask.workers=4",
        "source.filter=year >= 2013",
        "source.storage.region=eu",
        "output.path=s3://bucket/out",
    ]
    job = load_job(job_file(tmp_path), sets)
    assert job.kmeans.n_clusters == 12
    assert job.source.columns == ("a", "b")
    assert job.kmeans.init == "k-means++"
    assert job.dask is not None
    assert job.dask.workers == 4
    assert job.source.filter == "year >= 2013"
    assert job.source.storage.region == "eu"
    assert job.output.path == "s3://bucket/out"


@pytest.mark.parametrize(
    "text", ["kmeans.n_clusters", "n_clusters=3", ".=3", "kmeans.n_clusters.x=1", "kmeans. seed=1"]
)
def test_bad_set(tmp_path: Path, text: str) -> None:
    """A set that is no SECTION.KEY=VALUE is refused."""
    assert refusal(tmp_path, sets=(text,)).startswith("set: ")


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("kmeans.n_cluster", "Did you mean kmeans.n_clusters?"),
        ("kmean.seed", "Did you mean kmeans?"),
        ("kmeans.workers", "Did you mean dask.workers?"),
        ("source.storage.endpont", "Did you mean source.storage.endpoint?"),
        ("prepare.zzz", "Known here: scale, blocks."),
    ],
)
def test_unknown_key(tmp_path: Path, key: str, hint: str) -> None:
    """An unknown key is named with the nearest known one."""
    message = refusal(tmp_path, sets=(f"{key}=1",))
    assert "unknown key" in message
    assert hint in message


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (
            "kmeans.n_clusters=0",
            ["kmeans.n_clusters", "equal to 1", "found 0", "kmeans.n_clusters = 8"],
        ),
        ("kmeans.n_clusters=3.5", ["whole number", "found 3.5"]),
        ("kmeans.n_clusters=true", ["whole number", "found True"]),
        ("kmeans.n_clusters='3'", ["whole number", "found '3'"]),
        ("kmeans.tol=-1", ["kmeans.tol", "found -1", "0.0001"]),
        ("kmeans.tol=nan", ["kmeans.tol", "finite"]),
        ("kmeans.max_seconds=0", ["greater than 0"]),
        ("kmeans.seed=9223372036854775808", ["kmeans.seed", "less than 9223372036854775808"]),
        ("kmeans.seed=-1", ["kmeans.seed"]),
        ("kmeans.dtype=float16", ["'float32' or 'float64'", "found 'float16'"]),
        ("kmeans.init=kmeans++", ['Did you mean "k-means++"?']),
        ("source.columns=a", ["must be a list of strings", "found 'a'"]),
        ("source.columns=[]", ["must not be an empty list"]),
        ("source.ids=['a', 3]", ["source.ids[1]", "must be a string", "found 3"]),
        ("source.path=[]", ["source.path"]),
        ("source.path=7", ["must be a path or a list of paths"]),
        ("source.nulls=skip", ["'error', 'drop' or 'mean'"]),
        ("dask.memory_limit=lots", ["dask.memory_limit", 'like "64MiB"']),
        ("dask.block_bytes=10", ["dask.block_bytes"]),
        ("dask.workers=0", ["dask.workers"]),
        ("dask.address=scheduler", ["tcp://scheduler:8786"]),
        ("output.path=''", ["output.path", "must not be empty"]),
        ("prepare=1", ["set: 'prepare'"]),
    ],
)
def test_bad_value(tmp_path: Path, change: str, parts: list[str]) -> None:
    """A bad value is told with its key, the rule, the value found and a fix."""
    message = refusal(tmp_path, sets=(change,))
    assert [part for part in parts if part not in message] == [], message


def test_several_problems_at_once(tmp_path: Path) -> None:
    """Every problem of a job is listed in one error."""
    message = refusal(tmp_path, "[source]\npaht = 'x'\n[kmeans]\nn_init = 0\n")
    for key in (
        "source.path: required",
        "source.paht",
        "kmeans.n_clusters: required",
        "kmeans.n_init",
        "output:",
    ):
        assert key in message
    assert "5 problems" in message


def test_address_excludes_a_local_cluster(tmp_path: Path) -> None:
    """An address beside settings of a local cluster is refused; beside a block size it is not."""
    address = "dask.address=tcp://scheduler:8786"
    assert "workers" in refusal(tmp_path, sets=(address, "dask.workers=3"))
    assert load_job(job_file(tmp_path), [address, "dask.block_bytes=1MiB"]).dask is not None


@pytest.mark.parametrize(
    "change",
    [
        "source.path=s3://key:hunter2@bucket/x",
        "source.path=['a', 's3://hunter2@bucket/x']",
        "output.path=https://host/x?sig=hunter2",
        "kmeans.init=s3://key:hunter2@bucket/model",
        "source.storage.endpoint=http://key:hunter2@localhost:9000",
        "dask.address=tcp://key:hunter2@scheduler:8786",
        "source.storage.secret_access_key=hunter2",
        "source.weight={ a = 's3://key:hunter2@bucket' }",
    ],
)
def test_credentials_are_refused_and_not_repeated(tmp_path: Path, change: str) -> None:
    """Credentials in the job are an error, and the error does not show them."""
    assert "hunter2" not in refusal(tmp_path, sets=(change,))


def test_azure_containers_are_no_credentials(tmp_path: Path) -> None:
    """The container before an @ in an abfs URI is accepted."""
    uri = "abfs://container@account.dfs.core.windows.net/x"
    assert load_job(job_file(tmp_path), [f"source.path={uri}"]).source.path == (uri,)


def test_unreadable_files(tmp_path: Path) -> None:
    """A missing file, a directory, bad TOML and bytes that are no text are told as such."""
    with pytest.raises(ConfigError, match="no such job file"):
        load_job(tmp_path / "absent.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load_job(tmp_path)
    assert "not valid TOML" in refusal(tmp_path, "[source")
    (tmp_path / "job.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="UTF-8"):
        load_job(tmp_path / "job.toml")


def test_a_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    """A job written by an editor on Windows is read as any other."""
    path = tmp_path / "job.toml"
    path.write_bytes(b"\xef\xbb\xbf" + SMALL.replace("\n", "\r\n").encode())
    assert load_job(path).kmeans.n_clusters == 3


def test_base_directory_is_not_a_pattern(tmp_path: Path) -> None:
    """A bracket in the job file's own directory does not become part of its glob."""
    odd = tmp_path / "a[1]"
    odd.mkdir()
    assert load_job(job_file(odd)).source.path == (f"{tmp_path}/a[[]1]/data/*.parquet",)


def test_resolved_round_trips(tmp_path: Path) -> None:
    """The resolved job is JSON and gives the same job again."""
    job = load_job(job_file(tmp_path), ["dask.workers=2", "dask.memory_limit=1GiB"])
    sections = json.loads(json.dumps(resolved(job)))
    assert job_from_sections(sections, "/elsewhere") == job


def test_sections_may_be_validated_already(tmp_path: Path) -> None:
    """A flow hands over sections as models or as dicts, and overrides by dotted key."""
    job = load_job(job_file(tmp_path))
    sections = {"source": job.source, "kmeans": {"n_clusters": 4}, "output": job.output, "dask": None}
    again = job_from_sections(sections, tmp_path, {"kmeans.n_clusters": 9})
    assert again == job.model_copy(update={"kmeans": job.kmeans.model_copy(update={"n_clusters": 9})})


def test_a_job_is_frozen(tmp_path: Path) -> None:
    """No key of a job can be assigned."""
    job = load_job(job_file(tmp_path))
    with pytest.raises(ValidationError):
        job.kmeans.seed = 3


def test_schema_describes_every_key() -> None:
    """Every key has a description, and a default unless it is required: the form in a UI."""
    schema = Job.model_json_schema()
    for section in [schema, *schema["$defs"].values()]:
        for name, key in section["properties"].items():
            assert key.get("description"), name
            assert "default" in key or name in section["required"], name
