"""The recipe: what a person asks for, in a page of YAML. ``docs/recipes.md`` describes every field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError, field_validator, model_validator
from pydantic_core import PydanticCustomError

from ctmr_core.anatomy.sequences import MODALITY_CODES
from ctmr_core.cases.case import GENERATED_PATTERN, MOST_DEGREES, Split
from ctmr_core.cases.distributions import Choice, Number, Real, Spacing, Strict, Weight, apportion, within
from ctmr_core.cases.problems import gather, near, problems_of
from ctmr_core.cases.recipe_source import RecipeSource, read_source
from ctmr_core.cases.targets import Targets
from ctmr_core.errors import RecipeError

Count = Annotated[int, Field(strict=True, ge=1)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]  # leaves room for -0000000 in a case id
Voxels = Annotated[int, Field(strict=True, ge=16, le=1024)]
Size = tuple[Voxels, Voxels, Voxels]
Sequences = Annotated[tuple[str, ...], Field(min_length=1)]
LesionCount = Annotated[int, Field(strict=True, ge=1, le=20)]

SPLITS: tuple[Split, ...] = ("train", "val", "test")
DISTRIBUTION_KEYS = frozenset({"choose", "weights", "uniform", "log_uniform", "normal", "lognormal"})


class TemplateQuery(Strict):
    """Which templates of a library to use; everything given must hold.

    library: folder of the template library. ids: these templates. vocabulary: maisi or brain.
    regions: they show every one of these regions. labels: they contain every one of these labels.
    tumor_free: True = without tumours, False = with at least one.
    """

    library: str = "templates"
    ids: tuple[str, ...] = ()
    regions: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    tumor_free: bool | None = None
    vocabulary: Literal["maisi", "brain"] | None = None


class BodySource(Strict):
    """Where bodies come from: a ``parametric`` kind, ``templates``, the engine's own (``generated``), or nothing but a region
    in view (``unlabelled``).

    ``weight`` is its share of the group's bodies.
    """

    parametric: Literal["torso", "head"] | None = None
    unlabelled: Literal["head", "chest", "abdomen", "pelvis"] | None = None
    templates: TemplateQuery | None = None
    generated: Annotated[str, Field(pattern=GENERATED_PATTERN)] | None = None
    weight: Weight = 1.0

    @model_validator(mode="after")
    def _one_source_is_given(self) -> BodySource:
        sources = (self.parametric, self.templates, self.generated, self.unlabelled)
        if sum(source is not None for source in sources) != 1:
            raise ValueError("a body comes from one source; allowed: either parametric, templates, generated or unlabelled")
        return self


class LesionKind(Strict):
    """A lesion label of the body's vocabulary and its mean diameter in mm."""

    label: str
    diameter: Annotated[Number, AfterValidator(within(1.0, 200.0, "mm"))]


class Lesions(Strict):
    """Which cases get lesions, how many, and of which kind.

    every: these lesions in every case (what a plain list in the recipe means).
    choose, weights: one kind per lesion. count: lesions per case that has any.
    probability: share of the cases that have lesions (apportioned: 0.5 of 6 cases is 3); exact: their number instead.
    """

    every: tuple[LesionKind, ...] | None = None
    choose: Annotated[tuple[LesionKind, ...], Field(min_length=1)] | None = None
    weights: tuple[Weight, ...] | None = None
    count: Choice[LesionCount] = Choice[LesionCount](value=1)
    probability: Annotated[float, Field(strict=True, ge=0, le=1)] | None = None
    exact: Annotated[int, Field(strict=True, ge=0)] | None = None

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, data: Any) -> Any:
        if isinstance(data, (list, tuple)):
            return {"every": data}
        return super()._normalise(data)  # type: ignore[operator]

    @model_validator(mode="after")
    def _parts_fit_together(self) -> Lesions:
        if (self.every is None) == (self.choose is None):
            raise ValueError("lesions need a list of kinds to choose from; allowed: a list of lesions, or a mapping with choose")
        if self.weights is not None and (self.choose is None or len(self.weights) != len(self.choose) or sum(self.weights) <= 0):
            raise ValueError("the weights do not fit the choices; allowed: one weight per choice, at least one above 0")
        if self.probability is not None and self.exact is not None:
            raise ValueError("probability and exact say the same thing; allowed: one of them")
        return self

    @property
    def kinds(self) -> tuple[LesionKind, ...]:
        """Every kind that can occur."""
        return self.every or self.choose or ()

    @property
    def most(self) -> int:
        """The greatest number of lesions in one case."""
        return len(self.every) if self.every is not None else max(self.count.options)


