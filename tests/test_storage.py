"""Stores: the same behaviour on a local directory and on two independent S3 servers."""

import os
import pickle
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kmeans_dask.errors import ConfigError, DataError, InfrastructureError, KMeansError
from pipeline.config import StorageConfig
from pipeline.storage import Entry, NoSuchFileError, Store, open_store, split_uri
from tests.s3_servers import ACCESS_KEY, SECRET_KEY, S3Server, admit, free_port

NASTY = "year=2013/a b/ü%20&#?*[x].parquet"


@pytest.fixture(params=["local", "moto", "rclone"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store of each kind."""
    if request.param == "local":
        return open_store(tmp_path / "data")
    server: S3Server = request.getfixturevalue(request.param)
    admit(server, monkeypatch)
    return open_store(server.make_bucket(f"b{time.time_ns()}") + "/some/prefix")


@pytest.fixture
def moto_store(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty bucket on moto."""
    admit(moto, monkeypatch)
    return open_store(moto.make_bucket(f"b{time.time_ns()}"))


def test_what_is_put_can_be_listed_and_read(store: Store) -> None:
    """Bytes come back as they were put, under any name, and lists are sorted and recursive."""
    for path in ("b.parquet", NASTY, "a/x", "a/y", "ab"):
        store.put(path, path.encode())
    assert [entry.path for entry in store.list()] == sorted(["b.parquet", NASTY, "a/x", "a/y", "ab"])
    assert [entry.path for entry in store.list("a")] == ["a/x", "a/y"]
    assert store.list("b.parquet") == [store.head("b.parquet")]
    assert store.list("nothing/here") == []
    assert store.read(NASTY) == NASTY.encode()
    assert [entry.path for entry in store.within("a").list()] == ["x", "y"]
    for entry in store.list():
        assert store.fetch(entry.path) == (entry, entry.path.encode())


def test_a_store_travels_without_its_client(store: Store) -> None:
    """A pickled store is the same store, and neither it nor its repr holds credentials."""
    store.put("x", b"1")
    pickled = pickle.dumps(store)
    again = pickle.loads(pickled)
    assert again == store
    assert again.read("x") == b"1"
    for secret in (ACCESS_KEY, SECRET_KEY):
        assert secret.encode() not in pickled
        assert secret not in repr(store)


def test_hidden_names_are_not_listed_but_deleted(store: Store) -> None:
    """Names that begin with a dot belong to writers at work; `delete_prefix` takes them too."""
    for path in ("run/.part.tmp", "run/part", "run/.d/x", "other"):
        store.put(path, b"1")
    assert [entry.path for entry in store.list()] == ["other", "run/part"]
    store.delete_prefix("run")
    with pytest.raises(NoSuchFileError):
        store.head("run/.part.tmp")
    assert [entry.path for entry in store.list()] == ["other"]
    store.delete("other")
    store.delete("other")
    assert store.list() == []


def test_what_is_missing_is_named(store: Store) -> None:
    """Reading what is not there names its address and exits with 2."""
    for read in (store.read, store.head, store.fetch):
        with pytest.raises(NoSuchFileError, match=r"gone\.parquet") as caught:
            read("gone.parquet")
        assert store.uri in str(caught.value)
        assert caught.value.exit_code == 2
    with pytest.raises(DataError, match="relative path"):
        store.read("../elsewhere")


@pytest.mark.parametrize("kind", ["local", "moto"])
def test_conditional_writes_compare(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """A write on a condition happens exactly when it holds."""
    store = open_store(tmp_path) if kind == "local" else request.getfixturevalue("moto_store")
    assert not store.replace("p", b"0", "1234")
    assert store.put_if_absent("p", b"1")
    assert not store.put_if_absent("p", b"2")
    tags = [store.head("p").tag]
    assert store.replace("p", b"3", tags[0])
    assert not store.replace("p", b"4", tags[0])
    assert not store.replace("p", b"4", None)
    assert store.read("p") == b"3"


def test_a_local_tag_never_stands_for_two_contents(tmp_path: Path) -> None:
    """Replaced as fast as the clock's grain allows, a file of one size has a new tag each time."""
    store = open_store(tmp_path)
    store.put("p", b"0")
    tags = [store.head("p").tag]
    for i in range(200):
        assert store.replace("p", str(i % 10).encode(), tags[-1])
        tags.append(store.head("p").tag)
    assert len(set(tags)) == 201
    assert os.listdir(tmp_path) == ["p"]


def parquet(rows: int = 50_000, seed: int = 0) -> bytes:
    """Two row groups of three columns that do not compress."""
    X = np.random.default_rng(seed).normal(size=(rows, 3))
    sink = pa.BufferOutputStream()
    table = pa.table({name: X[:, i] for i, name in enumerate("abc")})
    pq.write_table(table, sink, row_group_size=rows // 2, compression="none", use_dictionary=False)
    return bytes(sink.getvalue())


def test_parquet_is_read_through_a_store(store: Store) -> None:
    """Columns are read by pyarrow through an open entry, with pre-buffering on, from every kind of store."""
    data = parquet()
    store.put("x.parquet", data)
    [entry] = store.list()
    expected = pq.read_table(pa.BufferReader(data))
    with store.open(entry) as file, pq.ParquetFile(file, pre_buffer=True) as reader:
        assert reader.read_row_group(1, columns=["a", "c"]) == expected.slice(25_000).select(["a", "c"])
        assert reader.read() == expected


def test_each_column_chunk_is_fetched_once(moto_store: Store, moto: S3Server) -> None:
    """Projected chunks cost one fetch of each of their bytes, and no others are fetched."""
    moto_store.put("x.parquet", parquet())
    [entry] = moto_store.list()
    with moto_store.open(entry) as file, pq.ParquetFile(file, pre_buffer=True) as reader:
        metadata = reader.metadata
        before = len(moto.requests())
        for group in range(2):
            reader.read_row_group(group, columns=["a", "c"])
    bucket = moto_store.uri.removeprefix("s3://")
    ranges = [request.range for request in moto.requests()[before:] if bucket in request.path]
    counts = np.zeros(entry.size, dtype=int)
    for asked in ranges:
        assert asked is not None
        first, last = asked.removeprefix("bytes=").split("-")
        counts[int(first) : int(last) + 1] += 1
    for group in range(2):
        for column, times in enumerate((1, 0, 1)):
            chunk = metadata.row_group(group).column(column)
            start = chunk.data_page_offset
            assert set(counts[start : start + chunk.total_compressed_size]) == {times}
    assert len(ranges) == 4


def overwrite(store: Store, data: bytes) -> None:
    """Change a file under its readers: in place where there is such a thing."""
    if not store.uri.startswith("s3://"):
        with open(store.uri_of("x.parquet"), "r+b") as file:
            file.truncate(len(data))
            file.write(data)
            os.utime(file.fileno(), ns=(time.time_ns(), time.time_ns()))
    else:
        store.put("x.parquet", data)


@pytest.mark.parametrize("data", [parquet(seed=1), parquet(10), b""], ids=["same size", "shorter", "empty"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_changed_file_is_an_error(store: Store, rclone: S3Server, data: bytes, begun: bool) -> None:
    """A file that changed since the plan, or between two reads, is named with both states."""
    store.put("x.parquet", parquet())
    [entry] = store.list()
    with store.open(entry) as file:
        if begun:
            reader = pq.ParquetFile(file, pre_buffer=True)
        overwrite(store, data)
        if begun and getattr(store, "options", StorageConfig()).endpoint == rclone.endpoint:
            # Without ranges the planned version was fetched whole: it is what is read on.
            assert reader.read() == pq.read_table(pa.BufferReader(parquet()))
            return
        with pytest.raises(DataError, match=r"x\.parquet: the file changed while") as caught:
            reader.read_row_group(1) if begun else pq.ParquetFile(file)
    assert f"planned size {entry.size}, tag {entry.tag}; found size {len(data)}, tag" in str(caught.value)


def test_a_deleted_file_is_an_error(store: Store) -> None:
    """A file that is gone when it is opened or read is named."""
    store.put("x.parquet", parquet(10))
    [entry] = store.list()
    store.delete("x.parquet")
    with pytest.raises(NoSuchFileError, match=r"x\.parquet"), store.open(entry) as file:
        file.read(4)


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("gs://bucket/x", "gs://: this kind of store is not supported"),
        ("s3://key:hidden@bucket/x", "credentials belong in the environment"),
        ("s3:///x", "the bucket is missing"),
        ("file://host/x", "names a file of this machine"),
    ],
)
def test_an_address_we_do_not_serve_is_refused(uri: str, message: str) -> None:
    """Bad addresses are configuration errors, and what may be a secret in them is not repeated."""
    with pytest.raises(ConfigError, match=message) as caught:
        open_store(uri)
    assert "hidden" not in str(caught.value)


def test_file_uris_are_local(tmp_path: Path) -> None:
    """A `file://` URI is decoded and means the same directory as its path."""
    (tmp_path / "a b").mkdir()
    assert open_store((tmp_path / "a b").as_uri()) == open_store(tmp_path / "a b")
    assert split_uri("s3://b/x/y.parquet") == ("s3://b/x", "y.parquet")
    assert split_uri((tmp_path / "a b").as_uri())[1] == "a b"
    assert split_uri(str(tmp_path / "f")) == (str(tmp_path), "f")


def test_a_directory_that_cannot_be_written_is_a_configuration_error(tmp_path: Path) -> None:
    """An output below a file, or where nothing may be made, is refused with the path."""
    (tmp_path / "file").write_bytes(b"")
    for place in (str(tmp_path / "file"), str(tmp_path / "file/below"), "/proc/no/such"):
        for write in (open_store(place).put, open_store(place).put_if_absent):
            with pytest.raises(ConfigError, match="cannot be written"):
                write("x", b"1")


def test_lists_follow_links_but_not_in_circles(tmp_path: Path) -> None:
    """A linked directory is read as if it lay there; a link to a directory above ends."""
    (tmp_path / "real").mkdir()
    (tmp_path / "real/x").write_bytes(b"1")
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/up").symlink_to("..")
    assert [entry.path for entry in open_store(tmp_path).list()] == ["link/x", "real/x"]


def test_a_missing_bucket_is_named(moto: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bucket that is not there is bad input, to read from and to write to."""
    admit(moto, monkeypatch)
    store = open_store("s3://no-such-bucket/x")
    with pytest.raises(DataError, match="no such bucket"):
        store.list()
    with pytest.raises(ConfigError, match="no such bucket"):
        store.put("x", b"1")


def requests_of(store: Store) -> list[Callable[[], object]]:
    """One of each kind of request."""
    entry = Entry("x", 10, "tag")
    return [
        store.list,
        lambda: store.read("x"),
        lambda: store.head("x"),
        lambda: store.put("x", b"1"),
        lambda: store.put_if_absent("x", b"1"),
        lambda: store.replace("x", b"1", "tag"),
        lambda: store.open(entry).read(4),
        lambda: store.delete("x"),
    ]


def test_refused_credentials_are_an_infrastructure_error(
    rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every request with a wrong secret exits with 3 and shows neither key nor secret."""
    admit(rclone, monkeypatch)
    uri = rclone.make_bucket(f"b{time.time_ns()}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-" + SECRET_KEY)
    for request in requests_of(open_store(uri)):
        with pytest.raises(InfrastructureError, match="refused the credentials") as caught:
            request()
        assert caught.value.exit_code == 3
        assert caught.value.__cause__ is None
        assert SECRET_KEY not in str(caught.value)
        assert ACCESS_KEY not in str(caught.value)


def test_an_endpoint_nobody_listens_on_fails_soon(rclone: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A closed port is an infrastructure error that names the endpoint, within seconds."""
    admit(rclone, monkeypatch)
    endpoint = f"http://127.0.0.1:{free_port()}"
    store = open_store("s3://bucket/x", StorageConfig(endpoint=endpoint))
    start = time.monotonic()
    with pytest.raises(InfrastructureError, match="does not answer") as caught:
        store.read("x")
    assert endpoint in str(caught.value)
    assert time.monotonic() - start < 15


@pytest.fixture
def silent() -> Iterator[str]:
    """An endpoint that accepts connections and never says a word."""
    connections = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def accept() -> None:
            while True:
                try:
                    connections.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
    for connection in connections:
        connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1, 3])
def test_an_endpoint_that_is_silent_fails_within_half_a_minute(
    silent: str, number: int, rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that never answers is given up in time."""
    admit(rclone, monkeypatch)
    request = requests_of(open_store("s3://bucket/x", StorageConfig(endpoint=silent)))[number]
    start = time.monotonic()
    with pytest.raises(InfrastructureError, match="does not answer"):
        request()
    assert time.monotonic() - start < 30


def test_a_signal_does_not_wait_for_a_silent_server(
    silent: str, rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGINT ends the main thread's wait at once, whatever the server does."""
    admit(rclone, monkeypatch)
    store = open_store("s3://bucket/x", StorageConfig(endpoint=silent))
    timer = threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT))
    # A shell starts what runs in its background with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        start = time.monotonic()
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            store.read("x")
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - start < 5


def test_a_large_file_goes_in_pieces_and_appears_whole(store: Store) -> None:
    """An upload above the size of a piece is one file of the same bytes, with one tag in list and read."""
    data = np.random.default_rng(0).bytes(17 * 2**20)
    store.put("large", data)
    [entry] = store.list()
    assert store.fetch("large") == (entry, data)
    with store.open(entry) as file:
        file.seek(-10, os.SEEK_END)
        assert file.read() == data[-10:]


def test_an_option_of_the_job_goes_before_the_environment(
    rclone: S3Server, moto: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Endpoint and region are settled once: job, then environment; and travel with the store."""
    admit(rclone, monkeypatch)
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", rclone.endpoint)
    bucket = moto.make_bucket(f"b{time.time_ns()}")
    store = open_store(bucket, StorageConfig(endpoint=moto.endpoint))
    store.put("x", b"on moto")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    assert store.read("x") == b"on moto"
    with pytest.raises(ConfigError, match=r"storage\.endpoint"):
        open_store(bucket, StorageConfig(endpoint="localhost:9000"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://key:hidden@host")
    with pytest.raises(ConfigError, match="belong in the environment") as caught:
        open_store(bucket)
    assert "hidden" not in str(caught.value)


@pytest.fixture
def profiles(rclone: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home with two files of the AWS tools, and no keys in the environment."""
    admit(rclone, monkeypatch)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name)
    home = tmp_path / ".aws"
    home.mkdir()
    keys = f"aws_access_key_id = {ACCESS_KEY}\naws_secret_access_key = {SECRET_KEY}\n"
    (home / "credentials").write_text(f"[default]\n{keys}\n[work]\n{keys}\n")
    (home / "config").write_text(
        f"[profile work]\nendpoint_url = {rclone.endpoint}\n[profile role]\nrole_arn = arn:x\n"
    )
    monkeypatch.setenv("HOME", str(tmp_path))
    return home


def test_a_profile_gives_keys_and_endpoint(
    profiles: Path, rclone: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AWS_PROFILE is resolved here, as the client underneath does not know it."""
    uri = rclone.make_bucket(f"b{time.time_ns()}")
    monkeypatch.setenv("AWS_PROFILE", "work")
    store = open_store(uri)
    store.put("x", b"1")
    assert store.read("x") == b"1"
    monkeypatch.delenv("AWS_PROFILE")
    assert open_store(uri, StorageConfig(endpoint=rclone.endpoint)).read("x") == b"1"


@pytest.mark.parametrize(("name", "message"), [("nobody", "no profile 'nobody'"), ("role", "role_arn")])
def test_a_profile_we_cannot_use_is_refused(
    profiles: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    """A profile that is not there, or whose keys another service gives, is a clear error."""
    monkeypatch.setenv("AWS_PROFILE", name)
    with pytest.raises(ConfigError, match=message):
        open_store("s3://bucket/x")


def test_a_damaged_credentials_file_is_not_quoted(profiles: Path) -> None:
    """A parse error names the file and keeps its lines to itself."""
    (profiles / "credentials").write_text(f"aws_secret_access_key = {SECRET_KEY}\n")
    with pytest.raises(ConfigError, match="credentials: it cannot be read") as caught:
        open_store("s3://bucket/x")
    assert SECRET_KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_half_of_a_key_pair_is_refused(profiles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key without its secret is a mistake, not a reason to look elsewhere."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    with pytest.raises(KMeansError, match="one is set without the other"):
        open_store("s3://bucket/x")
