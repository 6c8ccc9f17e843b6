"""Distributions a recipe may put in place of a value, and exact, repeatable draws from them.

``choose`` is apportioned, not sampled: with weights 3:1 over 8 cases exactly 6 and 2 get each value, in a seeded order.
The continuous ones are sampled. Everything is drawn for a whole group at once (numpy).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, TypeVar

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from ctmr_core.cases.problems import refuse_unknown_keys

T = TypeVar("T")
Real = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Weight = Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys and says which one was probably meant."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            refuse_unknown_keys(data, cls.model_fields)
        return data


def apportion(weights: np.ndarray | list[float] | tuple[float, ...], count: int) -> np.ndarray:
    """Whole numbers (int64) that share ``count`` in proportion to ``weights``: largest remainder, ties to the first."""
    shares = np.asarray(weights, np.float64)
    shares = shares / shares.sum() * count
    # Rounding first: 0.1 * 30 must be 3 and not 3.0000000000000004, or ties would depend on the last bit.
    shares = np.round(shares, 9)
    whole = np.floor(shares).astype(np.int64)
    order = np.argsort(-(shares - whole), kind="stable")
    whole[order[: count - int(whole.sum())]] += 1
    return whole


def exact_choice(weights: np.ndarray | list[float] | tuple[float, ...], count: int, rng: np.random.Generator) -> np.ndarray:
    """``count`` indices (int64) into ``weights``, apportioned exactly and then shuffled by ``rng``."""
    indices = np.repeat(np.arange(len(weights)), apportion(weights, count))
    return rng.permutation(indices)


class Choice(Strict, Generic[T]):
    """A fixed value, or ``choose`` one of several (with ``weights``). Anything that is not a mapping is a fixed value."""

    value: T | None = None
    choose: Annotated[tuple[T, ...], Field(min_length=1)] | None = None
    weights: tuple[Weight, ...] | None = None

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, data: Any) -> Any:
        if isinstance(data, cls):
            return data
        if not isinstance(data, Mapping):
            return {"value": data}
        spelled_out = [name for name in cls.model_fields if name != "value"]
        if "value" not in data or len(data) > 1:
            refuse_unknown_keys(data, spelled_out)
        return data

    @model_validator(mode="after")
    def _one_kind_is_given(self) -> Choice[T]:
        kinds = [name for name in type(self).model_fields if name != "weights"]
        given = [name for name in kinds if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"one kind of value is needed, {len(given)} are given; allowed: a plain value, {', '.join(kinds[1:])}"
            )
        if self.weights is not None:
            if self.choose is None:
                raise ValueError("weights go with choose and nothing else")
            if len(self.weights) != len(self.choose):
                raise ValueError(f"{len(self.weights)} weights for {len(self.choose)} choices; allowed: one weight per choice")
            if sum(self.weights) <= 0:
                raise ValueError("the weights are all 0; allowed: at least one weight above 0")
        return self

    @property
    def options(self) -> tuple[T, ...]:
        """The values of a discrete choice (of weight 0, too); empty for a continuous distribution."""
        if self.choose is not None:
            return self.choose
        return () if self.value is None else (self.value,)

    def draw_options(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """``count`` indices (int64) into ``options``."""
        return exact_choice(self.weights or [1.0] * len(self.options), count, rng)


class Bounds(Strict):
    """``[low, high]`` or ``{low: ..., high: ...}``, both included."""

    low: Real
    high: Real

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, data: Any) -> Any:
        return _bounds(cls, data)

    @model_validator(mode="after")
    def _low_is_below_high(self) -> Bounds:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}; allowed: low <= high")
        return self


def _bounds(model: type[BaseModel], data: Any) -> Any:
    if isinstance(data, (list, tuple)) and len(data) == 2:
        return {"low": data[0], "high": data[1]}
    if isinstance(data, Mapping):
        refuse_unknown_keys(data, model.model_fields)
    elif not isinstance(data, BaseModel):
        raise ValueError("a range has two ends; allowed: [low, high] or {low: .., high: ..}")
    return data


class PositiveBounds(Bounds):
    """A range above 0."""

    @model_validator(mode="after")
    def _low_is_positive(self) -> PositiveBounds:
        if self.low <= 0:
            raise ValueError(f"low is {self.low}; allowed: above 0")
        return self


class Normal(Bounds):
    """A normal distribution, clipped to [low, high]."""

    mean: Real
    sd: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class LogNormal(PositiveBounds):
    """A log-normal distribution by its median and the standard deviation of its logarithm, clipped to [low, high]."""

    median: Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False)]
    sigma: Annotated[float, Field(strict=True, ge=0, allow_inf_nan=False)]


class Number(Choice[Real]):
    """A number: fixed, chosen, or drawn from a continuous distribution."""

    uniform: Bounds | None = None
    log_uniform: PositiveBounds | None = None
    normal: Normal | None = None
    lognormal: LogNormal | None = None

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the greatest value that can be drawn."""
        if self.options:
            return float(min(self.options)), float(max(self.options))
        bounds = self.uniform or self.log_uniform or self.normal or self.lognormal
        assert bounds is not None  # noqa: S101 - the validator made sure
        return bounds.low, bounds.high

    def draw(self, count: int, rng: np.random.Generator, decimals: int = 2) -> np.ndarray:
        """``count`` values (float64); the continuous ones rounded to ``decimals`` and kept inside the limits."""
        if self.options:
            return np.asarray(self.options, np.float64)[self.draw_options(count, rng)]
        low, high = self.limits
        if self.uniform:
            values = rng.uniform(low, high, count)
        elif self.log_uniform:
            values = np.exp(rng.uniform(np.log(low), np.log(high), count))
        elif self.normal:
            values = self.normal.mean + self.normal.sd * rng.standard_normal(count)
        else:
            assert self.lognormal is not None  # noqa: S101
            values = self.lognormal.median * np.exp(self.lognormal.sigma * rng.standard_normal(count))
        return np.clip(np.round(values, decimals), low, high)


