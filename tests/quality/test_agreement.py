"""Segmenters of a policy: what a network finds is compared with the label map, wherever the network comes from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ctmr_core.errors import CheckError
from ctmr_core.quality.agreement import AgreementCheck
from ctmr_core.quality.base import Candidate
from ctmr_core.quality.policy import checks_of, load_policy, parse_policy
from ctmr_core.quality.segmenters import Segmenter, content_digest, segment
from tests.quality.test_checks import case_of, ct, torso
from tests.quality.test_policy import judge_scores

LIVER, LUNG = 1, 2


class Thresholds(torch.nn.Module):
    """Lung where the image is dark but not air, liver between 40 and 90 HU: [1, 1, x, y, z] -> [1, 3, x, y, z]."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        hu = image * self.scale
        lung = (hu > -900) & (hu < -700)
        liver = (hu > 40) & (hu < 90)
        return torch.cat([(~(lung | liver)).float(), liver.float(), lung.float()], 1)


def made_thresholds() -> Thresholds:
    return Thresholds()


@pytest.fixture(scope="module")
def network(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("network") / "thresholds.ts"
    torch.jit.script(Thresholds()).save(str(path))
    return path


def segmenter(source: object, **fields: object) -> Segmenter:
    given = {"name": "net", "source": str(source), "mapping": {LIVER: "liver", LUNG: "left lung upper lobe"}, "roi": (48, 48, 48)}
    return Segmenter(**{**given, **fields})


def candidate(image: np.ndarray | None = None) -> Candidate:
    image = ct() if image is None else image
    return Candidate(case_of(("ct",)), torso(), {"ct": image})


def test_an_image_of_its_label_map_agrees_and_a_moved_one_does_not(network):
    check = AgreementCheck([segmenter(network)])
    good = check.run(candidate())
    assert set(good.scores) == {"net/ct/liver", "net/ct/left lung upper lobe"}
    assert good.scores["net/ct/left lung upper lobe"] > 0.95
    moved = check.run(candidate(np.roll(ct(), 8, axis=0)))
    assert moved.scores["net/ct/left lung upper lobe"] < 0.3
    assert any("net finds left lung upper lobe in ct with a Dice of" in reason for reason in moved.reasons)


def test_dice_is_that_of_the_two_masks(network):
    net = segmenter(network)
    found = segment(net, ct(), torso().spacing)
    mask, drawn = found == LUNG, torso().voxels == 28
    expected = 2 * np.count_nonzero(mask & drawn) / (np.count_nonzero(mask) + np.count_nonzero(drawn))
    assert AgreementCheck([net]).measure(candidate())["net/ct/left lung upper lobe"] == pytest.approx(expected)


def test_the_network_sees_the_spacing_it_was_trained_at(network):
    coarse = segment(segmenter(network, spacing=(8.0, 8.0, 8.0), roi=(24, 24, 24)), ct(), torso().spacing)
    assert coarse.shape == torso().size
    block = coarse[:48, :48, :48].reshape(24, 2, 24, 2, 24, 2)
    assert (block.max((1, 3, 5)) == block.min((1, 3, 5))).all()
    agreed = AgreementCheck([segmenter(network, spacing=(8.0, 8.0, 8.0))]).measure(candidate())
    assert agreed["net/ct/left lung upper lobe"] > 0.9


@pytest.mark.parametrize("window", [(-1000.0, 1000.0), "percentiles", None])
def test_values_are_scaled_as_the_network_asks(network, window):
    from ctmr_core.quality.segmenters import _scaled

    image = ct()
    scaled = _scaled(image, window)
    if window is None:
        assert np.array_equal(scaled, image)
    else:
        assert scaled.min() == 0.0
        assert scaled.max() == pytest.approx(1.0 if window == "percentiles" else (image.max() + 1000) / 2000)
        assert np.corrcoef(scaled.ravel(), image.ravel())[0, 1] > 0.99


def test_several_labels_count_as_one_and_missing_ones_are_passed_over(network):
    both = segmenter(network, mapping={LUNG: ("left lung upper lobe", "left lung lower lobe"), LIVER: "spleen"})
    scores = AgreementCheck([both]).measure(candidate())
    assert set(scores) == {"net/ct/left lung upper lobe+left lung lower lobe"}
    assert AgreementCheck([segmenter(network, smallest_ml=1e5)]).measure(candidate()) == {}
    assert not AgreementCheck([segmenter(network, sequences=("mri_t1",))]).applies(case_of(("ct",)))


@pytest.fixture
def package(tmp_path, monkeypatch) -> None:
    """An installed package that offers segmenters."""
    info = tmp_path / "site" / "nets-2.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: nets\nVersion: 2.0\n")
    offered = "[ctmr.segmenters]\nthresholds = tests.quality.test_agreement:made_thresholds\nnothing = tests.quality.nets:made\n"
    (info / "entry_points.txt").write_text(offered)
    monkeypatch.syspath_prepend(tmp_path / "site")


