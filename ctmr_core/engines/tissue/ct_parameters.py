"""What a recipe can set on the CT sequences."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Phase = Literal["native", "arterial", "portal"]
Kernel = Literal["soft", "standard", "sharp"]


class CtParameters(BaseModel):
    """Settings of the CT sequences; whatever is None is drawn per case.

    phase: contrast phase of ``ct_contrast`` (``"arterial"`` or ``"portal"``).
    kernel: reconstruction kernel: in-plane sharpness and colour of the noise.
    dose: relative to a routine scan; the noise goes with 1/sqrt(dose).
    slice_thickness: mm; None: the spacing along z. At least the spacing along z has an effect.
    noise: standard deviation in HU at the centre of the body at dose 1.
    air_noise: share of the noise that is shown in the air around the body; 0 = clean.
    texture: scale of the texture inside tissues; 0 = flat tissues.
    couch: whether the patient table is drawn below the body.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    phase: Literal["arterial", "portal"] | None = None
    kernel: Kernel | None = None
    dose: Annotated[float, Field(gt=0, le=100, allow_inf_nan=False)] = 1.0
    slice_thickness: Annotated[float, Field(gt=0, le=20, allow_inf_nan=False)] | None = None
    noise: Annotated[float, Field(ge=0, le=200, allow_inf_nan=False)] | None = None
    air_noise: Annotated[float, Field(ge=0, le=1)] = 1.0
    texture: Annotated[float, Field(ge=0, le=3)] = 1.0
    couch: bool = False
