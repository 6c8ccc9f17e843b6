"""What every sequence of one case shares: the anatomy on the device, the random streams and the texture of the body."""

from __future__ import annotations

from collections import OrderedDict
from functools import cached_property

import numpy as np
import torch

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.cases.case import Case
from ctmr_core.cases.seeds import body_rng, case_rng, normal_noise
from ctmr_core.engines.tissue.organ_vessels import liver_vessels, lung_vessels
from ctmr_core.engines.tissue.parameters import TissueParameters, read_parameters
from ctmr_core.engines.tissue.textures import coarse_field, upsample
from ctmr_core.engines.tissue.tissue_code import TissueCode
from ctmr_core.engines.tissue.vessels import VoxelShares
from ctmr_core.errors import EngineError

#: Named correlation lengths in mm of the body's own texture, the same field in every sequence of a case:
#: trabeculae, muscle strands and fat septa (fine), lobules, fatty infiltration and mottling (coarse).
BANDS: dict[str, float] = {"fine": 2.0, "coarse": 9.0}
_KEPT_FIELDS = 2  # full-size textures kept in memory at a time


class RenderContext:
    """One attempt at one case, ready to be rendered.

    Anatomy, vessels and texture come from streams without a sequence name, so that all sequences of a case show the
    same body; noise comes from streams that name the sequence (``"noise/<sequence>"``).

    case, label_map, attempt: what is rendered. device: where full-size tensors live. threads: threads for drawing noise
    and for the Fourier transforms; the bytes don't depend on it.
    """

    def __init__(
        self, case: Case, label_map: LabelMap, attempt: int, device: str | torch.device = "cpu", threads: int | None = None
    ) -> None:
        self.case = case
        self.attempt = attempt
        self.device = torch.device(device)
        self.threads = threads or torch.get_num_threads()
        if label_map.tissues is None:
            from ctmr_core.anatomy.tissue_map import with_tissues

            label_map = with_tissues(label_map, body_rng(case.body, case.body_seed, "tissues"))
        tissue_map = label_map.tissues
        if tissue_map is None:
            raise EngineError("this label map has no tissues and none could be derived", where=f"case {case.case_id}")
        self.label_map = label_map
        self._tissues: np.ndarray = tissue_map
        self._fields: OrderedDict[tuple[float, str], torch.Tensor] = OrderedDict()
        self._lattices: dict[tuple[float, str], torch.Tensor] = {}

    @property
    def size(self) -> tuple[int, int, int]:
        """Voxels along [x, y, z]."""
        return self.label_map.size

    @property
    def spacing(self) -> tuple[float, float, float]:
        """mm per voxel along [x, y, z]."""
        return self.label_map.spacing

    @cached_property
    def parameters(self) -> TissueParameters:
        """The case's ``engine_parameters``, validated."""
        return read_parameters(self.case.engine_parameters)

    @cached_property
    def labels(self) -> torch.Tensor:
        """Label ids [x, y, z]: uint8 (maisi) or uint16 (brain)."""
        return torch.from_numpy(np.ascontiguousarray(self.label_map.voxels)).to(self.device)

    @cached_property
    def tissues(self) -> torch.Tensor:
        """Tissue ids [x, y, z], uint8."""
        return torch.from_numpy(np.ascontiguousarray(self._tissues)).to(self.device)

    @cached_property
    def code(self) -> TissueCode:
        """The joint code of label and tissue of every voxel, for one gather per table."""
        return TissueCode.of(self.labels, self.tissues, self.label_map.vocabulary)

    def rng(self, stream: str) -> np.random.Generator:
        """The generator of ``stream`` for this case and attempt."""
        return case_rng(self.case.key, self.attempt, f"tissue/{stream}")

    def normal(self, stream: str) -> torch.Tensor:
        """White standard normal noise [x, y, z], float32, drawn on the CPU and moved to the device."""
        noise = normal_noise(self.size, self.case.key, self.attempt, f"tissue/{stream}", self.threads)
        return torch.from_numpy(noise).to(self.device)

    def texture(self, scale_mm: float, stream: str) -> torch.Tensor:
        """A smooth random field [x, y, z], float32, mean 0, variance 1, the same for every call with the same arguments.

        scale_mm: correlation length: the autocorrelation at distance d is about exp(-d^2 / (2 scale_mm^2)).
        Don't write into the result: it is shared.
        """
        key = (float(scale_mm), stream)
        if key not in self._fields:
            self._fields[key] = upsample(self.lattice(scale_mm, stream), self.size)
            if len(self._fields) > _KEPT_FIELDS:
                self._fields.popitem(last=False)
        self._fields.move_to_end(key)
        return self._fields[key]

    def lattice(self, scale_mm: float, stream: str) -> torch.Tensor:
        """The coarse lattice behind ``texture``: float32, spans the volume from first to last voxel centre."""
        key = (float(scale_mm), stream)
        if key not in self._lattices:
            rng = self.rng(f"texture/{stream}/{scale_mm:g}")

            def draw(shape: tuple[int, ...]) -> np.ndarray:
                # Uniform bytes cost a tenth of normal numbers; the smoothing that follows makes a normal field of them.
                values = rng.integers(0, 256, shape, np.uint8).astype(np.float32)
                values -= np.float32(127.5)
                values /= np.float32(np.sqrt((256**2 - 1) / 12))
                return values

            self._lattices[key] = coarse_field(self.size, self.spacing, scale_mm, draw).to(self.device)
        return self._lattices[key]

    def band(self, name: str) -> torch.Tensor:
        """The body's own texture of one of the named ``BANDS``; see ``texture``."""
        return self.texture(BANDS[name], name)

    @cached_property
    def lung_vessels(self) -> VoxelShares:
        """Vessels grown into the lungs, the same in every sequence: flat voxel indices and the share of each voxel."""
        return lung_vessels(self.label_map, self.rng("vessels/lung"))

    @cached_property
    def liver_vessels(self) -> VoxelShares:
        """Vessels grown into the liver; see ``lung_vessels``."""
        return liver_vessels(self.label_map, self.rng("vessels/liver"))
