"""What a recipe asks for that no body can give: refused before a single case is made."""

from __future__ import annotations

from collections.abc import Sequence

from ctmr_core.anatomy.lesions.sites import LESIONS
from ctmr_core.anatomy.regions import center_labels
from ctmr_core.anatomy.sequences import SKULL_STRIPPED
from ctmr_core.anatomy.vocabulary import Vocabulary, load_vocabulary
from ctmr_core.cases.bodies import BodyPool
from ctmr_core.cases.case import Case
from ctmr_core.cases.problems import near
from ctmr_core.cases.recipe import Recipe
from ctmr_core.errors import AnatomyError, ManifestError, RecipeError


def refuse_case(case: Case, vocabulary_name: str) -> None:
    """``ManifestError`` for one case whose sequences, centre or lesions its body cannot have; for manifests not planned here."""
    vocabulary = load_vocabulary(vocabulary_name)
    for sequence in case.sequences:
        if sequence.endswith(SKULL_STRIPPED) and vocabulary_name != "brain":
            raise ManifestError("skull-stripped sequences need a head", where="field sequences", found=sequence)
    if case.center:
        try:
            center_labels(vocabulary, case.center)
        except AnatomyError as error:
            raise ManifestError(error.what, where="field center", found=case.center, allowed=error.allowed) from error
    for index, lesion in enumerate(case.lesions):
        known = LESIONS.get(vocabulary_name, ())
        if lesion.label not in known:
            what = f"bodies of the {vocabulary_name} vocabulary cannot have this lesion"
            raise ManifestError(what, where=f"field lesions[{index}].label", found=lesion.label, allowed=known)


def refuse_unrenderable(recipe: Recipe, pools: Sequence[Sequence[BodyPool]]) -> None:
    """``RecipeError`` for sequences, centres and lesions that the bodies of a group cannot have."""
    for index, group_pools in enumerate(pools):
        _refuse_anatomy_of_unlabelled(recipe, index, group_pools)
        for name in sorted({name for pool in group_pools for name in pool.vocabularies if name}):
            vocabulary = load_vocabulary(name)
            _refuse_sequences(recipe, index, vocabulary)
            _refuse_centers(recipe, index, vocabulary)
            _refuse_lesions(recipe, index, vocabulary)
        _refuse_centers_out_of_view(recipe, index, group_pools)
        _refuse_counts(recipe, index)


def _refuse_anatomy_of_unlabelled(recipe: Recipe, index: int, pools: Sequence[BodyPool]) -> None:
    """Lesions, centres and warps need a label map."""
    group = recipe.groups[index]
    if not any(name.startswith("unlabelled:") for pool in pools for name in pool.names):
        return
    centers = [center for center in group.center.options if center]
    for field, found in (("lesions", group.lesions is not None), ("center", centers and centers[0])):
        if found:
            raise RecipeError(
                f"an unlabelled body has no label map for {field}",
                where=recipe.where("groups", index, field),
                found=found if isinstance(found, str) else None,
                allowed=f"groups of unlabelled bodies without {field}",
                fix="put these bodies into a group of their own",
            )


def _refuse_sequences(recipe: Recipe, index: int, vocabulary: Vocabulary) -> None:
    for option in recipe.groups[index].sequences.options:
        for sequence in option:
            if sequence.endswith(SKULL_STRIPPED) and vocabulary.name != "brain":
                raise RecipeError(
                    "skull-stripped sequences need a head",
                    where=recipe.where("groups", index, "sequences"),
                    found=sequence,
                    allowed=f"bodies with the brain vocabulary; these have {vocabulary.name}",
                    fix="use {parametric: head} or head templates, or drop the sequence",
                )


def _refuse_centers(recipe: Recipe, index: int, vocabulary: Vocabulary) -> None:
    for center in recipe.groups[index].center.options:
        if not center:
            continue
        try:
            center_labels(vocabulary, center)
        except AnatomyError as error:
            raise RecipeError(
                error.what, where=recipe.where("groups", index, "center"), found=center, allowed=error.allowed, fix=error.fix
            ) from error


def _refuse_centers_out_of_view(recipe: Recipe, index: int, pools: Sequence[BodyPool]) -> None:
    """A field of view cannot be centred on what a template does not show."""
    for center in recipe.groups[index].center.options:
        if not center:
            continue
        templates = [
            (name, frozenset(center_labels(load_vocabulary(vocabulary), center)).isdisjoint(labels))
            for pool in pools
            if not pool.parametric
            for name, vocabulary, labels in zip(pool.names, pool.vocabularies, pool.labels, strict=True)
        ]
        without = [name.removeprefix("template:") for name, lacks in templates if lacks]
        if without:
            raise RecipeError(
                f"{len(without)} of {len(templates)} templates do not show what the field of view is centred on",
                where=recipe.where("groups", index, "center"),
                found=f"{center}; not in {', '.join(without[:5])}",
                allowed="a center that all chosen templates show",
                fix="narrow the templates with regions or labels, or choose another center",
            )


def _refuse_lesions(recipe: Recipe, index: int, vocabulary: Vocabulary) -> None:
    group = recipe.groups[index]
    if group.lesions is None:
        return
    known = LESIONS.get(vocabulary.name, ())
    extent = min(n * mm for size in group.size.options for n, mm in zip(size, group.spacing.limits[0], strict=True))
    for position, kind in enumerate(group.lesions.kinds):
        where = recipe.where("groups", index, "lesions", *(() if group.lesions.every else ("choose",)), position, "label")
        if kind.label not in known:
            other = "brain" if vocabulary.name == "maisi" else "maisi"
            elsewhere = kind.label in LESIONS.get(other, ())
            meant = near(kind.label, known)
            body = "a head" if vocabulary.name == "brain" else "a torso"
            what = f"{body} cannot have this lesion" if elsewhere else "unknown lesion"
            fix = f"did you mean {meant!r}?" if meant and not elsewhere else None
            raise RecipeError(what, where=where, found=kind.label, allowed=known, fix=fix)
        if kind.diameter.limits[1] >= extent:
            raise RecipeError(
                "the lesion can be larger than the field of view",
                where=where.removesuffix("label") + "diameter",
                found=f"{kind.diameter.limits[1]:g} mm",
                allowed=f"below {extent:g} mm, the shortest side",
            )


def _refuse_counts(recipe: Recipe, index: int) -> None:
    group = recipe.groups[index]
    if group.lesions is not None and group.lesions.exact is not None and group.lesions.exact > group.cases:
        raise RecipeError(
            "more cases with lesions than cases",
            where=recipe.where("groups", index, "lesions", "exact"),
            found=group.lesions.exact,
            allowed=f"0..{group.cases}",
        )
