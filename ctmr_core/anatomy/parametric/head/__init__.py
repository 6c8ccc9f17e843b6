"""The parametric head: skin to folded cortex, drawn from a seed, in the ``brain`` vocabulary."""

from ctmr_core.anatomy.parametric.head.body import ParametricHead, parametric_head

__all__ = ["ParametricHead", "parametric_head"]
