"""A recipe that the tests of cases share."""

from __future__ import annotations

from pathlib import Path

import pytest

TORSO_AND_HEAD = """\
name: small
seed: 7
splits: {train: 0.8, val: 0.1, test: 0.1}
groups:
  - name: torso-ct
    cases: 10
    bodies: {parametric: torso}
    sequences: {choose: [[ct], [ct_contrast]], weights: [3, 1]}
    spacing: {choose: [[1.5, 1.5, 1.5], [2, 2, 3]]}
    size: [64, 64, 64]
    center: abdomen
    lesions: {probability: 0.5, choose: [{label: hepatic tumor, diameter: {uniform: [10, 40]}}], count: {choose: [1, 2]}}
    engine_parameters: {ct: {dose: {uniform: [0.5, 1.0]}, kernel: {choose: [soft, sharp]}, fixed: 3}}
  - name: head-mr
    cases: 10
    bodies: {parametric: head}
    cases_per_body: 2
    sequences: [mri_t1, mri_t2]
    spacing: {uniform: [1.0, 2.0]}
    size: {choose: [[64, 64, 64], [96, 64, 64]]}
    center: head
    lesions: [{label: left white matter lesion, diameter: 8}]
"""


@pytest.fixture
def recipe_text() -> str:
    return TORSO_AND_HEAD


@pytest.fixture
def recipe_path(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(TORSO_AND_HEAD)
    return path
