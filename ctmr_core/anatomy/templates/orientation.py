"""Left, right and up: where the midline is, whether a map is mirrored, and numbers for unnumbered vertebrae."""

from __future__ import annotations

from itertools import pairwise

import cc3d
import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.label_census import LabelCensus, LabelEntry
from ctmr_core.anatomy.vocabulary import Vocabulary

#: maisi labels on the midline: vertebrae, sacrum, S1, spinal cord.
SPINE = (*range(33, 57), 97, 121, 127)
#: maisi vertebrae from L5 up to C1.
VERTEBRAE = tuple(range(33, 57))
#: maisi labels that lie on one side: (on the patient's right, on the patient's left).
UNPAIRED = ((1, 3), (10, 3), (7, 6), (1, 12))  # liver/spleen, gallbladder/spleen, IVC/aorta, liver/stomach
#: Distance between the centres of neighbouring vertebrae: 17 mm (upper neck) to 40 mm (lumbar), Gilad and Nissan 1986.
VERTEBRA_PITCH_MM = (12.0, 50.0)


def midline_index(census: LabelCensus, vocabulary: Vocabulary, size_x: int) -> float:
    """x index of the mid-sagittal plane: the spine's centroid, else halfway between left and right labels, else the middle."""
    if vocabulary.name == "maisi":
        spine = [census.entries[label] for label in SPINE if label in census.entries]
        if spine:
            weights = [entry.voxels for entry in spine]
            return float(np.average([entry.centroid[0] for entry in spine], weights=weights))
    middles = [(left + right) / 2 for left, right in _sided_centroids(census, vocabulary)]
    return float(np.median(middles)) if middles else (size_x - 1) / 2


def mirrored_labels(census: LabelCensus, vocabulary: Vocabulary) -> list[str]:
    """Names of the label pairs that lie on the wrong sides, if most pairs do; an empty list for a map the right way round.

    Compared along x: every left label with its right counterpart, and in bodies liver, gallbladder and inferior vena
    cava (right) with spleen, stomach and aorta (left). A single odd pair (a pelvic kidney) does not make a mirrored map.
    """
    pairs = [(left, right) for left, right in _pairs(vocabulary) if left in census.entries and right in census.entries]
    if vocabulary.name == "maisi":
        pairs += [(left, right) for right, left in UNPAIRED if left in census.entries and right in census.entries]
    wrong = [pair for pair in pairs if census.entries[pair[0]].centroid[0] > census.entries[pair[1]].centroid[0]]
    if 2 * len(wrong) <= len(pairs):
        return []
    return [f"{vocabulary.label(left).name} / {vocabulary.label(right).name}" for left, right in wrong]


def vertebra_spacing(census: LabelCensus, spacing: tuple[float, float, float], size_z: int) -> float | None:
    """Mean distance in mm between the centres of neighbouring vertebrae, None with fewer than three whole ones."""
    whole = {label for label in VERTEBRAE if label in census.entries and _is_whole(census.entries[label], size_z)}
    distances = []
    for lower, upper in pairwise(VERTEBRAE):
        if lower in whole and upper in whole:
            step = np.subtract(census.entries[upper].centroid, census.entries[lower].centroid) * spacing
            distances.append(float(np.linalg.norm(step)))
    return float(np.mean(distances)) if len(distances) >= 2 else None


def _is_whole(entry: LabelEntry, size_z: int) -> bool:
    return entry.box[2] > 0 and entry.box[5] < size_z


#: Height of a vertebra with its disc, mm, of adults: lumbar and cervical Gilad and Nissan 1986, thoracic Panjabi et al. 1991.
LEVEL_MM = {"L": 37.0, "T": 26.0, "C": 18.0}


LUMBOSACRAL_MM = 20.0  # half a lumbar level: a disc nearer to the top of the sacrum is the one between S1 and L5


