import pytest

from ctmr_core.engines.base import Engine
from ctmr_core.engines.registry import engine_identity, engine_names, load_engine
from ctmr_core.errors import EngineError


def test_the_tissue_engine_is_found_by_its_name() -> None:
    engine = load_engine("tissue", device="cpu")
    assert isinstance(engine, Engine)
    assert "tissue" in engine_names()


def test_the_identity_names_engine_and_version() -> None:
    engine = load_engine("tissue")
    assert engine_identity("tissue") == f"tissue/{engine.version}"


def test_an_unknown_engine_is_refused_with_the_known_ones() -> None:
    with pytest.raises(EngineError) as refusal:
        load_engine("tisue")
    assert "tissue" in str(refusal.value.allowed)
    assert "tisue" in str(refusal.value.found)
