"""Exports: MB of voxels per processor second for every format, and memory as the number of cases grows.

Run ``python benchmarks/export.py [--size 128] [--cases 2 8] [--formats nifti dicom] [--json]``. Every measurement is a process of
its own: processor seconds (user and system) of the export alone and the greatest resident memory of the process. MB are of int16
image and uint8 label map as they are in memory. Peer: nibabel writing the same arrays from memory at its default compression,
without a dataset, digests or a journal.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pyarrow as pa
from store import make_case

from ctmr_core.anatomy.label_census import take_census
from ctmr_core.cases.case import Case
from ctmr_core.exchange import Selection, export, load_exporter
from ctmr_core.store import CommitRecord, Dataset, build_row, commit, new_attempt_id, seal, volume_path, write_volume

FORMATS: dict[str, tuple[str, dict[str, str]]] = {
    "nifti": ("nifti", {}),
    "nifti, .nii": ("nifti", {"suffix": "nii"}),
    "nnunet": ("nnunet", {}),
    "nnunet-preprocessed": ("nnunet-preprocessed", {}),
    "monai": ("monai", {}),
    "huggingface": ("huggingface", {}),
    "croissant": ("croissant", {}),
    "webdataset": ("webdataset", {"cases_per_shard": "2"}),
    "webdataset, .npy": ("webdataset", {"voxels": "npy", "cases_per_shard": "2"}),
    "dicom, SEG binary": ("dicom", {}),
    "dicom, SEG labelmap": ("dicom", {"seg": "labelmap"}),
    "dicom, RTSTRUCT": ("dicom", {"seg": "none", "rtstruct": "yes"}),
}
PEER = "nibabel"


def make_dataset(folder: Path, size: int, count: int) -> None:
    """``count`` cases with the same CT-like image and label map."""
    image, label_map = make_case(size)
    cases = [
        Case(case_id=f"case-{i}", body="parametric:torso", body_seed=i, sequences=("ct",), size=(size,) * 3, spacing=(1.5,) * 3)
        for i in range(count)
    ]
    plan = pa.table({"case_id": [case.case_id for case in cases], "case_key": [case.key for case in cases]})
    dataset = Dataset.create(folder, plan)
    census = take_census(label_map)
    for case in cases:
        attempt = new_attempt_id()
        stored = write_volume(
            dataset.storage,
            volume_path(case.case_id, attempt),
            images={"ct": image},
            label_map=label_map,
            attributes={"case_id": case.case_id},
        )
        row = build_row(case, label_map=label_map, census=census)
        record = CommitRecord.accepted(case.case_id, case.key, attempt=0, attempt_id=attempt, stored=stored, row=row)
        commit(dataset.storage, record)
    seal(dataset.storage, "unit", [(case.case_id, case.key) for case in cases])


def measure(name: str, folder: Path, out: Path) -> dict[str, float]:
    """One export in this process."""
    dataset = Dataset.open(folder)
    if name == PEER:
        volumes = [(np.asarray(dataset[case].images["ct"]), np.asarray(dataset[case].labels)) for case in dataset]
        begun = time.process_time()
        for number, arrays in enumerate(volumes):
            for kind, array in enumerate(arrays):
                nib.save(nib.Nifti1Image(array, dataset["case-0"].affine), out / f"{number}_{kind}.nii.gz")
    else:
        format_name, settings = FORMATS[name]
        exporter = load_exporter(format_name, settings)
        with tempfile.TemporaryDirectory() as first:  # what is imported on first use is not what is measured
            export(dataset, exporter, Path(first), selection=Selection(limit=1))
        begun = time.process_time()
        export(dataset, exporter, out)
    seconds = time.process_time() - begun
    written = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    return {"seconds": seconds, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "out_mb": written / 1e6}


def in_a_process(name: str, folder: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, __file__, "--one", name, "--dataset", str(folder), "--out", out]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(answer.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=128, help="voxels per axis")
    parser.add_argument("--cases", type=int, nargs=2, default=[2, 8], help="a few and many, to see what memory does")
    parser.add_argument("--formats", nargs="+", default=[PEER, *FORMATS], choices=[PEER, *FORMATS])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--dataset", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options.dataset, options.out)))
        return
    few, many = options.cases
    mb = options.size**3 * 3 / 1e6
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for count in (few, many):
            make_dataset(Path(folder) / str(count), options.size, count)
        for name in options.formats:
            small, large = (in_a_process(name, Path(folder) / str(count)) for count in (few, many))
            row = {
                "format": name,
                "mb_per_cpu_second": round(many * mb / large["seconds"], 1),
                "out_mb_per_case": round(large["out_mb"] / many, 2),
                f"peak_mb_{few}_cases": round(small["peak_mb"]),
                f"peak_mb_{many}_cases": round(large["peak_mb"]),
            }
            if not rows and not options.json:
                print(f"{options.size}^3, {mb:.1f} MB per case in memory\n")
                print("| " + " | ".join(row) + " |\n|" + "---|" * len(row))
            rows.append(row)
            if not options.json:
                print("| " + " | ".join(str(value) for value in row.values()) + " |", flush=True)
    if options.json:
        document = {"size": options.size, "machine": platform.processor() or platform.machine(), "rows": rows}
        print(json.dumps(document, indent=2))


if __name__ == "__main__":
    main()
