"""The names of the sequences: the 20 modality names of NVIDIA's modality mapping file (``modality_mapping.json``)."""

from __future__ import annotations

#: sequence name -> modality code of the MAISI networks. Their class embedding has 128 rows; codes without a name here are free.
MODALITY_CODES: dict[str, int] = {
    "unknown": 0,
    "ct": 1,
    "ct_wo_contrast": 2,
    "ct_contrast": 3,
    "mri": 8,
    "mri_t1": 9,
    "mri_t2": 10,
    "mri_flair": 11,
    "mri_pd": 12,
    "mri_dwi": 13,
    "mri_adc": 14,
    "mri_ssfp": 15,
    "mri_mra": 16,
    "mri_t1c": 17,
    "mri_swi": 20,
    "mri_t1_skull_stripped": 29,
    "mri_t2_skull_stripped": 30,
    "mri_flair_skull_stripped": 31,
    "mri_swi_skull_stripped": 32,
    "mri_mra_skull_stripped": 33,
}

SKULL_STRIPPED = "_skull_stripped"


def is_ct(sequence: str) -> bool:
    """Whether the sequence is computed tomography (int16 HU) and not magnetic resonance."""
    return sequence.startswith("ct")
