"""Scratch folders: gone with their job, however it ends, and never another's."""

import signal
import subprocess
import sys
from pathlib import Path

from pipeline.scratch import folder

ROOT = Path(__file__).parents[1]
HOLD = (
    "import sys, time\nfrom pipeline.scratch import folder\n"
    "with folder(sys.argv[1]) as path:\n    print(path, flush=True); time.sleep(60)\n"
)


def test_a_folder_ends_with_its_body(tmp_path: Path) -> None:
    """What was put into a folder goes with it."""
    with folder(str(tmp_path)) as path:
        (Path(path) / "file").touch()
        assert [Path(path)] == list(tmp_path.iterdir())
    assert list(tmp_path.iterdir()) == []


def test_the_folder_of_a_killed_process_is_removed_by_the_next(tmp_path: Path) -> None:
    """While a process lives its folder stays; once it was killed, whoever makes the next one removes it."""
    other = tmp_path / "kmeans-dask-of-another-program"
    other.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], cwd=ROOT, stdout=subprocess.PIPE) as p:
        assert p.stdout is not None
        theirs = Path(p.stdout.readline().decode().strip())
        with folder(str(tmp_path)) as ours:
            assert set(tmp_path.iterdir()) == {other, theirs, Path(ours)}
        p.send_signal(signal.SIGKILL)
    assert theirs.exists()
    with folder(str(tmp_path)) as ours:
        assert set(tmp_path.iterdir()) == {other, Path(ours)}
