"""What whole jobs ask of an object store, with whose credentials, and where these go."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.jobs import command
from tests.outputs import Output, chain, s3_output
from tests.s3_gate import gate_before
from tests.s3_jobs import committed, environment, new_bucket, upload, write_job, write_source
from tests.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server, free_port

FEATURES, IDS, OTHERS = ["x", "y"], ["id", "name"], ["w", "year"]
TOKEN = "token-of-the-session-that-nobody-shall-see"


def write_wide(folder: Path) -> list[Path]:
    """Write three files of three row groups; a last column, of no use, lies where a footer's read begins."""
    draw, paths, n_rows = np.random.default_rng(2), [], 60_000
    for number in range(3):
        columns: dict[str, Any] = {name: draw.normal(size=n_rows) for name in (*FEATURES, "idle")}
        columns |= {"id": np.arange(n_rows), "name": draw.integers(0, 2**40, n_rows).astype(str)}
        columns |= {"w": draw.random(n_rows), "year": np.repeat([2012, 2013, 2014], n_rows // 3)}
        columns["pad"] = draw.random(n_rows)
        paths.append(folder / f"wide-{number}.parquet")
        pq.write_table(pa.table(columns), paths[-1], row_group_size=n_rows // 3, use_dictionary=False)
    return paths


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dask", "kmeans"),
    [
        (None, {"n_init": 10}),
        ({"workers": 2, "block_bytes": "64KiB"}, {"n_init": 10}),
        ({"workers": 2}, {"n_init": 10}),
        (None, {"n_init": 2, "n_clusters": [2, 3, 5]}),
        ({"workers": 2}, {"n_init": 2, "n_clusters": [2, 3, 5]}),
    ],
    ids=["here", "split", "joined", "sweep", "joined sweep"],
)
def test_each_column_chunk_is_read_once(
    dask: dict[str, Any] | None, kmeans: dict[str, Any], moto: S3Server, tmp_path: Path
) -> None:
    """With many restarts or numbers of clusters every byte of a used column chunk is asked for once, no other."""
    output, paths, bucket = s3_output(moto), write_wide(tmp_path), new_bucket(moto)
    used = {"columns": FEATURES, "ids": IDS, "weight": "w", "filter": "year >= 2013"}
    job = write_job(
        tmp_path / "job.toml",
        upload(moto, bucket, paths),
        output.uri,
        source=used,
        kmeans={"max_iter": 5, **kmeans},
        **({"dask": dask} if dask else {}),
    )
    with gate_before(moto) as gate:
        committed(job, environment(gate.server))
    for path in paths:
        key = f"/{bucket.removeprefix('s3://')}/data/{path.name}"
        spans = [span for asked in gate.asked if asked.path == key and (span := asked.span)]
        assert all(asked.span for asked in gate.asked if asked.path == key and asked.method == "GET")
        check_spans(path, spans)


def check_spans(path: Path, spans: list[tuple[int, int]]) -> None:
    """Compare the ranges of one file that were asked for with its footer."""
    metadata, size = pq.read_metadata(path), path.stat().st_size
    footers = [span for span in spans if span[1] == size]
    assert len(footers) == 1
    counts = np.zeros(size, int)
    for start, stop in spans:
        counts[start:stop] += (start, stop) not in footers
    expected = np.zeros(size, int)
    for group in range(1, 3):  # the statistics of the first say that the filter leaves it out
        for index in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(index)
            if chunk.path_in_schema in (*FEATURES, *IDS, *OTHERS):
                start = chunk.data_page_offset
                expected[start : start + chunk.total_compressed_size] = 1
                assert start + chunk.total_compressed_size <= footers[0][0]
    assert np.array_equal(counts, expected)


@pytest.mark.slow
def test_the_output_is_probed_before_anything_is_read(moto: S3Server, tmp_path: Path) -> None:
    """The probe is written, replaced on a condition and removed before the first request for the source's bytes."""
    output, bucket = s3_output(moto), new_bucket(moto)
    data = upload(moto, bucket, write_source(tmp_path / "data"))
    with gate_before(moto) as gate:
        committed(write_job(tmp_path / "job.toml", data, output.uri), environment(gate.server))
    first = next(i for i, asked in enumerate(gate.asked) if asked.path.startswith(f"/{bucket[5:]}"))
    probes = [asked.method for asked in gate.asked[:first] if "/.probe-" in asked.path]
    assert probes == ["PUT", "PUT", "PUT", "HEAD", "PUT"]
    assert gate.asked[first - 1].method == "POST"  # a deletion: the names are in its body
    assert not any("/.probe-" in asked.path for asked in gate.asked[first:])


@contextmanager
def watched(folder: Path) -> Iterator[dict[Path, bytes]]:
    """Keep the bytes of every file that is ever in a folder."""
    seen: dict[Path, bytes] = {}
    stop = threading.Event()

    def look() -> None:
        while not stop.wait(0.02):
            for path in folder.rglob("*"):
                try:
                    seen[path] = path.read_bytes()
                except OSError:
                    continue

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        stop.set()
        thread.join()


def everything_in(output: Output) -> list[bytes]:
    return [output.read(name) for name in output.names()]


def check_no_secret(texts: list[bytes]) -> None:
    for text in texts:
        for secret in (ACCESS_KEY, SECRET_KEY, TOKEN):
            assert secret.encode() not in text


@pytest.mark.slow
def test_credentials_are_in_no_file_and_no_log(moto: S3Server, tmp_path: Path) -> None:
    """Neither in the output, nor in what the job says with --verbose, nor in the scratch files of its workers."""
    output, scratch = s3_output(moto), tmp_path / "scratch"
    scratch.mkdir()
    job = write_job(
        tmp_path / "job.toml",
        upload(moto, new_bucket(moto), write_source(tmp_path / "data")),
        output.uri,
        dask={"workers": 2, "local_directory": str(scratch)},
    )
    with watched(scratch) as seen:
        done = command(
            "run", job, "--no-prefect", "--verbose", env=environment(moto, AWS_SESSION_TOKEN=TOKEN)
        )
    assert done.returncode == 0, done.stderr
    assert seen
    assert "DEBUG" in done.stderr
    assert len(chain(output)) == 1
    check_no_secret([done.stdout.encode(), done.stderr.encode(), *everything_in(output), *seen.values()])


@pytest.mark.slow
def test_credentials_do_not_reach_prefect(moto: S3Server, tmp_path: Path) -> None:
    """A flow run leaves no credentials in the server's database, its logs or anything else under its home."""
    output, home = s3_output(moto), tmp_path / "home"
    data = upload(moto, new_bucket(moto), write_source(tmp_path / "data"))
    job = write_job(tmp_path / "job.toml", data, output.uri)
    env = environment(moto, AWS_SESSION_TOKEN=TOKEN, HOME=str(home), PREFECT_HOME=str(home / ".prefect"))
    done = command("run", job, "--verbose", env=env)
    assert done.returncode == 0, done.stderr
    files = [path.read_bytes() for path in home.rglob("*") if path.is_file()]
    assert any(b"SQLite format 3" in data[:20] for data in files)
    check_no_secret([done.stdout.encode(), done.stderr.encode(), *everything_in(output), *files])


@pytest.mark.slow
def test_refused_credentials_are_not_repeated(rclone: S3Server, tmp_path: Path) -> None:
    """A secret that the server refuses ends the job with 3, says so, and is not shown."""
    output = s3_output(rclone)
    data = upload(rclone, new_bucket(rclone), write_source(tmp_path / "data"))
    job = write_job(tmp_path / "job.toml", data, output.uri)
    env = environment(rclone, AWS_SECRET_ACCESS_KEY="wrong-" + SECRET_KEY, AWS_SESSION_TOKEN=TOKEN)
    done = command("run", job, "--no-prefect", "--verbose", env=env)
    assert done.returncode == 3
    assert "refused the credentials" in done.stderr
    assert output.names() == []
    check_no_secret([done.stderr.encode(), done.stdout.encode()])


def allow_reading(server: S3Server, bucket: str) -> None:
    """Let everybody read a bucket's objects."""
    allowed = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{bucket}/*",
    }
    client = server.client()
    client.put_bucket_policy(
        Bucket=bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    )
    client.close()


@pytest.mark.slow
@pytest.mark.parametrize("public", [True, False])
def test_an_anonymous_source_is_read_without_credentials(
    public: bool, moto: S3Server, tmp_path: Path
) -> None:
    """With anonymous = true no request for the source is signed, though the output's are; a private one exits 3."""
    output, bucket = s3_output(moto), new_bucket(moto)
    data = upload(moto, bucket, write_source(tmp_path / "data"))
    if public:
        allow_reading(moto, bucket[5:])
    job = write_job(tmp_path / "job.toml", data, output.uri, source={"storage.anonymous": True})
    with gate_before(moto) as gate:
        done = command("run", job, "--no-prefect", env=environment(gate.server))
    source = [asked for asked in gate.asked if asked.path.startswith(f"/{bucket[5:]}")]
    assert source
    assert not any(asked.signed for asked in source)
    assert all(asked.signed for asked in gate.asked if asked not in source)
    if public:
        assert done.returncode == 0, done.stderr
        assert len(chain(output)) == 1
    else:
        assert done.returncode == 3, done.stderr
        assert "refused the credentials or the access" in done.stderr
        assert output.names() == []


@pytest.mark.slow
@pytest.mark.parametrize("dask", [False, True], ids=["here", "dask"])
def test_the_job_file_names_an_endpoint_for_each_side(
    dask: bool, moto: S3Server, rclone: S3Server, tmp_path: Path
) -> None:
    """Source on one server, results on another: the job's endpoints go before the environment's."""
    output = s3_output(rclone)
    data = upload(moto, new_bucket(moto), write_source(tmp_path / "data"))
    sections: dict[str, Any] = {
        "source": {"storage.endpoint": moto.endpoint},
        "output": {"storage.endpoint": rclone.endpoint},
    }
    job = write_job(
        tmp_path / "job.toml", data, output.uri, **sections, **({"dask": {"workers": 2}} if dask else {})
    )
    nobody = f"http://127.0.0.1:{free_port()}"
    committed(job, environment(moto, AWS_ENDPOINT_URL=nobody, AWS_ENDPOINT_URL_S3=nobody))
    [manifest] = chain(output)
    assert manifest["job"]["source"]["storage"]["endpoint"] == moto.endpoint
    assert manifest["job"]["output"]["storage"]["endpoint"] == rclone.endpoint
