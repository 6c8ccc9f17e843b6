"""Container files: what can be judged without a container engine."""

from __future__ import annotations

import re

import pytest

from tests.infra.conftest import INFRA, REPOSITORY, Tool

FILES = sorted((INFRA / "containers").glob("Dockerfile.*"))


def instructions(text: str) -> list[tuple[str, str]]:
    """(instruction, arguments) of a container file, continued lines joined."""
    lines = re.sub(r"\\\n", " ", re.sub(r"(?m)^\s*#.*\n", "", text)).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def test_there_is_one_for_cpus_and_one_for_gpus() -> None:
    assert [path.suffix for path in FILES] == [".cpu", ".cuda"]


def test_hadolint_and_shellcheck_find_nothing(tool: Tool) -> None:
    for found in (tool("hadolint", *FILES), tool("shellcheck", INFRA / "containers" / "ctmr-role")):
        assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix)
def test_images_are_pinned_and_run_without_root(path) -> None:
    steps = instructions(path.read_text())
    base = dict(argument.split("=", 1) for name, argument in steps if name == "ARG")["BASE"]
    assert re.fullmatch(r"[\w./-]+:\d+\.\d+\.\d+[\w.-]*(@sha256:[0-9a-f]{64})?", base)
    assert [argument.split()[0] for name, argument in steps if name == "FROM"] == ["${BASE}", "${BASE}"]
    assert [argument for name, argument in steps if name == "USER"] == ["10001:10001"]
    assert any(name == "HEALTHCHECK" and "ctmr-role" in argument for name, argument in steps)
    installs = [argument for name, argument in steps if name == "RUN" and "pip install" in argument]
    assert all("-c constraints.txt" in argument or "--no-deps" in argument for argument in installs)
    own_index = any("download.pytorch.org/whl/cpu" in argument for argument in installs)
    assert own_index == (path.suffix == ".cpu")  # PyPI's wheels of torch bring CUDA


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.suffix)
def test_everything_copied_exists_and_is_in_the_context(path) -> None:
    allowed = [line[1:] for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name, argument in instructions(path.read_text()):
        if name != "COPY" or "--from=" in argument:
            continue
        for source in [word for word in argument.split()[:-1] if not word.startswith("--")]:
            assert (REPOSITORY / source).exists()
            assert source == "." or any(source == entry or source.startswith(f"{entry}/") for entry in allowed)
