from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from ctmr_core.errors import LearningError
from ctmr_core.learning.training.checkpoints import Checkpoint, load_checkpoint, load_weights, save_checkpoint


def checkpoint(step: int = 3) -> Checkpoint:
    weights = {"network": torch.nn.Linear(2, 3).state_dict()}
    return Checkpoint("line", step, {"a": 1}, {}, weights, {"dice": 0.5})


def test_a_failed_write_leaves_the_checkpoint_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.pt"
    save_checkpoint(path, checkpoint(3))
    real = torch.save

    def full(document: object, stream: object) -> None:
        real({"half": 1}, stream)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(LearningError, match="No space left"):
        save_checkpoint(path, checkpoint(4))
    assert load_checkpoint(path).step == 3
    assert [file.name for file in tmp_path.iterdir()] == ["last.pt"]


class Nasty:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("run while loading",)


def test_nothing_in_a_checkpoint_is_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nasty.pt"
    torch.save({"format": 1, "weights": Nasty()}, path)
    with pytest.raises(LearningError, match="cannot be read"):
        load_checkpoint(path)
    assert capsys.readouterr().out == ""


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torn = tmp_path / "torn.pt"
    save_checkpoint(torn, checkpoint())
    torn.write_bytes(torn.read_bytes()[:200])
    other = tmp_path / "other.pt"
    torch.save({"model": {}}, other)
    text = tmp_path / "text.pt"
    text.write_bytes(pickle.dumps("text"))
    for path in (torn, other, text, tmp_path / "absent.pt"):
        with pytest.raises(LearningError, match=path.name):
            load_checkpoint(path)


def test_weights_start_a_network(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ours.pt", checkpoint())
    theirs = torch.nn.Linear(2, 3)
    torch.save({"state_dict": {f"module.{name}": value for name, value in theirs.state_dict().items()}}, tmp_path / "theirs.pt")
    network = torch.nn.Linear(2, 3)
    assert load_weights(network, tmp_path / "ours.pt") == ([], [])
    load_weights(network, tmp_path / "theirs.pt")
    assert torch.equal(network.weight, theirs.weight)


def test_weights_of_another_network_are_refused_or_taken_over_partly(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "ours.pt", checkpoint())
    network = torch.nn.Linear(5, 3)
    before = network.weight.clone()
    with pytest.raises(LearningError, match="of another network"):
        load_weights(network, tmp_path / "ours.pt")
    assert load_weights(network, tmp_path / "ours.pt", partly=True) == (["weight"], ["weight"])
    assert torch.equal(network.weight, before)
    with pytest.raises(LearningError, match="of another network"):
        load_weights(torch.nn.Conv3d(1, 1, 1), tmp_path / "ours.pt", partly=True)
