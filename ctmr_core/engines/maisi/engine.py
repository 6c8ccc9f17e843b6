"""The MAISI engines: NVIDIA's generators as engines of the factory, one class per released variant.

``rflow-ct`` and ``ddpm-ct`` render CT of the label maps of bodies (ControlNet), and make such label maps (bodies
``generated:mask`` and ``generated:bank``). Without labels (bodies ``unlabelled:<region>``)
every variant draws an anatomy of its own; ``rflow-mr`` and ``rflow-mr-brain`` can do only that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from ctmr_core.anatomy.label_map import LabelMap
from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.cases.case import Case
from ctmr_core.cases.seeds import case_rng
from ctmr_core.engines.base import Images
from ctmr_core.engines.maisi.drawn_bodies import BODIES, BodyMaker
from ctmr_core.engines.maisi.hub import file_states, licences_in, missing_weights, models_root
from ctmr_core.engines.maisi.identity import own_network_config, weights_digest
from ctmr_core.engines.maisi.memory import default_precision
from ctmr_core.engines.maisi.models import MaisiModels
from ctmr_core.engines.maisi.noise import Seed
from ctmr_core.engines.maisi.parameters import MaisiParameters, read_parameters
from ctmr_core.engines.maisi.released import Part
from ctmr_core.engines.maisi.requests import refuse_other_file, refuse_request
from ctmr_core.engines.maisi.sampling import Embedded
from ctmr_core.engines.maisi.starting_image import Start, read_start
from ctmr_core.engines.maisi.variants import variant
from ctmr_core.engines.maisi.volume import VolumeRequest, device_named, one_thread, sample_volume
from ctmr_core.errors import EngineError

_NOISE = "maisi/noise"  # one stream for all sequences of a case, so that they differ in nothing but the modality


@dataclass(frozen=True)
class _Source:
    """Where the networks of a case come from: folder, configuration (None: the released one), precision and compiler."""

    root: Path
    network_config: Path | None
    precision: str
    compiler: str | None


class MaisiEngine:
    """One released variant; networks are read when the first case is rendered and kept until ``close``.

    device: ``cpu``, ``cuda``, ``cuda:<n>``. threads: CPU threads for this process; None leaves torch's own choice. On a CPU the
    networks compute in one thread whatever it says, because more of them change the last bits: use more workers.
    models: folder of the weights (default: ``CTMR_MODELS``, else ``~/.cache/ctmr/models``). network_config: JSON file for
    networks of another size (default: ``network_<variant>.json`` in that folder, else the released configuration).

    Noise is drawn on the CPU from (case.key, attempt), so a case is the same on one kind of device whoever renders it; kinds
    of devices differ in the last bits of their arithmetic.
    """

    name: ClassVar[str]
    version = "1"  # raised whenever the bytes of any image change
    vocabularies = frozenset(("maisi", "brain"))

    def __init__(
        self,
        device: str = "cpu",
        threads: int | None = None,
        models: str | Path | None = None,
        network_config: str | Path | None = None,
    ) -> None:
        self.device = device_named(device)
        if threads is not None:
            if threads < 1:
                raise EngineError("threads must be at least 1", found=threads)
            torch.set_num_threads(threads)
        self.root = models_root(models)
        self._network_config = Path(network_config) if network_config else None
        self._loaded: tuple[_Source, MaisiModels] | None = None
        self._shapes: dict[_Source, MaisiModels] = {}
        self._digests: dict[_Source, tuple[dict[Path, tuple[int, int] | None], str]] = {}

    @property
    def sequences(self) -> frozenset[str]:
        """The sequences the variant was trained on; ddpm-ct has no modality input and makes plain ``ct``."""
        if self.name == "ddpm-ct":
            return frozenset(("ct",))
        trained = variant(self.name).modalities
        return frozenset(name for name, code in MODALITY_CODES.items() if code in trained and code != 0)

    def licences_of(self, case: Case) -> tuple[str, ...]:
        """Licences of the weights that make ``case``, kept with its volume in the catalog."""
        return licences_in(self.name, self._source(read_parameters(case.engine_parameters)).root)

    @property
    def weights_digest(self) -> str:
        """SHA-256 hex over the digests of the weights and the network configuration; "" while weights are missing."""
        return weights_digest(self.name, self.root, self._config_of(self.root))

    def validate(self, case: Case) -> None:
        """Refuse (``EngineError``) what the variant can't make, and cases whose weights are not there."""
        try:
            parameters = read_parameters(case.engine_parameters)
            source = self._source(parameters)
            if source not in self._shapes:
                # Planning may be done on a machine without the device that will render: what the networks take is enough.
                self._shapes[source] = MaisiModels.load(self.name, root=source.root, network_config=source.network_config)
            refuse_request(case, self.name, self.sequences, self._shapes[source], parameters)
            if parameters.start is not None:
                refuse_other_file(Path(parameters.start.image).expanduser(), parameters.start.sha256)
            self._refuse_weights(source, parameters)
        except EngineError as error:
            raise error.located(f"case {case.case_id}") from error

    def render(self, case: Case, label_map: LabelMap, attempt: int) -> Images:
        """All sequences of ``case``: int16 [x, y, z] on the grid of ``label_map``; CT in HU, MR in arbitrary units >= 0.

        CT of a label map is -1000 HU wherever the map is background. ``parameters`` of the images say how they were made,
        with the rungs of the memory ladder that did not fit.
        """
        labels = None if case.unlabelled_region else label_map
        images = Images()
        embedded: Embedded = {}
        for sequence in case.sequences:
            seed = case_rng(case.key, attempt, _NOISE)
            images[sequence], images.parameters[sequence] = self.sample(case, labels, sequence, seed, embedded=embedded)
        return images

    def sample(
        self,
        case: Case,
        label_map: LabelMap | None,
        sequence: str,
        seed: Seed,
        start: Start | None = None,
        embedded: Embedded | None = None,
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """One image of a case from noise of ``seed``, and the record of how it was made. label_map None: draw an anatomy.

        start: an image to start from; None: the one the case names, if any. embedded: shared by the sequences of one label map.
        """
        parameters = read_parameters(case.engine_parameters)
        source = self._source(parameters)
        models = self._models(source)
        refuse_request(case, self.name, self.sequences, models, parameters)
        self._refuse_weights(source, parameters)
        if label_map is not None and label_map.vocabulary.name != "maisi":
            raise EngineError(
                f"{self.name} reads label maps of bodies only",
                where=f"case {case.case_id}, field body",
                found=f"{case.body} ({label_map.vocabulary.name} vocabulary)",
                allowed="bodies with the maisi vocabulary",
            )
        voxels = label_map.voxels if label_map is not None else None
        start = self._start(case, sequence, parameters) if start is None else start
        request = VolumeRequest(case.size, case.spacing, sequence, voxels, case.unlabelled_region, start, embedded)
        with one_thread(self.device):
            image, record = sample_volume(models, request, parameters, seed)
        record["weights"] = self._digest(source)
        return image, record

    def _start(self, case: Case, sequence: str, parameters: MaisiParameters) -> Start | None:
        """The image the case starts from; ``EngineError`` when the file is not the one that is meant."""
        if parameters.start is None:
            return None
        path = Path(parameters.start.image).expanduser()
        refuse_other_file(path, parameters.start.sha256)
        modality = MODALITY_CODES[sequence]
        return Start(read_start(path, case.size, case.spacing, modality), parameters.start.strength)

    def close(self) -> None:
        """Release the networks and their memory."""
        if self._loaded is not None:
            self._loaded[1].close()
            self._loaded = None

    def _source(self, parameters: MaisiParameters) -> _Source:
        root = models_root(parameters.models) if parameters.models else self.root
        config = Path(parameters.network_config) if parameters.network_config else self._config_of(root)
        wanted = parameters.precision
        return _Source(root, config, default_precision(self.device) if wanted == "auto" else wanted, parameters.compiler)

    def _config_of(self, root: Path) -> Path | None:
        return self._network_config or own_network_config(self.name, root)

    def _models(self, source: _Source) -> MaisiModels:
        """The networks of ``source``, kept for the next case; networks of another source are released first."""
        if self._loaded is None or self._loaded[0] != source:
            self.close()
            models = MaisiModels.load(
                self.name,
                root=source.root,
                network_config=source.network_config,
                device=self.device,
                dtype=source.precision,
                compiler=source.compiler,
            )
            self._loaded = (source, models)
        return self._loaded[1]

    def _refuse_weights(self, source: _Source, parameters: MaisiParameters) -> None:
        digest = self._digest(source)
        if parameters.weights is not None and not digest.startswith(parameters.weights):
            raise EngineError(
                "the weights in place are not the ones the case names",
                where="engine_parameters.weights",
                found=parameters.weights,
                allowed=f"{digest[:16]} for what is in {source.root}",
                fix="put the weights that are meant there, or name these",
            )

    def _digest(self, source: _Source) -> str:
        """The weights' digest, or the error that says what is missing. Asked for every case, so looked up by the files' times."""
        known = self._digests.get(source)
        if known is not None and known[0] == _versions(known[0]):
            return known[1]
        digest = weights_digest(self.name, source.root, source.network_config)
        states = file_states(self.name, source.root)
        missing = missing_weights(self.name, source.root, states)
        if missing is not None:
            raise missing
        paths = [state.path for state in states] + ([source.network_config] if source.network_config else [])
        self._digests[source] = (_versions(paths), digest)
        return digest


def _versions(paths: Iterable[Path]) -> dict[Path, tuple[int, int] | None]:
    """Size and time of files, None where there is none."""
    found: dict[Path, tuple[int, int] | None] = {}
    for path in paths:
        try:
            status = path.stat()
        except FileNotFoundError:
            found[path] = None
        else:
            found[path] = (status.st_size, status.st_mtime_ns)
    return found


class CtEngine(MaisiEngine):
    """A variant that makes label maps, too: drawn from anatomy sizes (``generated:mask``), or of a bank (``generated:bank``)."""

    bodies = BODIES

    def licences_of(self, case: Case) -> tuple[str, ...]:
        """Licences of the weights that make ``case``, and of what its label map is made of; a bank of your own has none."""
        parameters = read_parameters(case.engine_parameters)
        parts: list[Part] = ["image"]
        if case.body == "generated:mask":
            parts.append("masks")
        elif case.is_generated and parameters.bank is None:
            parts.append("bank")
        return licences_in(self.name, self._source(parameters).root, parts)

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._makers: dict[tuple[Path, Path | None], BodyMaker] = {}

    def validate(self, case: Case) -> None:
        """Refuse (``EngineError``) what the variant can't make, label maps included."""
        super().validate(case)
        if case.is_generated:
            try:
                parameters = read_parameters(case.engine_parameters)
                self._refuse_sources(case, parameters)
                self._maker(parameters).validate(case, parameters)
            except EngineError as error:
                raise error.located(f"case {case.case_id}") from error

    def body(self, case: Case, attempt: int) -> tuple[LabelMap, list[dict[str, Any]]]:
        """A label map (maisi vocabulary) on the case's grid with the lesions of the case, and how it was made.

        Depends on body, body_seed, attempt, engine parameters and grid; ``EngineError`` where it does not show what was asked
        for, which another attempt may.
        """
        parameters = read_parameters(case.engine_parameters)
        self._refuse_sources(case, parameters)
        maker = self._maker(parameters)
        maker.validate(case, parameters)
        with one_thread(self.device):
            return maker.body(case, attempt, self._models(self._source(parameters)), parameters)

    def body_digest(self, body: str) -> str:
        """SHA-256 hex of what label maps of this kind are made of in this engine's models folder; "" while that is missing."""
        return self._maker(MaisiParameters()).digest(body)

    def _maker(self, parameters: MaisiParameters) -> BodyMaker:
        root = self._source(parameters).root
        bank = Path(parameters.bank).expanduser() if parameters.bank else None
        if (root, bank) not in self._makers:
            self._makers[root, bank] = BodyMaker(self.name, root, bank)
        return self._makers[root, bank]

    def _refuse_sources(self, case: Case, parameters: MaisiParameters) -> None:
        """Label maps must be made of what was meant: paths can't say what is in a folder."""
        own = parameters.models is not None or parameters.bank is not None
        meant = parameters.body_digest or ("" if own else case.template_digest)
        found = self._maker(parameters).digest(case.body)
        if own and parameters.body_digest is None and found:
            raise EngineError(
                "a folder of your own needs body_digest, the digest of what label maps are made of",
                where="engine_parameters.body_digest",
                allowed=f"{found[:16]} for what is there",
            )
        if meant and found and not found.startswith(meant):
            raise EngineError(
                "label maps are not made of what was meant",
                where="engine_parameters.body_digest" if parameters.body_digest else "field template_digest",
                found=meant,
                allowed=f"{found[:16]} for what is there",
                fix="put the files that are meant there, or plan again",
            )


class RflowCtEngine(CtEngine):
    """CT by rectified flow (MAISI-v2), from label maps or without."""

    name = "rflow-ct"


class DdpmCtEngine(CtEngine):
    """CT by a denoising diffusion model of 1000 steps (MAISI-v1), from label maps or without."""

    name = "ddpm-ct"


class RflowMrEngine(MaisiEngine):
    """MR of any part of the body by rectified flow, without labels. Weights for non-commercial use."""

    name = "rflow-mr"


class RflowMrBrainEngine(MaisiEngine):
    """MR of heads by rectified flow, without labels."""

    name = "rflow-mr-brain"
