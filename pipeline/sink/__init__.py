"""Labels, model, history -> committed files: the only writer and the only reader of an output's layout.

<output>/_LATEST.json                       run_id, sequence, previous: the run that readers see
<output>/runs/<run id>/labels/part-*.parquet
<output>/runs/<run id>/centroids.parquet, model.json, model.parquet, restarts.parquet
<output>/runs/<run id>/sweep.parquet, elbow.svg    of a job with several n_clusters
<output>/runs/<run id>/scores.parquet       of a job with a section [scores]
<output>/runs/<run id>/manifest.json        written last; a run without one does not exist for readers
"""

from pipeline.sink.commit import commit, discard
from pipeline.sink.parts import part_path, write_part
from pipeline.sink.probe import probe
from pipeline.sink.records import (
    CentroidTable,
    ClusterScores,
    PartRecord,
    RestartRow,
    RunRecord,
    SourceRecord,
)
from pipeline.sink.run_ids import new_run_id
from pipeline.sink.runs import Run, open_run
from pipeline.sink.tables import scores_bytes, sweep_bytes

__all__ = [
    "CentroidTable",
    "ClusterScores",
    "PartRecord",
    "RestartRow",
    "Run",
    "RunRecord",
    "SourceRecord",
    "commit",
    "discard",
    "new_run_id",
    "open_run",
    "part_path",
    "probe",
    "scores_bytes",
    "sweep_bytes",
    "write_part",
]