def test_a_package_and_a_bundle_find_what_the_file_finds(network, package, tmp_path):
    expected = segment(segmenter(network), ct(), torso().spacing)
    called = segment(segmenter("thresholds"), ct(), torso().spacing)
    assert np.array_equal(called, expected)
    bundle = tmp_path / "bundle"
    (bundle / "configs").mkdir(parents=True)
    (bundle / "models").mkdir()
    definition = {"network_def": {"_target_": "tests.quality.test_agreement.Thresholds", "scale": 3.0}}
    (bundle / "configs" / "inference.json").write_text(json.dumps(definition))
    torch.save(Thresholds().state_dict(), bundle / "models" / "model.pt")
    assert np.array_equal(segment(segmenter(bundle), ct(), torso().spacing), expected)


def test_the_version_follows_what_is_measured_and_the_digest_what_is_decided(network, tmp_path):
    plain, strict = segmenter(network), segmenter(network, dice=0.9, dice_per_label={"liver": 0.5})
    assert AgreementCheck([plain]).version == AgreementCheck([strict]).version
    assert AgreementCheck([plain]).version != AgreementCheck([segmenter(network, overlap=0.5)]).version
    elsewhere = tmp_path / "same.ts"
    elsewhere.write_bytes(network.read_bytes())
    assert AgreementCheck([plain]).version == AgreementCheck([segmenter(elsewhere)]).version
    policies = [parse_policy("policy: 1", "p").model_copy(update={"segmenters": (each,)}) for each in (plain, strict)]
    assert len({policy.digest for policy in policies} | {parse_policy("policy: 1", "p").digest}) == 3


def test_a_policy_file_names_its_segmenter_beside_it_and_judges_by_scores(network, tmp_path):
    (tmp_path / "net.ts").write_bytes(network.read_bytes())
    sha = content_digest(segmenter(network))
    (tmp_path / "p.yaml").write_text(
        f"policy: 1\nname: agreeing\nweights: {{agreement: 2}}\nsegmenters:\n"
        f"  - {{name: net, source: net.ts, sha256: {sha}, mapping: {{1: liver, 2: left lung upper lobe}}, dice: 0.2,\n"
        f"     dice_per_label: {{liver: 0.999}}}}\n"
    )
    policy = load_policy(tmp_path / "p.yaml")
    check = checks_of(policy)[-1]
    assert check.name == "agreement"
    scores = {f"agreement/{name}": value for name, value in check.measure(candidate()).items()}
    verdict = judge_scores(case_of(("ct",)), scores, policy, [f"agreement@{check.version}"])
    assert verdict.checks == (f"agreement@{check.version}",)
    (reason,) = verdict.reasons
    assert reason.startswith("agreement: net finds liver in ct")


def test_what_is_no_segmenter_is_refused(network, package, tmp_path):
    with pytest.raises(CheckError, match="no such segmenter"):
        content_digest(segmenter(tmp_path / "none.ts"))
    with pytest.raises(CheckError, match="not the one the policy names"):
        content_digest(segmenter(network, sha256="0" * 64))
    (tmp_path / "text.ts").write_text("not a network")
    with pytest.raises(CheckError, match="not a TorchScript file"):
        segment(segmenter(tmp_path / "text.ts"), ct(), torso().spacing)
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckError, match="not a MONAI bundle"):
        segment(segmenter(tmp_path / "empty"), ct(), torso().spacing)
    with pytest.raises(CheckError, match="can't be imported"):
        segment(segmenter("nothing"), ct(), torso().spacing)
    with pytest.raises(CheckError, match="no such segmenter"):  # Python that no package offers is never imported
        segment(segmenter("tests.quality.test_agreement:made_thresholds"), ct(), torso().spacing)
    with pytest.raises(ValueError, match="has a label 'leber'"):
        segmenter(network, mapping={1: "leber"})
    two = "{name: a, source: b, mapping: {1: liver}}"
    with pytest.raises(CheckError, match="same name"):
        parse_policy(f"policy: 1\nsegmenters: [{two}, {two}]", "p.yaml")
    with pytest.raises(CheckError, match="segmenters"):
        parse_policy("policy: 1\nsegmenters: [{name: a, source: b, mapping: {1: liver}, colour: red}]", "p.yaml")