def number_vertebrae(voxels: np.ndarray, stand_in: int, discs: np.ndarray, spacing: tuple[float, float, float]) -> str:
    """Number, in place, the vertebrae of a ``maisi`` map that all carry the label ``stand_in``; returns a sentence for the user.

    discs: bool, same grid: the discs between them; every disc is the border between two levels. Without discs the
    borders are set at typical heights. The level at the upper end of the sacrum is L5; with no sacrum in view the level at
    the height of the kidneys' centre is L2 (kidneys span T12 to L3 in standard anatomy), and with neither the lowest
    level is taken for L5.
    """
    spine = voxels == stand_in
    sacrum = np.flatnonzero((voxels == 97).any(axis=(0, 1)))
    kidneys = np.flatnonzero(np.isin(voxels, (5, 14)).any(axis=(0, 1)))
    if sacrum.size:
        anchor, number, why = float(sacrum[-1]), 0, "the one at the sacrum is L5"
    elif kidneys.size:
        anchor, number, why = float(kidneys.mean()), 3, "the one at the kidneys is L2"
    else:
        anchor, number, why = float(np.flatnonzero(spine.any(axis=(0, 1)))[0]), 0, "the lowest is taken for L5"
    height = np.arange(voxels.shape[2])
    borders = _disc_heights(discs, spacing)
    if borders:
        if sacrum.size:
            anchor = _above_lumbosacral_disc(borders, anchor, spacing[2])
        level = np.searchsorted(borders, height) - np.searchsorted(borders, anchor) + number
        how = "the discs between them"
    else:
        level = np.searchsorted(_typical_borders(anchor, number, spacing[2]), height)
        how = "typical heights, there are no discs in the map"
    label = np.clip(level, 0, len(VERTEBRAE) - 1) + VERTEBRAE[0]
    x, y, z = np.nonzero(spine)
    voxels[x, y, z] = label[z]
    return f"unnumbered vertebrae were numbered by {how} ({why})"


def _above_lumbosacral_disc(borders: list[float], sacrum_top: float, mm: float) -> float:
    """The top of the sacrum, moved above the disc between it and L5 where that disc is in the map."""
    disc = min(borders, key=lambda z: abs(z - sacrum_top))
    return max(sacrum_top, disc + 0.5) if abs(disc - sacrum_top) * mm <= LUMBOSACRAL_MM else sacrum_top


def _typical_borders(anchor: float, number: int, mm: float) -> np.ndarray:
    """z indices of the upper ends of L5, L4 ... C1 when level ``number`` (0 = L5) begins at ``anchor``; L2 is centred on it."""
    heights = np.array([LEVEL_MM["L"]] * 5 + [LEVEL_MM["T"]] * 12 + [LEVEL_MM["C"]] * 7) / mm
    start = anchor - heights[:number].sum() - (heights[number] / 2 if number else 0.0)
    return start + np.cumsum(heights)


def _disc_heights(discs: np.ndarray, spacing: tuple[float, float, float]) -> list[float]:
    components, count = cc3d.connected_components(np.ascontiguousarray(discs), connectivity=6, return_N=True)
    sizes = cc3d.statistics(components)["voxel_counts"] * float(np.prod(spacing)) / 1000.0
    whole = [i for i in range(1, count + 1) if sizes[i] >= 1.0]
    return sorted(float(z) for _, _, z in ndimage.center_of_mass(discs, components, whole)) if whole else []


def _pairs(vocabulary: Vocabulary) -> list[tuple[int, int]]:
    """(left id, right id) of every label that has a counterpart on the other side."""
    rights = {label.name: label.id for label in vocabulary if label.side == "right"}
    pairs = []
    for label in vocabulary:
        counterpart = label.name.replace("left", "right", 1)
        if label.side == "left" and counterpart in rights:
            pairs.append((label.id, rights[counterpart]))
    return pairs


def _sided_centroids(census: LabelCensus, vocabulary: Vocabulary) -> list[tuple[float, float]]:
    entries = census.entries
    return [
        (entries[left].centroid[0], entries[right].centroid[0])
        for left, right in _pairs(vocabulary)
        if left in entries and right in entries
    ]