Triple = tuple[Real, Real, Real]


class TripleBounds(Strict):
    """Ends of a range per axis: ``{low: [x, y, z], high: [x, y, z]}``; plain numbers mean the same on all axes."""

    low: Real | Triple
    high: Real | Triple

    @model_validator(mode="before")
    @classmethod
    def _normalise(cls, data: Any) -> Any:
        return _bounds(cls, data)

    @model_validator(mode="after")
    def _low_is_below_high(self) -> TripleBounds:
        if self.isotropic != isinstance(self.high, float):
            raise ValueError("one end is a number and the other a triple; allowed: two numbers or two triples")
        if any(low > high for low, high in zip(*self.triples, strict=True)):
            raise ValueError(f"low {self.low} is above high {self.high}; allowed: low <= high on every axis")
        return self

    @property
    def isotropic(self) -> bool:
        """Whether one number is drawn for all three axes."""
        return isinstance(self.low, float)

    @property
    def triples(self) -> tuple[Triple, Triple]:
        """Low and high per axis."""
        low, high = ((end, end, end) if isinstance(end, float) else end for end in (self.low, self.high))
        return low, high


class SquarePixels(Strict):
    """Ranges of the pixel size (x and y alike) and of the slice distance (z), each drawn uniformly."""

    in_plane: Bounds
    slices: Bounds


class Spacing(Choice[Triple]):
    """mm per voxel along [x, y, z]: fixed, chosen, or drawn.

    uniform: each axis on its own, or isotropic where the ends are plain numbers. square_pixels: as scanners acquire.
    """

    uniform: TripleBounds | None = None
    square_pixels: SquarePixels | None = None

    @property
    def limits(self) -> tuple[Triple, Triple]:
        """The smallest and the greatest value per axis that can be drawn."""
        if self.uniform:
            return self.uniform.triples
        if self.square_pixels:
            plane, slices = self.square_pixels.in_plane, self.square_pixels.slices
            return (plane.low, plane.low, slices.low), (plane.high, plane.high, slices.high)
        low, high = (tuple(pick(axis) for axis in zip(*self.options, strict=True)) for pick in (min, max))
        return low, high  # type: ignore[return-value]

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """``count`` x 3 mm per voxel (float64), rounded to 0.01 mm where drawn."""
        if self.options:
            return np.asarray(self.options, np.float64)[self.draw_options(count, rng)]
        low, high = np.asarray(self.limits)
        if self.uniform and self.uniform.isotropic:
            values = np.repeat(rng.uniform(low[0], high[0], (count, 1)), 3, axis=1)
        else:
            values = rng.uniform(low, high, (count, 3))
        if self.square_pixels:
            values[:, 1] = values[:, 0]
        return np.clip(np.round(values, 2), low, high)


def within(low: float, high: float, unit: str) -> Callable[[Number], Number]:
    """A validator: every value ``number`` can take lies in [low, high]."""

    def check(number: Number) -> Number:
        least, greatest = number.limits
        if least < low or greatest > high:
            value = f"{least:g}" if least == greatest else f"{least:g}..{greatest:g}"
            raise ValueError(f"the value can be {value} {unit}; allowed: {low:g}..{high:g} {unit}")
        return number

    return check