def _with_distributions(tree: Any, path: tuple[str | int, ...] = ()) -> Any:
    """Replace the mappings in ``tree`` that spell out a distribution by ``Number`` or ``Choice``."""
    if isinstance(tree, Mapping):
        if tree and DISTRIBUTION_KEYS.issuperset(tree):
            model = Choice[Any] if "choose" in tree else Number
            try:
                return model.model_validate(dict(tree))
            except ValidationError as error:
                problem = problems_of(error, tree)[0]
                raise PydanticCustomError(
                    "parameter",
                    "not a distribution",
                    {"path": [*path, *problem.path], "what": problem.what, "found": problem.found, "allowed": problem.allowed},
                ) from error
        return {str(key): _with_distributions(value, (*path, str(key))) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_with_distributions(value, (*path, index)) for index, value in enumerate(tree)]
    return tree


Degrees = Annotated[Number, AfterValidator(within(-MOST_DEGREES, MOST_DEGREES, "degrees"))]


class GroupPose(Strict):
    """How bodies lie, in degrees; see ``anatomy.pose.Pose``. One draw a body."""

    nod: Degrees = Number(value=0.0)
    turn: Degrees = Number(value=0.0)
    tilt: Degrees = Number(value=0.0)

    @property
    def angles(self) -> dict[str, Number]:
        """Name -> number, in the order of a case's ``pose``."""
        return {"nod": self.nod, "turn": self.turn, "tilt": self.tilt}

    @property
    def turns(self) -> bool:
        """Whether any angle can be other than 0."""
        return any(any(number.limits) for number in self.angles.values())


class Group(Strict):
    """Cases that are alike: ``cases`` of them, named ``<name>-0000000`` upwards."""

    name: Name
    cases: Annotated[int, Field(strict=True, ge=1, le=9_999_999)]
    bodies: Annotated[tuple[BodySource, ...], Field(min_length=1)]
    cases_per_body: Count = 1
    sequences: Choice[Sequences]
    size: Choice[Size]
    spacing: Spacing
    center: Choice[str] = Choice[str](value="")
    deformation: Annotated[Number, AfterValidator(within(0.0, 50.0, "mm"))] = Number(value=0.0)
    pose: GroupPose = GroupPose()
    lesions: Lesions | None = None
    engine: str = "tissue"
    engine_parameters: Annotated[dict[str, Any], AfterValidator(_with_distributions)] = Field(default_factory=dict)
    checks: dict[str, Any] = Field(default_factory=dict)
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=100)] | None = None

    @field_validator("bodies", mode="before")
    @classmethod
    def _one_body_is_a_list(cls, bodies: Any) -> Any:
        return [bodies] if isinstance(bodies, Mapping) else bodies

    @field_validator("sequences")
    @classmethod
    def _sequences_are_known(cls, sequences: Choice[Sequences]) -> Choice[Sequences]:
        for option in sequences.options:
            for name in option:
                if name not in MODALITY_CODES:
                    meant = near(name, MODALITY_CODES)
                    hint = f" (did you mean {meant}?)" if meant else ""
                    raise ValueError(f"unknown sequence {name!r}{hint}; allowed: {', '.join(MODALITY_CODES)}")
            if len(set(option)) != len(option):
                raise ValueError(f"a sequence is listed twice; allowed: each one once, found {', '.join(option)}")
        return sequences

    @model_validator(mode="after")
    def _what_is_turned_has_a_map(self) -> Group:
        if self.pose.turns and any(body.generated or body.unlabelled for body in self.bodies):
            raise ValueError("a pose turns a body by its label map; allowed: with parametric bodies and templates")
        return self

    @field_validator("spacing")
    @classmethod
    def _spacing_can_be_rendered(cls, spacing: Spacing) -> Spacing:
        low, high = spacing.limits
        if min(low) < 0.2 or max(high) > 10.0:
            raise ValueError(f"the spacing can be {min(low):g}..{max(high):g} mm; allowed: 0.2..10 mm")
        return spacing


def _scaled(group: Group, cases: int) -> Group:
    lesions = group.lesions
    if lesions is not None and lesions.exact:
        exact = min(cases, max(1, round(lesions.exact * cases / group.cases)))
        lesions = lesions.model_copy(update={"exact": exact})
    return group.model_copy(update={"cases": cases, "lesions": lesions})


def _all_train() -> dict[Split, float]:
    return {"train": 1.0}


