"""What a recipe can set on the MAISI engines (``engine_parameters`` of a case)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from ctmr_core.cases.case import Split
from ctmr_core.engines.maisi.anatomy_sizes import N_SLOTS
from ctmr_core.engines.maisi.compiling import INDUCTOR, TENSORRT
from ctmr_core.errors import EngineError

Region = Literal["head", "chest", "abdomen", "pelvis"]
MASK_BODY, BANK_BODY = "generated:mask", "generated:bank"
"""Bodies that the CT variants make: label maps drawn from anatomy sizes, and label maps of a bank, varied."""
_MASK_SETTINGS = frozenset(("anatomy_sizes", "mask_steps"))
_BANK_SETTINGS = frozenset(("bank", "in_view", "bank_splits"))
_BODY_SETTINGS = _MASK_SETTINGS | _BANK_SETTINGS | {"anatomy", "body_digest"}
LatentVoxels = Annotated[int, Field(ge=4, le=512)]


HexDigits = Annotated[str, Field(pattern=r"^[0-9a-f]{8,64}$")]
BANK_SPLITS: Mapping[Split, float] = {"train": 0.8, "val": 0.1, "test": 0.1}


class DecodeParameters(BaseModel):
    """The decoder's window (latent voxels [x, y, z]: a quarter of the image's) and the share by which windows overlap."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    window: tuple[LatentVoxels, LatentVoxels, LatentVoxels]
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.4


class StartParameters(BaseModel):
    """An image to start from: its NIfTI file, the beginning of the file's SHA-256 (paths can't say which), and the strength.

    strength: share of the steps that are done, 0 (the image as the autoencoder gives it back) to 1 (noise alone).
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: str
    sha256: HexDigits
    strength: Annotated[float, Field(ge=0, le=1)] = 0.5


class MaisiParameters(BaseModel):
    """Settings of the MAISI engines.

    mode: ``fixed`` (defects of the reference repaired) or ``compat`` (number for number like the reference).
    steps: sampling steps; None: 30 for rectified flow, 1000 for DDPM. guidance: classifier-free guidance scale; None: the
    one the variant was released with for images of nobody, 0 (off) for images of label maps.
    precision: ``auto`` is half precision on CUDA and single elsewhere.
    decode: window and overlap; None chooses by the memory that is free, so that machines of different memory can make
    slightly different images: set it where the same bytes are wanted everywhere.
    regions: (top, bottom) for ddpm-ct; None reads them off the label map.
    start: an image to start from in place of noise alone.
    compile: compile the networks of the sampling loop with torch's compiler, or with ``tensorrt`` where that is installed:
    faster once compiled, last bits differ.
    limits: ``off`` lifts the limits of size, spacing and modality, for networks of your own.
    models, network_config: folder of weights and configuration of the networks, for weights of your own; ``weights`` (the
    beginning of their digest, 8 or more hex digits) must then say which ones are meant, because paths can't.

    For generated bodies. anatomy: structures (names) that must be there. anatomy_sizes: ten sizes, or some by name, 0-1 or
    -1 for absent; mask_steps: None for 1000 (``generated:mask``). in_view: regions that must be in view. bank: folder of a
    bank of your own. bank_splits: share of the bank's label maps that cases of each split may use (``generated:bank``).
    body_digest: with ``models`` or ``bank``, the beginning of the digest of what label maps are made of.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    mode: Literal["fixed", "compat"] = "fixed"
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100)] | None = None
    precision: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    decode: DecodeParameters | None = None
    regions: tuple[Region, Region] | None = None
    start: StartParameters | None = None
    compile: bool | Literal["tensorrt"] = False
    limits: bool = True
    models: str | None = None
    network_config: str | None = None
    weights: HexDigits | None = None
    anatomy: tuple[str, ...] = ()
    anatomy_sizes: dict[str, float] | Annotated[tuple[float, ...], Field(min_length=N_SLOTS, max_length=N_SLOTS)] | None = None
    mask_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    in_view: tuple[Region, ...] = ()
    bank: str | None = None
    bank_splits: dict[Split, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=lambda: dict(BANK_SPLITS))
    body_digest: HexDigits | None = None

    @model_validator(mode="after")
    def _own_weights_are_named(self) -> MaisiParameters:
        if (self.models or self.network_config) and self.weights is None:
            raise ValueError(
                "models and network_config need weights, the digest of the files that are meant "
                "(`ctmr models list --root FOLDER` shows it)"
            )
        return self

    @model_validator(mode="after")
    def _shares_add_up(self) -> MaisiParameters:
        if abs(sum(self.bank_splits.values()) - 1) > 1e-6:
            raise ValueError("the shares of bank_splits must add up to 1")
        return self

    def useless_settings(self, body: str) -> list[str]:
        """Settings of label maps that were made although the body has no use for them."""
        useful = {MASK_BODY: _BODY_SETTINGS - _BANK_SETTINGS, BANK_BODY: _BODY_SETTINGS - _MASK_SETTINGS}.get(body, frozenset())
        return sorted(self.model_fields_set & (_BODY_SETTINGS - useful))

    @property
    def compiler(self) -> str | None:
        """Backend of ``torch.compile``, if any."""
        return TENSORRT if self.compile == TENSORRT else INDUCTOR if self.compile else None

    @property
    def compat(self) -> bool:
        return self.mode == "compat"


_NESTED: dict[str, type[BaseModel]] = {"decode": DecodeParameters, "start": StartParameters}


def read_parameters(settings: dict[str, Any]) -> MaisiParameters:
    """``settings`` validated; ``EngineError`` that names the field, what was found and what is allowed."""
    try:
        return MaisiParameters.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        unknown = first["type"] == "extra_forbidden"
        place = str(first["loc"][0]) if len(first["loc"]) > 1 else ""
        fields = set(_NESTED.get(place, MaisiParameters).model_fields)
        message = first["msg"].removeprefix("Value error, ")
        raise EngineError(
            f"{message[0].lower()}{message[1:]}",
            where=".".join(["engine_parameters", *map(str, first["loc"])]),
            found=first["input"],
            allowed=sorted(fields) if unknown else None,
        ) from error
