"""Bodies to judge, and what can go wrong with them: every kind of defect of ``benchmarks/detection.py`` at three severities."""

# ruff: noqa: ARG001, ARG005  (every defect has the same signature)
from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.sequences import is_ct
from ctmr_core.cases.case import Case
from ctmr_core.quality.base import Candidate

SEVERITIES = ("slight", "clear", "gross")


@dataclass(frozen=True, eq=False)
class Body:
    """A clean case. spare: other sequences of the same body, to be delivered by mistake."""

    name: str
    case: Case
    label_map: LabelMap
    images: Mapping[str, np.ndarray]
    spare: Mapping[str, np.ndarray]

    @property
    def ids(self) -> dict[str, int]:
        """name -> id of every label in view."""
        present = set(np.unique(self.label_map.voxels).tolist())
        return {label.name: label.id for label in self.label_map.vocabulary if label.id in present}

    def with_images(self, change: Callable[[str, np.ndarray], np.ndarray]) -> Candidate:
        images = {name: _int16(change(name, image.copy())) for name, image in self.images.items()}
        return Candidate(self.case, self.label_map, images)

    def with_labels(self, voxels: np.ndarray) -> Candidate:
        # tissues are always made from the labels, so a wrong label has no right tissue
        return Candidate(self.case, dataclasses.replace(self.label_map, voxels=voxels, tissues=None), self.images)

    def with_both(self, change: Callable[[np.ndarray], np.ndarray]) -> Candidate:
        tissues = self.label_map.tissues
        moved = None if tissues is None else np.ascontiguousarray(change(tissues))
        label_map = dataclasses.replace(self.label_map, voxels=np.ascontiguousarray(change(self.label_map.voxels)), tissues=moved)
        images = {name: np.ascontiguousarray(change(image)) for name, image in self.images.items()}
        return Candidate(self.case, label_map, images)

    def level(self, name: str) -> float:
        """A unit for changes of an image: 1 HU of CT, 1 % of the median of the body in MR."""
        if is_ct(name):
            return 1.0
        return float(np.median(self.images[name][self.label_map.voxels != 0])) / 100


#: A defect takes a body, a severity (0..2) and a generator; None where the body can't have it.
Defect = Callable[[Body, int, np.random.Generator], Candidate | None]


def _int16(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), -32768, 32767).astype(np.int16)


def _ct_only(body: Body) -> bool:
    return any(is_ct(name) for name in body.images)


