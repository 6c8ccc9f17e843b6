"""Names of what judging a dataset leaves in it, below ``quality/``.

::

    quality/policies/<policy16>.json                     a policy that was applied, with every threshold in force
    quality/segmenters-<digest12>.json                   networks that cases were judged by when they were made
    quality/targets-<digest12>.json                      what the set should look like, as a recipe said; the last written counts
    quality/measured-<digest12>.parquet                  scores measured later than the catalog's
    quality/verdicts-<policy16>-<digest12>.parquet       verdicts under that policy
    quality/duplicates-<digest12>.parquet                pairs of cases that are alike
    quality/set-<digest12>.json                          measures of the whole set (see ``set_measures``)

Files are made once and never changed: their names hold a digest of their content. Targets asked for again are written again.
"""

from __future__ import annotations

import hashlib
from io import BytesIO

import pyarrow as pa
import pyarrow.parquet as pq

from ctmr_core.quality.agreement import read_segmenters
from ctmr_core.store.storage import Storage, checked_name

QUALITY = "quality"
POLICIES = "quality/policies"
POLICY_DIGITS = 16
DIGITS = 12
_ROW_GROUP = 16_384


def policy_name(digest: str) -> str:
    """The document of a policy."""
    return checked_name(POLICIES, f"{digest[:POLICY_DIGITS]}.json")


def keep_segmenters(storage: Storage, text: str) -> None:
    """Keep what ``quality.agreement.written_segmenters`` gave, for cases to be judged by it again."""
    storage.create(_segmenters_name(read_segmenters(text).digest), text.encode())


def stored_segmenters(storage: Storage, digest: str) -> str:
    """What was kept of the segmenters of this digest; "" when they are not there."""
    try:
        return storage.read(_segmenters_name(digest)).decode()
    except FileNotFoundError:
        return ""


def _segmenters_name(digest: str) -> str:
    return checked_name(QUALITY, f"segmenters-{digest[:DIGITS]}.json")


def tables(storage: Storage, kind: str) -> list[str]:
    """Names of the tables of a kind (``verdicts-<policy16>``, ``measured``, ``duplicates``), the last written first."""
    found = [entry for entry in storage.list(QUALITY) if entry.name.startswith(f"{QUALITY}/{kind}-")]
    ordered = sorted(found, key=lambda entry: (entry.modified, entry.name), reverse=True)
    return [entry.name for entry in ordered if entry.name.endswith(".parquet")]


def write_table(storage: Storage, kind: str, table: pa.Table) -> str:
    """Keep a table under a name that holds the digest of its bytes; the name. Equal tables are kept once."""
    sink = BytesIO()
    nested = [field.name for field in table.schema if pa.types.is_nested(field.type)]
    plain = {"case_id", "case_key"}
    statistics = [name for name in table.column_names if name not in nested]
    dictionary = [name for name in table.column_names if name not in plain]
    with pq.ParquetWriter(
        sink,
        table.schema,
        compression="zstd",
        use_dictionary=[*dictionary, *_leaves(table.schema)],
        write_statistics=statistics,
        write_page_checksum=True,
    ) as writer:
        writer.write_table(table, row_group_size=_ROW_GROUP)
    data = sink.getvalue()
    name = checked_name(QUALITY, f"{kind}-{hashlib.sha256(data).hexdigest()[:DIGITS]}.parquet")
    storage.create(name, data)
    return name


def _leaves(schema: pa.Schema) -> list[str]:
    """Parquet's paths of what repeats inside lists and maps."""
    lists = [f"{field.name}.list.element" for field in schema if pa.types.is_list(field.type)]
    return lists + [f"{field.name}.key_value.key" for field in schema if pa.types.is_map(field.type)]
