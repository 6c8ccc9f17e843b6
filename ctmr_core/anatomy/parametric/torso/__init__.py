"""A parametric human torso, thoracic inlet to upper thighs, in the vocabulary ``maisi``."""

from ctmr_core.anatomy.parametric.torso.body import ParametricTorso, parametric_torso

__all__ = ["ParametricTorso", "parametric_torso"]