class Recipe(Strict):
    """A whole recipe. policy: a quality policy (file or built-in) whose checks go into every group; see ``planner.plan``.

    targets: what the finished set should look like; they go along in the manifest and are kept with the dataset.
    """

    name: Name
    description: str = ""
    seed: Annotated[int, Field(strict=True, ge=0, lt=2**63)] = 0
    max_attempts: Annotated[int, Field(strict=True, ge=1, le=100)] = 3
    splits: dict[Split, Annotated[Real, Field(ge=0)]] = Field(default_factory=_all_train)
    policy: Annotated[str, Field(min_length=1)] | None = None
    targets: Targets | None = None
    groups: Annotated[tuple[Group, ...], Field(min_length=1)]

    _source: RecipeSource | None = PrivateAttr(None)
    _carried: dict[str, str] = PrivateAttr(default_factory=dict)

    @field_validator("splits")
    @classmethod
    def _splits_add_up(cls, splits: dict[str, float]) -> dict[str, float]:
        if abs(sum(splits.values()) - 1.0) > 1e-6:
            raise ValueError(f"the splits add up to {sum(splits.values()):g}; allowed: 1")
        return splits

    @model_validator(mode="after")
    def _group_names_are_unique(self) -> Recipe:
        names = [group.name for group in self.groups]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise PydanticCustomError(
                    "group_name",
                    "two groups have the same name",
                    {
                        "path": ["groups", index, "name"],
                        "what": "two groups have the same name",
                        "found": name,
                        "allowed": "one name per group",
                    },
                )
        return self

    @model_validator(mode="after")
    def _targets_can_be_met(self) -> Recipe:
        if self.targets is None:
            return self
        planned: dict[str, set[str]] = {
            "sequence": {name for group in self.groups for option in group.sequences.options for name in option},
            "split": {name for name, share in self.splits.items() if share},
            "engine": {group.engine for group in self.groups},
            "lesion": {"none", *(kind.label for group in self.groups if group.lesions for kind in group.lesions.kinds)},
        }
        for what, shares in self.targets.shares.items():
            for value, share in shares.items() if what in planned else ():
                if share and value not in planned[what]:
                    raise PydanticCustomError(
                        "target",
                        "no group makes what the targets want",
                        {
                            "path": ["targets", "shares", what, value],
                            "what": "no group makes what the targets want",
                            "found": value,
                            "allowed": ", ".join(sorted(planned[what])),
                        },
                    )
        return self

    @property
    def source(self) -> RecipeSource | None:
        """The text this recipe was read from, if it was."""
        return self._source

    @property
    def carried(self) -> dict[str, str]:
        """What goes along in the manifest's metadata beside the recipe: name -> text."""
        return dict(self._carried)

    def carrying(self, more: Mapping[str, str]) -> Recipe:
        """The same recipe with more to go along."""
        recipe = self.model_copy()
        recipe._carried = {**self._carried, **more}
        return recipe

    @property
    def cases(self) -> int:
        """Cases in all groups together."""
        return sum(group.cases for group in self.groups)

    def scaled_to(self, cases: int) -> Recipe:
        """The same recipe for another number of cases, shared among the groups as before; groups left without any are dropped."""
        if cases < 1:
            raise RecipeError("a recipe makes at least one case", found=cases)
        shares = apportion([group.cases for group in self.groups], cases).tolist()
        groups = tuple(_scaled(group, n) for group, n in zip(self.groups, shares, strict=True) if n)
        recipe = self.model_copy(update={"groups": groups})
        if self._source is not None:
            data = {**self._source.data, "groups": [g for g, n in zip(self._source.data["groups"], shares, strict=True) if n]}
            lines = self._source.lines if len(groups) == len(self.groups) else {}
            recipe._source = RecipeSource(self._source.name, f"{self._source.text}# scaled to {cases} cases\n", data, lines)
        return recipe

    def where(self, *path: str | int) -> str:
        """File, line and field of ``path`` for an error message."""
        source = self._source or RecipeSource(f"recipe {self.name}", "", {}, {})
        return source.where(path)


def load_recipe(path: Path | str) -> Recipe:
    """Read and validate a recipe; ``RecipeError`` with file, line, field, found and allowed for what is wrong in it."""
    return recipe_from_source(read_source(path))


def parse_recipe(data: Mapping[str, Any], name: str = "recipe") -> Recipe:
    """Validate a recipe given as plain data."""
    return recipe_from_source(RecipeSource(name, "", data, {}))


def recipe_from_source(source: RecipeSource) -> Recipe:
    """Validate what was read."""
    try:
        recipe = Recipe.model_validate(source.data)
    except ValidationError as error:
        problems = problems_of(error, source.data)
        errors = [
            RecipeError(
                problem.what, where=source.where(problem.path), found=problem.found, allowed=problem.allowed, fix=problem.fix
            )
            for problem in problems
        ]
        raise gather(errors) from error
    recipe._source = source
    return recipe
