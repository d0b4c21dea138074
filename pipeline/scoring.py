"""How clusters score, for those who ask for it: blocks and centroids -> what the manifest and scores.parquet tell."""

import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa

from kmeans_dask.agreement import Pairs, agreement
from kmeans_dask.blocks import Blocks
from kmeans_dask.elbow_picture import elbow_svg
from kmeans_dask.errors import ConfigError
from kmeans_dask.metrics import Metrics, metrics
from kmeans_dask.model import Model
from kmeans_dask.samples import Sample, sampled, silhouettes
from kmeans_dask.sweep import Sweep, sample_rows_of
from pipeline.config import Job
from pipeline.labels import Written
from pipeline.runner import Runner
from pipeline.sink import ClusterScores, RunRecord, scores_bytes, sweep_bytes
from pipeline.source import Plan

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """The scores of one model; silhouette: of a sample's rows, None where it is not defined."""

    metrics: Metrics
    silhouette: float | None
    sample_rows: int


def check_groups(job: Job, plan: Plan) -> None:
    """Refuse a column of groups whose values cannot be counted."""
    groups = groups_of(job)
    if groups is None or not plan.files or groups in dict(plan.partitions):
        return
    type_ = plan.files[0].metadata.schema.to_arrow_schema().field(groups).type
    if pa.types.is_nested(type_):
        raise ConfigError(
            f"scores.groups: {plan.place} has {groups!r} as {type_}, whose values are not names of groups. "
            "Name a column of strings or whole numbers."
        )


def groups_of(job: Job) -> str | None:
    """Return the id column that holds known groups, if there is one."""
    return None if job.scores is None else job.scores.groups


def score(
    blocks: Blocks, model: Model, job: Job, runner: Runner, sweep: Sweep | None = None
) -> Scored | None:
    """Return the scores of a model, those of its sweep where there was one; None where no job asks for them."""
    if job.scores is None:
        return None
    if sweep is not None:
        at = [row.n_clusters for row in sweep.scores].index(sweep.choice.n_clusters)
        return Scored(sweep.measured[at], sweep.scores[at].silhouette, sweep.sample_rows)
    n_rows = sample_rows_of((model.n_clusters,), job.scores.sample_rows)
    sample = runner.step("sample", sampled, blocks, n_rows, job.kmeans.seed)
    measured = runner.step("scores", metrics, blocks, model.centroids)
    return Scored(measured, runner.step("silhouettes", _silhouette, sample, model), len(sample.weights))


def _silhouette(sample: Sample, model: Model) -> float | None:
    (found,) = silhouettes(sample, [sample.labels(model.centroids)])
    return found


def with_scores(record: RunRecord, scored: Scored | None, model: Model, written: Written) -> RunRecord:
    """Return a record that tells how the clusters score, in all and each; without scores, the record as it is."""
    if scored is None:
        return record
    measured = scored.metrics
    told = {
        "silhouette": scored.silhouette,
        "sample_rows": scored.sample_rows,
        "simplified_silhouette": measured.simplified_silhouette,
        "davies_bouldin": measured.davies_bouldin,
        "calinski_harabasz": measured.calinski_harabasz,
        **compared_with(written.groups, written.pairs),
    }
    clusters = ClusterScores(
        model.cluster_ids, measured.sizes, measured.weights, measured.spreads, measured.silhouettes,
        measured.quantiles, measured.distance_quantiles,
    )  # fmt: skip
    return _with(record, {"scores.parquet": scores_bytes(clusters)}, "scores", told)


def compared_with(groups: str | None, counts: Pairs | None) -> dict[str, Any]:
    """Return how well clusters agree with a column of known groups, by how often each meets each."""
    if groups is None:
        return {}
    if not counts:
        found = "too many values to be names of groups" if counts is None else "no value beside a cluster"
        logger.warning("scores.groups: %r holds %s; it is not compared with the clusters", groups, found)
        return {"groups": None}
    return {"groups": {"column": groups, **asdict(agreement(counts))}}


def with_sweep(record: RunRecord, sweep: Sweep | None) -> RunRecord:
    """Return a record that tells, and shows, how the number of clusters was chosen."""
    if sweep is None:
        return record
    choice = sweep.choice
    files = {
        "sweep.parquet": sweep_bytes(sweep.scores, choice.n_clusters, sweep.sample_rows),
        "elbow.svg": elbow_svg(sweep),
    }
    told = {
        "why": choice.why,
        "elbow": choice.elbow,
        "sample_rows": sweep.sample_rows,
        "scores": [asdict(score) for score in sweep.scores],
    }
    return _with(record, files, "sweep", told)


def _with(record: RunRecord, files: Mapping[str, bytes], name: str, told: dict[str, Any]) -> RunRecord:
    return replace(record, score_files={**record.score_files, **files}, result={**record.result, name: told})
