"""The torso as a whole: the order of painting, and where its parts are."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from ctmr_core.anatomy.grid import Grid
from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.parametric.base import Streams
from ctmr_core.anatomy.parametric.shapes import SplineNoise
from ctmr_core.anatomy.parametric.torso.abdomen import Abdomen
from ctmr_core.anatomy.parametric.torso.bowel import Bowel
from ctmr_core.anatomy.parametric.torso.canvas import BODY, Canvas
from ctmr_core.anatomy.parametric.torso.chest import Chest
from ctmr_core.anatomy.parametric.torso.frame import Frame
from ctmr_core.anatomy.parametric.torso.muscle_fat import GRAIN_MM, infiltrate
from ctmr_core.anatomy.parametric.torso.pelvis import Pelvis
from ctmr_core.anatomy.parametric.torso.person import Person, draw_person
from ctmr_core.anatomy.parametric.torso.spine import Spine
from ctmr_core.anatomy.parametric.torso.thorax_bones import ThoraxBones
from ctmr_core.anatomy.parametric.torso.trunk import build_trunk, paint_trunk, skin_depth
from ctmr_core.anatomy.parametric.torso.vessels import Vessels
from ctmr_core.anatomy.tissues import tissue_id
from ctmr_core.anatomy.vocabulary import load_vocabulary
from ctmr_core.errors import AnatomyError

#: middles of the usual fields of view, canonical mm.
_REGIONS = {"": (0.0, 0.0, 60.0), "chest": (0.0, -5.0, 225.0), "abdomen": (0.0, 0.0, 65.0), "pelvis": (0.0, 0.0, -165.0)}
_HALF_EXTENT = (440.0, 320.0, 640.0)
#: bones that reach further out than this below the skin (mm) are covered by fat.
_UNDER_SKIN = 4.5


class ParametricTorso:
    """One person's torso, lower neck to upper thighs, arms raised out of the field of view."""

    def __init__(self, streams: Streams, sex: str | None = None) -> None:
        self.person: Person = draw_person(streams, sex)
        self._streams = streams
        self._frame = Frame(streams, self.person)
        rng = streams("torso/surface")
        self._noise = SplineNoise(rng, 24.0, _HALF_EXTENT)
        self._pockets = SplineNoise(rng, 38.0, _HALF_EXTENT)
        self._streaks = SplineNoise(streams("torso/muscle streaks"), GRAIN_MM, _HALF_EXTENT)

    def center_mm(self, center: str) -> tuple[float, float, float]:
        """RAS+ mm of "" (the whole), "chest", "abdomen", "pelvis" or of the label of that name."""
        if center in _REGIONS:
            point = self._frame.to_patient(np.array([_REGIONS[center]]))[0]
            return (float(point[0]), float(point[1]), float(point[2]))
        label = load_vocabulary("maisi").label(center).id
        places = self._places
        if label not in places:
            raise AnatomyError(
                "this torso has no such structure",
                found=center,
                allowed=[*list(_REGIONS)[1:], "the labels of a torso"],
                fix="choose a label between lower neck and upper thighs",
            )
        return places[label]

    @cached_property
    def _places(self) -> dict[int, tuple[float, float, float]]:
        """For every label, the voxel (4 mm) of the label nearest to its centroid, RAS+ mm."""
        label_map = self.label_map(Grid.centred((128, 96, 232), (4.0, 4.0, 4.0), self.center_mm("")))
        places = {}
        flat = label_map.voxels.ravel()
        order = np.argsort(flat, kind="stable")
        bounds = np.searchsorted(flat[order], np.arange(257))
        for label in range(1, 256):
            chosen = order[bounds[label] : bounds[label + 1]]
            if chosen.size == 0:
                continue
            voxels = np.stack(np.unravel_index(chosen, label_map.voxels.shape), axis=1)
            middle = voxels[np.argmin(np.square(voxels - voxels.mean(0)).sum(1))]
            x, y, z = (label_map.affine[:3, :3] @ middle + label_map.affine[:3, 3]).tolist()
            places[label] = (x, y, z)
        return places

    def label_map(self, grid: Grid) -> LabelMap:
        """Labels (vocabulary ``maisi``) and tissues on ``grid``; 0 outside the modelled body."""
        canvas = Canvas(grid, self._frame)
        canvas.coarse["pocket"] = self._pockets.on_lattice(canvas.coarse_axes)
        build_trunk(canvas, self.person, self._noise)
        paint_trunk(canvas, self.person)
        pelvis = Pelvis(canvas)
        pelvis.paint_muscles()
        infiltrate(canvas, self.person, self._streaks)
        vessels = Vessels(canvas, self._streams("torso/vessels"))
        chest = Chest(canvas, self.person, self._streams("torso/chest"))
        abdomen = Abdomen(canvas, self.person, self._streams("torso/abdomen"))
        bowel = Bowel(canvas, self.person, abdomen, self._streams("torso/bowel"))
        chest.paint()
        vessels.paint_branches()
        bowel.small_bowel()
        abdomen.pelvis_organs()
        bowel.stomach()
        abdomen.liver()
        abdomen.spleen()
        abdomen.kidneys()
        bowel.duodenum()
        abdomen.pancreas()
        abdomen.adrenals()
        abdomen.gallbladder()
        bowel.colon()
        bowel.mesentery()
        vessels.paint()
        ThoraxBones(canvas, self._streams("torso/ribs")).paint()
        Spine(canvas).paint()
        pelvis.paint_bones()
        self._close(canvas)
        return LabelMap(canvas.labels, grid.affine, load_vocabulary("maisi"), canvas.tissues)

    @staticmethod
    def _close(canvas: Canvas) -> None:
        """Nothing lies outside the skin, and under the skin there is always a little fat."""
        skin = canvas.masks["skin"]
        if skin is None:
            return
        labels, tissues = canvas.labels[skin.box], canvas.tissues[skin.box]
        shallow = (skin.values > -_UNDER_SKIN) & (labels != BODY)
        labels[shallow] = BODY
        tissues[shallow] = np.where(skin.values[shallow] > -skin_depth(canvas), tissue_id("skin"), tissue_id("subcutaneous_fat"))
        outside = skin.values >= 0
        labels[outside] = 0
        tissues[outside] = 0


def parametric_torso(streams: Streams, sex: str | None = None) -> ParametricTorso:
    """A person drawn from ``streams``; ``sex`` "female", "male" or None (drawn too)."""
    return ParametricTorso(streams, sex)
