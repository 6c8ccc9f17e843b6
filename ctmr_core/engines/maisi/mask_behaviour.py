"""Every way in which ``compat=True`` differs from the fixed mode where label maps are made, in one place."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class MaskBehaviour:
    """One switch per difference; True is what the reference (NVIDIA NV-Generate-CTMR) does.

    nearest_condition: sizes that were not asked for are copied from the first nearest entry of the released size
        conditions, tumours included, the same for every seed. Fixed: the entry is drawn, by seed, among the nearest ones,
        and tumours that were not asked for are absent.
    half_noise: the initial noise and the size vector are rounded to float16. Fixed: float32.
    merged_vessels: hepatic vessels (25) become liver. Fixed: they are kept where they run in the liver.
    lost_hepatic_tumour: the refinement of hepatic tumours compares with an empty mask, so neither stray pieces are removed
        nor small tumours brought back after the liver was closed. Fixed: both happen.
    overwriting_closing: filling a structure's gaps overwrites whatever lies in them. Fixed: only unspecific soft tissue.
    open_border: closing clears the outermost voxels, as if everything outside of the volume were empty. Fixed: structures
        that are cut by the border are closed like the others.
    kidney_mass: the network's "kidney mass" comes out as 129, a reserved id. Fixed: it becomes a cyst of the nearer kidney
        (116 left, 117 right), or soft tissue where there is no kidney.
    ignored_absence: structures whose size is -1 may appear. Fixed: they are given to their surroundings.
    unverified: label maps without the tumour that was asked for are returned. Fixed: another one is drawn, boundedly often.
    unstable_ties: of equally large pieces the one that numpy's unstable argsort puts last is kept. Fixed: the first.
    monai_augmentation: tumours are moved by MONAI's RandAffine and Rand3DElastic over the whole volume, with one integer
        seed. Fixed: the same family of movements, drawn from the case's generator and computed around the tumour only.
    soft_holes: where a bone lesion was moved away, soft tissue stays. Fixed: the nearest bone, as for the other hosts.
    one_tumour_kind: only the first kind of tumour that is found is moved. Fixed: every kind is.
    unlimited_span: a candidate's region span is compared only if its entry has one. Fixed: entries without are left out
        when a region was asked for.
    """

    nearest_condition: bool
    half_noise: bool
    merged_vessels: bool
    lost_hepatic_tumour: bool
    overwriting_closing: bool
    open_border: bool
    kidney_mass: bool
    ignored_absence: bool
    unverified: bool
    unstable_ties: bool
    monai_augmentation: bool
    soft_holes: bool
    one_tumour_kind: bool
    unlimited_span: bool


_SWITCHES = tuple(MaskBehaviour.__dataclass_fields__)
MASK_COMPAT = MaskBehaviour(**dict.fromkeys(_SWITCHES, True))
MASK_FIXED = MaskBehaviour(**dict.fromkeys(_SWITCHES, False))


def mask_behaviour(compat: bool) -> MaskBehaviour:
    """The switches of ``compat=True`` or of the fixed mode."""
    return MASK_COMPAT if compat else MASK_FIXED
