"""Configurations of trainings: YAML, read once, with file, line and field in every refusal."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ctmr_core.cases.problems import gather, problems_of
from ctmr_core.cases.recipe_source import Kind, RecipeSource, read_source
from ctmr_core.errors import LearningError

M = TypeVar("M", bound=BaseModel)
_KIND = Kind("training configuration", LearningError, "see docs/training.md")


def load_config(path: Path | str, model: type[M]) -> M:
    """The configuration in a YAML file; ``LearningError`` with file, line, field, found and allowed for what is wrong in it."""
    return _validated(read_source(path, _KIND), model)


def parse_config(data: Mapping[str, Any], model: type[M], name: str = "configuration") -> M:
    """The configuration given as plain data; ``name`` is what errors call it."""
    return _validated(RecipeSource(name, "", data, {}), model)


def _validated(source: RecipeSource, model: type[M]) -> M:
    try:
        return model.model_validate(source.data)
    except ValidationError as error:
        problems = problems_of(error, source.data)
        errors = [LearningError(one.what, where=source.where(one.path), found=one.found, allowed=one.allowed, fix=one.fix)
                  for one in problems]  # fmt: skip
        raise gather(errors) from error
