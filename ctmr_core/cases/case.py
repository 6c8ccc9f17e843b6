"""The case: one row of a manifest, everything that decides one volume."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ctmr_core.anatomy.sequences import MODALITY_CODES, is_ct

SCHEMA_VERSION = 1
IMPORTED = "import"  # what the engine of scans is called that were not made here
CASE_ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,79}$"  # a file name on every system: no dots, no separators
PARAMETRIC_BODIES = ("torso", "head")
GENERATED_PATTERN = r"^[a-z][a-z0-9_-]{0,63}$"  # what an engine calls a way to make bodies
#: Of bodies without labels: what should be in view, for engines that draw anatomy and image in one. -> vocabulary of the map.
UNLABELLED_REGIONS = {"head": "brain", "chest": "maisi", "abdomen": "maisi", "pelvis": "maisi"}

Split = Literal["train", "val", "test"]
MOST_DEGREES = 45.0  # of a pose, about each axis: what patients reach in a head rest, with room
PositiveMm = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Voxels = Annotated[int, Field(ge=1)]


class Lesion(BaseModel):
    """A lesion to put into the body: ``label`` is a lesion name of the vocabulary, ``diameter`` its mean diameter in mm."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    label: str
    diameter: PositiveMm


class Case(BaseModel):
    """One manifest row, validated and frozen.

    body: ``"parametric:torso"``, ``"parametric:head"``, ``"template:<template id>"``, ``"generated:<way>"`` for engines that make
        the label map too (``BodyEngine``), or ``"unlabelled:<region>"`` for engines that draw the anatomy without one; its
        label map is all background.
    body_seed: the person (parametric, generated) or the deformation (template); equal body and body_seed are the same body
        (of a generated one: under the same engine, parameters, grid and attempt).
    size, spacing: voxels and mm per voxel along [x, y, z], RAS+.
    center: region (head, chest, abdomen, pelvis) or label name the field of view is centred on; "" = middle of the body.
    deformation: greatest displacement in mm of the smooth random warp of a template (0 = as it is).
    pose: degrees (nod, turn, tilt) that the body is turned by, see ``anatomy.pose.Pose``; () = as it lies.
    engine_parameters, checks: settings of the engine and of the checks, JSON objects.
    seed: an extra number to make the same row anew with other random draws.
    template_digest: of the template, or of what a generated body is made of. engine_identity: name, version and weights.
        Both are filled in by the planner or at generation and enter ``case_key``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    case_id: Annotated[str, Field(pattern=CASE_ID_PATTERN)]
    body: str
    body_seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    split: Split = "train"
    sequences: Annotated[tuple[str, ...], Field(min_length=1)]
    size: tuple[Voxels, Voxels, Voxels]
    spacing: tuple[PositiveMm, PositiveMm, PositiveMm]
    center: str = ""
    lesions: tuple[Lesion, ...] = ()
    deformation: Annotated[float, Field(ge=0, le=50)] = 0.0
    pose: tuple[float, ...] = ()
    engine: str = "tissue"
    engine_parameters: dict[str, Any] = Field(default_factory=dict)
    checks: dict[str, Any] = Field(default_factory=dict)
    max_attempts: Annotated[int, Field(ge=1, le=100)] = 3
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    template_digest: str = ""
    engine_identity: str = ""

    @field_validator("body")
    @classmethod
    def _body_is_known(cls, body: str) -> str:
        source, _, name = body.partition(":")
        if source == "parametric" and name in PARAMETRIC_BODIES:
            return body
        if source == "unlabelled" and name in UNLABELLED_REGIONS:
            return body
        if source == "template" and re.fullmatch(CASE_ID_PATTERN, name):
            return body
        if source == "generated" and re.fullmatch(GENERATED_PATTERN, name):
            return body
        kinds = ", ".join(f"parametric:{name}" for name in PARAMETRIC_BODIES)
        regions = "|".join(UNLABELLED_REGIONS)
        allowed = f"{kinds}, template:<template id>, generated:<what the engine makes>, unlabelled:<{regions}>"
        raise ValueError(f"unknown body {body!r}; allowed: {allowed}")

    @field_validator("sequences")
    @classmethod
    def _sequences_are_known(cls, sequences: tuple[str, ...]) -> tuple[str, ...]:
        for sequence in sequences:
            if sequence not in MODALITY_CODES:
                raise ValueError(f"unknown sequence {sequence!r}; allowed: {', '.join(MODALITY_CODES)}")
        if len(set(sequences)) != len(sequences):
            raise ValueError(f"sequences are listed twice: {', '.join(sequences)}")
        return sequences

    @field_validator("pose", mode="before")
    @classmethod
    def _no_pose_is_empty(cls, pose: Any) -> Any:
        return () if pose is None else pose

    @field_validator("pose")
    @classmethod
    def _pose_is_three_angles(cls, pose: tuple[float, ...]) -> tuple[float, ...]:
        if len(pose) not in (0, 3) or not all(abs(angle) <= MOST_DEGREES for angle in pose):
            allowed = f"nod, turn and tilt in degrees, each {-MOST_DEGREES:g}..{MOST_DEGREES:g}"
            raise ValueError(f"this is no pose: {list(pose)}; allowed: {allowed}")
        return tuple(angle + 0.0 for angle in pose) if any(pose) else ()

    @model_validator(mode="after")
    def _sizes_can_be_rendered(self) -> Case:
        for n, mm, axis in zip(self.size, self.spacing, "xyz", strict=True):
            if not 16 <= n <= 1024:
                raise ValueError(f"size along {axis} is {n} voxels; allowed: 16..1024")
            if not 0.2 <= mm <= 10.0:
                raise ValueError(f"spacing along {axis} is {mm} mm; allowed: 0.2..10.0")
        return self

    @model_validator(mode="after")
    def _unlabelled_bodies_have_nothing_to_name(self) -> Case:
        if self.unlabelled_region:
            for name, value in self._asked_of_the_map():
                if value:
                    raise ValueError(f"an unlabelled body has no label map for {name}; allowed: leave {name} out")
        return self

    def _asked_of_the_map(self) -> tuple[tuple[str, Any], ...]:
        return (("lesions", self.lesions), ("center", self.center), ("deformation", self.deformation), ("pose", self.pose))

    @property
    def unlabelled_region(self) -> str | None:
        """The region a body without labels should show, None for every other body."""
        source, _, name = self.body.partition(":")
        return name if source == "unlabelled" else None

    @property
    def is_generated(self) -> bool:
        """Whether the engine makes the body's label map."""
        return self.body.startswith("generated:")

    @property
    def template_id(self) -> str | None:
        """The template's id, or None for every other body."""
        source, _, name = self.body.partition(":")
        return name if source == "template" else None

    @property
    def body_identity(self) -> str:
        """What must not be shared between splits: the template, or the parametric or generated person."""
        return self.body if self.template_id else f"{self.body}:{self.body_seed}"

    @property
    def has_ct(self) -> bool:
        return any(is_ct(sequence) for sequence in self.sequences)

    def canonical_row(self) -> str:
        """The row as canonical JSON: sorted keys, no spaces, floats as Python writes them (shortest round trip).

        A pose is only written where there is one: cases from before poses keep their keys.
        """
        return json.dumps(
            self.model_dump(mode="json", exclude=None if self.pose else {"pose"}),
            sort_keys=True,
            separators=(",", ":"),
            allow_nan=False,
        )

    @property
    def key(self) -> str:
        """``case_key``: SHA-256 hex over schema version and canonical row, which holds template digest and engine identity."""
        return hashlib.sha256(f"{SCHEMA_VERSION}\n{self.canonical_row()}".encode()).hexdigest()
