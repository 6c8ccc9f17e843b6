"""Segmenters a policy names: what they are, what they ask for, and how they are run over an image.

A network is code: opening a TorchScript file or a MONAI bundle can do whatever its author wrote, as importing a package does.
Only what the policy names is opened, Python only from installed packages that offer it under :data:`GROUP`; only what you trust
belongs in a policy; ``sha256`` pins it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ctmr_core.anatomy.mapping import load_mapping
from ctmr_core.anatomy.vocabulary import DTYPES, Vocabulary, load_vocabulary
from ctmr_core.errors import CheckError

if TYPE_CHECKING:
    import torch

GROUP = "ctmr.segmenters"
TORCHSCRIPT = (".ts", ".pt", ".pth", ".torchscript")
Share = Annotated[float, Field(ge=0, le=1)]
Millimetres = Annotated[float, Field(gt=0, le=20)]
Extent = Annotated[int, Field(ge=8, le=512)]
Network = Callable[["torch.Tensor"], "torch.Tensor"]


class Segmenter(BaseModel):
    """One segmentation network, and what its segmentation must agree with.

    source: TorchScript file (``.ts``, ``.pt``), folder of a MONAI bundle, or the name under which an installed package offers a
        callable in the entry-point group ``ctmr.segmenters``. It takes nothing and gives the network: float32 [1, 1, x, y, z]
        in, scores of the classes [1, classes, x, y, z] out, of which the largest counts; of a single one, values above 0.5 are
        class 1.
    sha256: refused unless the file, or all files of the bundle, have this digest; "" takes any.
    mapping: class -> label of the vocabulary (or several, taken together), or a mapping of ``templates import``.
    sequences: what it is run on. spacing: mm [x, y, z] it was trained at; None runs it on the voxels as they are.
    window: values mapped to 0 and 1, what is beyond them cut off; ``percentiles`` takes the 1st and 99th of the image;
        None leaves the values alone. roi, overlap: window in voxels and overlap of MONAI's sliding-window inferer.
    dice, dice_per_label: least Dice. smallest_ml: smaller structures are not looked at.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
    source: str
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    mapping: str | dict[int, str | tuple[str, ...]]
    sequences: Annotated[tuple[str, ...], Field(min_length=1)] = ("ct",)
    spacing: tuple[Millimetres, Millimetres, Millimetres] | None = None
    window: tuple[float, float] | Literal["percentiles"] | None = None
    roi: tuple[Extent, Extent, Extent] = (96, 96, 96)
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.25
    dice: Share = 0.7
    dice_per_label: dict[str, Share] = Field(default_factory=dict)
    smallest_ml: Annotated[float, Field(ge=0)] = 2.0

    @model_validator(mode="after")
    def _labels_are_known(self) -> Segmenter:
        vocabularies = [load_vocabulary(name) for name in DTYPES]
        labels = {name for names in self.classes().values() for name in names} if not isinstance(self.mapping, str) else set()
        for name in sorted(labels):
            if not any(name in vocabulary for vocabulary in vocabularies):
                raise ValueError(f"no vocabulary ({', '.join(DTYPES)}) has a label {name!r}")
        return self

    def beside(self, folder: Path) -> Segmenter:
        """With files that stand beside the policy found from there."""
        changes = {}
        for field in ("source", "mapping"):
            value = getattr(self, field)
            if isinstance(value, str) and not Path(value).is_absolute() and (folder / value).exists():
                changes[field] = str(folder / value)
        return self.model_copy(update=changes)

    def pinned(self) -> Segmenter:
        """With its file's absolute path and digest and its mapping written out: any process that opens it opens this one."""
        digest, path = content_digest(self), Path(self.source)
        place = {"source": str(path.absolute()), "sha256": digest} if path.exists() else {}
        return self.model_copy(update={**place, "mapping": self.classes()})

    def open(self) -> None:
        """Load the network of this process now rather than for the first image; ``CheckError`` when it can't be."""
        _network(self.source, content_digest(self))

    @property
    def measured(self) -> dict[str, Any]:
        """What its scores depend on: content, not place; without the limits of Dice."""
        given = self.model_dump(mode="json", exclude={"source", "sha256", "mapping", "dice", "dice_per_label"})
        classes = {number: list(names) for number, names in sorted(self.classes().items())}
        return {**given, "content": content_digest(self), "classes": classes}

    @property
    def identity(self) -> dict[str, Any]:
        """What verdicts depend on."""
        return {**self.measured, "dice": self.dice, "dice_per_label": dict(self.dice_per_label)}

    def classes(self) -> dict[int, tuple[str, ...]]:
        """Class of the network -> labels it stands for."""
        if not isinstance(self.mapping, str):
            return {number: (names,) if isinstance(names, str) else names for number, names in self.mapping.items()}
        mapping = load_mapping(self.mapping)
        by_id = mapping.vocabulary.by_id
        return {source: (by_id[target].name,) for source, target in mapping.table.items() if target}

    def targets(self, vocabulary: Vocabulary) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
        """Name of what is compared -> (classes of the network, ids of the vocabulary), where the vocabulary has the labels."""
        found: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {}
        for number, names in self.classes().items():
            if all(name in vocabulary for name in names):
                numbers = found.get("+".join(names), ((), ()))[0]
                found["+".join(names)] = ((*numbers, number), tuple(vocabulary.label(name).id for name in names))
        return found

    def least_dice(self, label: str) -> float:
        return self.dice_per_label.get(label, self.dice)


