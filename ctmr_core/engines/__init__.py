"""Label map -> images."""

from ctmr_core.engines.base import Engine, Images
from ctmr_core.engines.registry import body_digest, engine_identity, engine_names, load_engine

__all__ = ["Engine", "Images", "body_digest", "engine_identity", "engine_names", "load_engine"]
