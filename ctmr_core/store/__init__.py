"""The dataset on disk: volumes (Zarr), catalog (Parquet), commits, resume and verification."""

from ctmr_core.store.catalog import build_row, seal, seal_missing
from ctmr_core.store.commits import (
    CommitOutcome,
    CommitRecord,
    FailureRecord,
    commit,
    new_attempt_id,
    read_commit,
    read_failures,
    record_failure,
)
from ctmr_core.store.compaction import compact
from ctmr_core.store.dataset import Dataset
from ctmr_core.store.gc import GcReport, collect, orphans, sweep
from ctmr_core.store.layout import volume_path
from ctmr_core.store.lazy import Volume
from ctmr_core.store.lock import RunLock
from ctmr_core.store.progress import status
from ctmr_core.store.resume import Resume, Todo, resume
from ctmr_core.store.snapshots import (
    Snapshot,
    SnapshotDiff,
    create_snapshot,
    delete_snapshot,
    diff_snapshots,
    list_snapshots,
    read_snapshot,
    snapshot_volumes,
)
from ctmr_core.store.storage import Storage, open_storage
from ctmr_core.store.verify import Problem, VerifyReport, verify
from ctmr_core.store.volumes import StoredVolume, write_volume

__all__ = [
    "CommitOutcome",
    "CommitRecord",
    "Dataset",
    "FailureRecord",
    "GcReport",
    "Problem",
    "Resume",
    "RunLock",
    "Snapshot",
    "SnapshotDiff",
    "Storage",
    "StoredVolume",
    "Todo",
    "VerifyReport",
    "Volume",
    "build_row",
    "collect",
    "commit",
    "compact",
    "create_snapshot",
    "delete_snapshot",
    "diff_snapshots",
    "list_snapshots",
    "new_attempt_id",
    "open_storage",
    "orphans",
    "read_commit",
    "read_failures",
    "read_snapshot",
    "record_failure",
    "resume",
    "seal",
    "seal_missing",
    "snapshot_volumes",
    "status",
    "sweep",
    "verify",
    "volume_path",
    "write_volume",
]