def hu_shifted(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """CT: 60, 120, 250 HU added."""
    return body.with_images(lambda _, image: image + (60, 120, 250)[severity]) if _ct_only(body) else None


def hu_scaled(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """CT: attenuation times 0.95, 0.9, 0.8."""
    factor = (0.95, 0.9, 0.8)[severity]
    return body.with_images(lambda _, image: (image + 1000.0) * factor - 1000) if _ct_only(body) else None


def mirrored(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """Left for right: the labels alone, the image alone, both."""
    if severity == 0:
        return body.with_labels(np.ascontiguousarray(body.label_map.voxels[::-1]))
    if severity == 1:
        return body.with_images(lambda _, image: image[::-1])
    return body.with_both(lambda voxels: voxels[::-1])


def turned(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """Image and labels: front for back, head for foot, both."""
    turn = ((slice(None), slice(None, None, -1)), (slice(None), slice(None), slice(None, None, -1)))
    both = (slice(None), slice(None, None, -1), slice(None, None, -1))
    return body.with_both(lambda voxels: voxels[(*turn, both)[severity]])


def pair_swapped(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """Left and right labels of one pair: the smallest, the middle, the largest one in view."""
    ids, voxels = body.ids, body.label_map.voxels
    counts = np.bincount(voxels.ravel(), minlength=2048)
    pairs = [
        (ids[n], ids[n.replace("left", "right", 1)])
        for n in ids
        if n.startswith("left ") and n.replace("left", "right", 1) in ids
    ]
    pairs = sorted((pair for pair in pairs if min(counts[list(pair)]) >= 30), key=lambda pair: counts[pair[0]])
    if not pairs:
        return None
    a, b = pairs[(0, len(pairs) // 2, len(pairs) - 1)[severity]]
    return body.with_labels(_swapped(voxels, [(a, b)]))


def _swapped(voxels: np.ndarray, pairs: list[tuple[int, int]]) -> np.ndarray:
    table = np.arange(int(voxels.max()) + 1).astype(voxels.dtype)
    for a, b in pairs:
        table[a], table[b] = b, a
    return table[voxels]


def _inner_vertebrae(body: Body) -> list[int]:
    names = [f"vertebrae {letter}{n}" for letter, last in (("T", 12), ("L", 5)) for n in range(1, last + 1)]
    present = [body.ids[name] for name in names if name in body.ids]
    return present[1:-1]


def vertebra_missing(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """1, 2, 3 neighbouring vertebrae labelled as soft tissue."""
    inner = _inner_vertebrae(body)
    if len(inner) < 4:
        return None
    voxels = body.label_map.voxels.copy()
    voxels[np.isin(voxels, inner[1 : 2 + severity])] = body.ids["body"]
    return body.with_labels(voxels)


def vertebrae_swapped(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """The labels of 1, 2, 3 pairs of neighbouring vertebrae."""
    inner = _inner_vertebrae(body)
    if len(inner) < 2 * (severity + 1):
        return None
    return body.with_labels(_swapped(body.label_map.voxels, [(inner[2 * i], inner[2 * i + 1]) for i in range(severity + 1)]))


def seam(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """From the middle slice on: 10, 20, 40 HU more; MR 5, 10, 20 %."""

    def change(name: str, image: np.ndarray) -> np.ndarray:
        inside = (10, 20, 40)[severity] * body.level(name) * (1.0 if is_ct(name) else 0.5)
        half = image.shape[2] // 2
        image[:, :, half:] = np.rint(image[:, :, half:] + inside)
        return image

    return body.with_images(change)


def slice_repeated(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """1, 2, 4 slices are copies of the one before."""

    def change(name: str, image: np.ndarray) -> np.ndarray:
        middle = image.shape[2] // 2
        image[:, :, middle : middle + (1, 2, 4)[severity]] = image[:, :, middle - 1 : middle]
        return image

    return body.with_images(change)


def slices_shuffled(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """1, 2, 4 pairs of slices that lie 4 apart are exchanged."""

    def change(name: str, image: np.ndarray) -> np.ndarray:
        middle = image.shape[2] // 2 - 8
        for i in range((1, 2, 4)[severity]):
            a, b = middle + i, middle + i + 4
            image[:, :, [a, b]] = image[:, :, [b, a]]
        return image

    return body.with_images(change)


def field_truncated(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """Image and labels are air above a plane 10, 30, 60 mm below the upper face."""
    cut = round((10, 30, 60)[severity] / body.label_map.spacing[2])
    if not (body.label_map.voxels[:, :, -cut - 1] != 0).any():
        return None
    if np.count_nonzero(body.label_map.voxels[:, :, -1]) == 0:
        cut += int(np.argmax((body.label_map.voxels != 0).any(axis=(0, 1))[::-1]))  # what tapers is cut below its end

    def change(voxels: np.ndarray) -> np.ndarray:
        voxels = voxels.copy()
        voxels[:, :, -cut:] = voxels.min()
        return voxels

    return body.with_both(change)


def wrong_sequence(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """CT: T1 delivered; T2 delivered; soft tissue alone. Heads: T2 and T1 exchanged; T2 delivered as T1; T1 as T2."""
    names = list(body.images)
    if is_ct(names[0]):
        if severity == 2:
            return body.with_images(lambda _, image: np.clip(image, -160, 240))
        other = body.spare["mri_t1" if severity == 0 else "mri_t2"]
        return body.with_images(lambda *_: other)
    if len(names) < 2:
        return body.with_images(lambda *_: body.spare["mri_t2" if severity < 2 else "ct"])
    swap = ({names[0]: names[1], names[1]: names[0]}, {names[0]: names[1]}, {names[1]: names[0]})[severity]
    return body.with_images(lambda name, image: body.images[swap.get(name, name)])


def table_left(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """CT: a plate of 1, 2, 3 voxels, 3 voxels behind the body or at the edge of the image."""
    if not _ct_only(body):
        return None
    rows = np.flatnonzero((body.label_map.voxels != 0).any(axis=(0, 2)))
    top = max(int(rows[0]) - 3, 0)

    def change(name: str, image: np.ndarray) -> np.ndarray:
        plate = np.zeros(image.shape, bool)
        plate[6:-6, max(top - severity, 0) : top + 1] = True
        image[plate & (body.label_map.voxels == 0)] = 60
        return image

    return body.with_images(change) if top >= severity else None


def blurred(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """Gaussian of 1, 2, 3 voxels."""
    return body.with_images(lambda _, image: ndimage.gaussian_filter(image.astype(np.float32), (1, 2, 3)[severity]))


def drowned(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """Noise of 100, 200, 400 HU; MR 40, 80, 160 % of the median."""

    def change(name: str, image: np.ndarray) -> np.ndarray:
        sd = (100, 200, 400)[severity] * body.level(name) * (1.0 if is_ct(name) else 0.4)
        noisy = image + rng.normal(0, sd, image.shape)
        return noisy if is_ct(name) else np.abs(noisy)

    return body.with_images(change)


def flat(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """Of everything inside a label 10 %, 3 %, nothing is left around its median."""

    def change(name: str, image: np.ndarray) -> np.ndarray:
        voxels = body.label_map.voxels
        ids = np.unique(voxels)
        medians = np.zeros(int(ids[-1]) + 1)
        medians[ids] = ndimage.median(image, voxels, ids)
        even = medians[voxels]
        return even + (0.1, 0.03, 0.0)[severity] * (image - even)

    return body.with_images(change)


def labels_shifted(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """1, 2, 3 voxels along an axis."""
    axis = int(rng.integers(3))
    moved = ndimage.shift(body.label_map.voxels, [severity + 1 if a == axis else 0 for a in range(3)], order=0, mode="nearest")
    return body.with_labels(moved)


def _organs(body: Body, fewest: int) -> list[int]:
    """Ids of organs from the largest."""
    groups = {label.id: label.group for label in body.label_map.vocabulary}
    counts = np.bincount(body.label_map.voxels.ravel(), minlength=2048)
    wanted = ("organ", "heart", "lung") if "body" in body.ids else ("brain",)
    found = [i for i in body.ids.values() if groups[i] in wanted and counts[i] >= fewest]
    return sorted(found, key=lambda i: -counts[i])


def organ_missing(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """The fifth, third, largest organ labelled as what surrounds it."""
    organs = _organs(body, 200)
    if len(organs) < 5:
        return None
    voxels = body.label_map.voxels
    gone = voxels == organs[(4, 2, 0)[severity]]
    place = ndimage.distance_transform_edt(gone, return_distances=False, return_indices=True)
    return body.with_labels(voxels[tuple(place)])


def organ_grown(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """The fourth organ by size takes its surroundings: 1.5, 2.5, 5 times as large."""
    organs = _organs(body, 200)
    if len(organs) < 4:
        return None
    voxels = body.label_map.voxels.copy()
    own = voxels == organs[3]
    wanted = (1.5, 2.5, 5.0)[severity] * np.count_nonzero(own)
    far = ndimage.distance_transform_edt(~own)
    far[voxels == 0] = np.inf
    voxels[far <= np.partition(far.ravel(), int(wanted))[int(wanted)]] = organs[3]
    return body.with_labels(voxels)


def organ_in_pieces(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """1, 2, 3 layers of 3 voxels cut out of the largest organ along its longest axis."""
    organs = _organs(body, 200)
    if not organs:
        return None
    voxels = body.label_map.voxels.copy()
    own = voxels == organs[0]
    where = np.argwhere(own)
    axis = int(np.argmax(np.ptp(where, axis=0)))
    other = body.ids["body"] if "body" in body.ids else organs[1]
    along = np.arange(voxels.shape[axis]).reshape([-1 if a == axis else 1 for a in range(3)])
    for i in range(severity + 1):
        middle = int(np.quantile(where[:, axis], (i + 1) / (severity + 2)))
        voxels[own & (np.abs(along - middle) <= 1)] = other
    return body.with_labels(voxels)


def lesion_outside(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """The lesion lies in muscle or fat, 40, 80, 120 mm from its place, wherever the body is deep enough."""
    if not body.case.lesions or "body" not in body.ids:
        return None
    voxels = body.label_map.voxels
    own = voxels == body.ids[body.case.lesions[0].label]
    place = ndimage.distance_transform_edt(own, return_distances=False, return_indices=True)
    healed = voxels[tuple(place)]
    radius = (np.count_nonzero(own) * 0.75 / np.pi) ** (1 / 3)
    depth = ndimage.distance_transform_edt(healed == body.ids["body"])
    middle = np.argwhere(own).mean(axis=0)
    candidates = np.argwhere(depth >= 0.6 * radius)
    if not len(candidates):
        return None
    far = np.linalg.norm((candidates - middle) * body.label_map.spacing, axis=1)
    center = candidates[np.argmin(np.abs(far - (40, 80, 120)[severity]))]
    ball = np.linalg.norm(np.indices(voxels.shape).reshape(3, -1).T - center, axis=1).reshape(voxels.shape) <= radius
    healed[ball & (healed != 0)] = body.ids[body.case.lesions[0].label]
    return body.with_labels(healed)


def lesion_invisible(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """20 %, 5 %, nothing is left of the lesion's contrast."""
    if not body.case.lesions:
        return None
    voxels = body.label_map.voxels
    groups = {label.id: label.group for label in body.label_map.vocabulary}
    own = np.isin(voxels, [i for i in body.ids.values() if groups[i] == "lesion"])
    ring = ndimage.binary_dilation(own, iterations=3) & ~own
    around = np.bincount(voxels[ring])
    white = [i for name, i in body.ids.items() if name.endswith("cerebral white matter") and i < len(around)]
    if white and around[white].any():  # where gliomas grow; cortex that oedema reaches would show against it
        around = np.where(np.isin(np.arange(len(around)), white), around, 0)
    host = voxels == around.argmax()

    def change(name: str, image: np.ndarray) -> np.ndarray:
        values = image[host]
        drawn = values[rng.integers(len(values), size=np.count_nonzero(own))]
        image[own] = np.rint((0.2, 0.05, 0.0)[severity] * (image[own] - np.median(values)) + drawn)
        return image

    return body.with_images(change)


def lesion_missing(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """70 %, 90 %, all of the lesion labelled as its host."""
    if not body.case.lesions:
        return None
    voxels = body.label_map.voxels
    groups = {label.id: label.group for label in body.label_map.vocabulary}
    own = np.isin(voxels, [i for i in body.ids.values() if groups[i] == "lesion"])
    place = ndimage.distance_transform_edt(own, return_distances=False, return_indices=True)
    order = np.argsort(ndimage.distance_transform_edt(own)[own], kind="stable")
    gone = np.zeros(len(order), bool)
    gone[order[: int((0.7, 0.9, 1.0)[severity] * len(order))]] = True
    healed = voxels.copy()
    healed[own] = np.where(gone, voxels[tuple(place)][own], voxels[own])
    return body.with_labels(healed)


def sequence_shifted(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """The last of several sequences lies 2, 4, 8 voxels beside the others."""
    if len(body.images) < 2:
        return None
    last, axis = list(body.images)[-1], int(rng.integers(3))
    return body.with_images(lambda name, image: np.roll(image, (2, 4, 8)[severity], axis) if name == last else image)


def quantised(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """Steps of 2, 8, 32 HU; MR 1, 4, 16 % of the median."""

    def change(name: str, image: np.ndarray) -> np.ndarray:
        step = max((2, 8, 32)[severity] * body.level(name) * (1.0 if is_ct(name) else 0.5), 2.0)
        return np.rint(image / step) * step

    return body.with_images(change)


def saturated(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """Cut off at the 99th, 95th, 80th percentile of the body."""

    def change(name: str, image: np.ndarray) -> np.ndarray:
        return np.minimum(image, np.percentile(image[body.label_map.voxels != 0], (99, 95, 80)[severity]))

    return body.with_images(change)


def bright_background(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """CT: the air around the body 150, 300, 900 HU denser; MR 40, 70, 100 % of the median."""

    def change(name: str, image: np.ndarray) -> np.ndarray:
        more = (150, 300, 900)[severity] if is_ct(name) else (40, 70, 100)[severity] * body.level(name)
        outside = body.label_map.voxels == 0
        image[outside] = np.rint(image[outside] + more)
        return image

    return body.with_images(change) if (body.label_map.voxels == 0).mean() > 0.02 else None


def holes(body: Body, severity: int, rng: np.random.Generator) -> Candidate | None:
    """3, 6, 12 % of the body's voxels lose their label, in balls of 4 voxels' radius."""
    voxels = body.label_map.voxels.copy()
    inside = np.argwhere(ndimage.distance_transform_edt(voxels != 0) > 5)
    inside = inside[((inside >= 5) & (inside < np.subtract(voxels.shape, 5))).all(axis=1)]
    wanted = (0.03, 0.06, 0.12)[severity] * np.count_nonzero(voxels)
    offsets = np.argwhere(np.linalg.norm(np.indices((9, 9, 9)).reshape(3, -1).T - 4, axis=1).reshape(9, 9, 9) <= 4) - 4
    for center in rng.permutation(inside)[: int(wanted / len(offsets))]:
        voxels[tuple((offsets + center).T)] = 0
    return body.with_labels(voxels)


DEFECTS: dict[str, Defect] = {
    "HU shifted": hu_shifted,
    "HU scaled": hu_scaled,
    "mirrored": mirrored,
    "turned over": turned,
    "one pair swapped": pair_swapped,
    "vertebra missing": vertebra_missing,
    "vertebrae swapped": vertebrae_swapped,
    "seam": seam,
    "slice repeated": slice_repeated,
    "slices exchanged": slices_shuffled,
    "field truncated": field_truncated,
    "wrong sequence": wrong_sequence,
    "table left over": table_left,
    "blurred": blurred,
    "drowned in noise": drowned,
    "flat": flat,
    "labels shifted": labels_shifted,
    "organ missing": organ_missing,
    "organ too large": organ_grown,
    "organ in pieces": organ_in_pieces,
    "lesion outside its organ": lesion_outside,
    "lesion invisible": lesion_invisible,
    "lesion missing": lesion_missing,
    "sequence shifted": sequence_shifted,
    "values quantised": quantised,
    "values saturated": saturated,
    "bright background": bright_background,
    "holes in the labels": holes,
}
