"""What a flow run leaves to look at in Prefect: the table of restarts and a summary of the result."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from flows.scores import score_lines, sweep_cells

if TYPE_CHECKING:
    from kmeans_dask.lloyd import Fit
    from pipeline.sink import Run


def name_flow_run(name: str) -> None:
    """Name the current flow run."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return
    with get_client(sync_client=True) as client:
        client.set_flow_run_name(context.flow_run.id, name)
    context.flow_run.name = name


def publish_restarts(fits: "Sequence[Fit]") -> None:
    """Leave one row for each restart."""
    table = [
        {
            "n_clusters": len(fit.sizes),
            "restart": fit.restart,
            "seed": str(fit.seed),  # beyond what a browser's numbers hold
            "inertia": fit.inertia,
            "distortion": fit.distortion,
            "iterations": fit.n_iter,
            "stop": fit.stop,
            "seconds": round(sum(progress.seconds for progress in fit.history), 3),
        }
        for fit in fits
    ]
    create_table_artifact(
        table, key="kmeans-restarts", description="The restarts; the lowest inertia is kept."
    )


def publish_summary(run: "Run") -> None:
    """Leave what was found and where it lies."""
    result = run.manifest["result"]
    told = {key: value for key, value in result.items() if key not in ("sizes", "sweep", "scores")}
    told |= score_lines(result["scores"]) if "scores" in result else {}
    rows = "\n".join(f"| {key} | {value} |" for key, value in told.items())
    sizes = "\n".join(f"| {row} | {size} |" for row, size in enumerate(result["sizes"]))
    create_markdown_artifact(
        f"# Run {run.run_id}\n\nCommitted to `{run.uri}`\n\n"
        f"| result | |\n|---|---|\n{rows}\n{_sweep(result.get('sweep'))}"
        f"\n| cluster | rows |\n|---|---|\n{sizes}\n",
        key="kmeans-summary",
        description=f"The result of run {run.run_id}.",
    )


def _sweep(sweep: "dict[str, Any] | None") -> str:
    """Return how the number of clusters was chosen, as markdown; nothing where there was one."""
    if sweep is None:
        return ""
    head, *rows = sweep_cells(sweep)
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"\n{sweep['why']}\n\n{table}\n"
