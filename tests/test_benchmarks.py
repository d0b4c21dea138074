"""Benchmarks run once on a tiny size, so that they cannot rot."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_comparison_of_speed_runs(tmp_path: Path) -> None:
    """Ours and scikit-learn make the same number of passes and reach the same inertia, to float32."""
    out = tmp_path / "figures.json"
    command = [sys.executable, "-m", "benchmarks.lloyd", "W2", "--share", "0.002", "--repeats", "1"]
    peers = ["--peers", "ours", "scikit-learn", "--json", str(out)]
    subprocess.run([*command, *peers], cwd=ROOT, check=True, timeout=120, capture_output=True)
    figures = json.loads(out.read_text())["figures"]["W2"]
    assert figures["ours"]["iterations"] == figures["scikit-learn"]["iterations"]
    assert abs(figures["ours"]["inertia"] / figures["scikit-learn"]["inertia"] - 1) < 1e-4


def test_the_cost_of_blocks_runs(tmp_path: Path) -> None:
    """Both sides of the comparison of 2 and 512 blocks run on two workers, and every figure is there."""
    out = tmp_path / "figures.json"
    command = [
        sys.executable,
        "-m",
        "benchmarks.blocks",
        "--rows",
        "70000",
        "--repeats",
        "1",
        "--json",
        str(out),
    ]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120, capture_output=True)
    figures = json.loads(out.read_text())
    assert figures["few_ms"] > 0
    assert figures["many_ms"] > 0
    assert sorted(figures["trips_ms"]) == ["2", "512", "64"]
