"""Measures of a whole set, kept with the dataset as ``quality/set-<digest>.json``.

One JSON document, sorted keys, no NaN (what can't be told is null or left out)::

    {"kind": "ctmr-set-measures", "schema": 1,
     "digest": "<12 hex>",                 # of what was measured and how: the same set and settings give the same file
     "made_at": "<ISO 8601, UTC>", "written_by": "ctmr-factory 0.1.0",
     "dataset": "<uri>", "snapshot": "<name, or empty>",
     "cases": 12, "cases_digest": "<64 hex, as of a snapshot>",
     "settings": {"measures": [...], "sample": 2000, "reference": "", "network": "", "targets": {...}, ...},
     "measures": {
       "profile":    {"cases": n, "bodies": n, "exact": true,       # exact: quantiles of all cases, else of a sample
                      "categories": {"sequence": {"ct": 7, ...}, "split": ..., "body": ..., "engine": ..., "region": ...,
                                     "center": ..., "lesion": ..., "spacing": ..., "vocabulary": ...},
                      "numbers": {"volume_ml/liver": {"count", "mean", "sd", "min", "p5", "p25", "p50", "p75", "p95", "max"},
                                  "score/hu_median/ct/liver": ..., "lesion_mm/hepatic tumor": ..., "spacing_z_mm": ...},
                      "targets": [{"target", "passed": bool, "line": "<one sentence>", "distance", ...}]},
       "duplicates": {"cases": n, "table": "quality/duplicates-<digest>.parquet",
                      "counts": {"exact": n, "image": n, "labels": n, "reference-image": n, "reference-labels": n},
                      "relatives": {"pairs": n, "cases": n}, # the same body, as planned: no duplicates
                      "nearest": {"labels": {"p50", "p95", "max"}, ...},
                      "worst": [{"case_id", "other", "kind", "similarity"}, ... at most 20]},
       "frechet":    {"<sequence>": {"distance": x, "low": x, "high": x, "planes": {"xy", "yz", "zx"},
                                     "kid": x, "kid_sd": x, "precision", "recall", "density", "coverage",
                                     "volumes": n, "reference_volumes": n, "slices": n, "reference_slices": n},
                      "features": {"name", "digest", "dimensions", "note"}},
       "diversity":  {"<sequence>": {"pairs": n, "ms_ssim": {"mean", "sd", "p5", "p50", "p95", "low", "high"},
                                     "reference_ms_ssim": ...}, "labels": {"agreement": ..., "dice": ...}}},
     "skipped": {"frechet": "no --reference was given"},            # measure -> why
     "verdict": {"passed": bool, "lines": ["<one sentence>", ...]}}
"""