def content_digest(segmenter: Segmenter) -> str:
    """SHA-256 hex of the file, or over all files of the bundle; of a callable, of its name, package and the package's version."""
    path = Path(segmenter.source)
    if path.exists():
        files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
        stamps = tuple((str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files)
        found = _digest_of_files(str(path), stamps)
    elif segmenter.sha256:
        raise CheckError(
            "the file of a segmenter is not here",
            where=f"segmenter {segmenter.name}, field source",
            found=segmenter.source,
            fix="every machine that makes or judges cases needs it under this path",
        )
    else:
        point = _entry_point(segmenter.source)
        if point is None:
            _refuse(segmenter, "there is no such segmenter")
        release = f"{point.dist.name} {point.dist.version}" if point.dist is not None else ""
        found = hashlib.sha256(f"{segmenter.source} {point.value} {release}".encode()).hexdigest()
    if segmenter.sha256 and found != segmenter.sha256:
        raise CheckError(
            "the segmenter is not the one the policy names", where=segmenter.source, found=found, allowed=segmenter.sha256
        )
    return found


def segment(segmenter: Segmenter, sequence_image: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Classes (int32 [x, y, z]) of an image [x, y, z] with voxels of ``spacing`` mm, on the grid of the image."""
    import torch
    from monai.inferers import sliding_window_inference
    from torch.nn.functional import interpolate

    network, device = _network(segmenter.source, content_digest(segmenter))
    values = torch.from_numpy(np.ascontiguousarray(_scaled(sequence_image, segmenter.window)))[None, None].to(device)
    size = sequence_image.shape
    if segmenter.spacing is not None:
        asked = [max(1, round(n * mm / to)) for n, mm, to in zip(size, spacing, segmenter.spacing, strict=True)]
        values = interpolate(values, size=asked, mode="trilinear", align_corners=False)
    with torch.inference_mode():
        scores = sliding_window_inference(values, segmenter.roi, 1, network, overlap=segmenter.overlap, mode="gaussian")
        if not isinstance(scores, torch.Tensor):
            _refuse(segmenter, "the network gives several outputs")
        classes = scores.argmax(1, keepdim=True) if scores.shape[1] > 1 else (scores > 0.5)
        if classes.shape[2:] != size:
            classes = interpolate(classes.float(), size=list(size), mode="nearest-exact")
    return np.asarray(classes[0, 0].to(torch.int32).cpu())


def _scaled(image: np.ndarray, window: tuple[float, float] | str | None) -> np.ndarray:
    values = image.astype(np.float32)
    if window is None:
        return values
    low, high = np.percentile(values, (1, 99)) if isinstance(window, str) else window
    values -= np.float32(low)
    values /= np.float32(max(high - low, 1e-6))
    return np.clip(values, 0.0, 1.0, out=values)


@cache
def _network(source: str, digest: str) -> tuple[Network, Any]:
    """The opened network and its device; opened once per process, again when its files change (``digest``)."""
    del digest
    import torch

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    path = Path(source)
    if path.is_file():
        if path.suffix not in TORCHSCRIPT:
            raise CheckError("not a segmenter", where="field source", found=source, allowed=f"a file ending in {TORCHSCRIPT}")
        network = _torchscript(path, device)
    elif path.is_dir():
        network = _bundle(path, device)
    else:
        network = _made(source)
    if isinstance(network, torch.nn.Module):
        network = network.to(device).eval()
    return network, device


def _torchscript(path: Path, device: Any) -> Any:
    import torch

    try:
        return torch.jit.load(str(path), map_location=device)  # type: ignore[no-untyped-call]
    except RuntimeError as error:
        raise CheckError("not a TorchScript file", where=str(path), found=str(error).splitlines()[0]) from error


def _bundle(folder: Path, device: Any) -> Any:
    """The network of a MONAI bundle: ``models/model.ts``, or ``network_def`` of its configuration with ``models/model.pt``."""
    script = folder / "models" / "model.ts"
    if script.is_file():
        return _torchscript(script, device)
    import torch
    from monai.bundle import ConfigParser

    config = next((folder / "configs" / name for name in ("inference.json", "inference.yaml", "train.json", "train.yaml")
                   if (folder / "configs" / name).is_file()), None)  # fmt: skip
    weights = folder / "models" / "model.pt"
    if config is None or not weights.is_file():
        raise CheckError(
            "not a MONAI bundle",
            where=str(folder),
            allowed="models/model.ts, or configs/inference.json with network_def and models/model.pt",
        )
    parser = ConfigParser()
    parser.read_config(str(config))
    parser["bundle_root"] = str(folder)
    network = parser.get_parsed_content("network_def" if "network_def" in parser else "network")
    state = torch.load(weights, map_location=device, weights_only=True)
    network.load_state_dict(state.get("model", state) if isinstance(state, Mapping) else state)
    return network


def _made(source: str) -> Any:
    point = _entry_point(source)
    if point is None:
        raise CheckError("there is no such segmenter", where="field source", found=source)
    try:
        return point.load()()
    except (ImportError, AttributeError) as error:
        raise CheckError("the segmenter can't be imported", where=f"{source} = {point.value}", found=str(error)) from error


def _entry_point(name: str) -> EntryPoint | None:
    return next((point for point in entry_points(group=GROUP) if point.name == name), None)


@cache
def _digest_of_files(root: str, stamps: tuple[tuple[str, int, int], ...]) -> str:
    top = Path(root)
    if top.is_file():
        return _sha256(top)
    lines = [[str(Path(name).relative_to(top)), _sha256(Path(name))] for name, _, _ in stamps]
    return hashlib.sha256(json.dumps(lines).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refuse(segmenter: Segmenter, what: str) -> NoReturn:
    names = sorted(point.name for point in entry_points(group=GROUP))
    raise CheckError(
        what,
        where=f"segmenter {segmenter.name}, field source",
        found=segmenter.source,
        allowed=["a TorchScript file", "a folder of a MONAI bundle", *names],
    )
