"""What a recipe can set on the physics engine (``engine_parameters`` of a case)."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ctmr_core.engines.tissue.ct_parameters import CtParameters
from ctmr_core.engines.tissue.mr_parameters import MrParameters
from ctmr_core.errors import EngineError

Intensities = Literal["population", "template"]


class TissueParameters(BaseModel):
    """Settings of the ``tissue`` engine.

    ct, mr: settings of the CT and of the MR sequences.
    intensities: ``"population"`` draws every tissue from published ranges; ``"template"`` keeps median and spread that
    were measured per label in the template's own image, where the label map carries them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ct: CtParameters = Field(default_factory=CtParameters)
    mr: MrParameters = Field(default_factory=MrParameters)
    intensities: Intensities = "population"


def read_parameters(settings: dict[str, Any]) -> TissueParameters:
    """``settings`` validated; ``EngineError`` that names the field, what was found and what is allowed."""
    try:
        return TissueParameters.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise EngineError(
            f"{first['msg'][0].lower()}{first['msg'][1:]}",
            where=f"engine_parameters, field {place}",
            found=first["input"],
            allowed=_fields_beside(first["loc"]) if first["type"] == "extra_forbidden" else None,
        ) from error


def _fields_beside(path: tuple[int | str, ...]) -> list[str]:
    """The fields allowed where the unknown field at ``path`` was found."""
    model: type[BaseModel] = TissueParameters
    for part in path[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not (isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)):
            return []
        model = field.annotation
    return sorted(model.model_fields)
