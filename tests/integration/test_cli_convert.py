"""`slipway convert`: its dry run on a model file and on a version, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_registry.registry import Registry
from model_registry.spec import PackageSpec
from model_registry.storage.local import LocalStore
from tests.support import fp16_models
from tests.support.candidates import prepare
from tests.support.command import Outcome, assert_no_process_in, scratch_of, slipway, tree
from tests.support.published_models import publish

pytestmark = pytest.mark.xdist_group("fp16-estimate")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two model files; `network:1` in a registry below."""
    made = tmp_path_factory.mktemp("convert")
    folder = made / "folder"
    folder.mkdir()
    fp16_models.network().save(folder / "network.keras")
    fp16_models.loud_network().save(folder / "loud.keras")
    candidate = prepare(folder / "network.keras", made / "work", {"batch_sizes": [1, 8]})
    publish(
        Registry(LocalStore(folder / "registry")),
        candidate.directory,
        made,
        model="network",
        signatures=candidate.exported.signatures,
        spec=PackageSpec.default("network").model_dump(mode="json"),
    )
    return folder


def convert(folder: Path, *arguments: str | Path) -> Outcome:
    """Runs it, and makes sure that nothing is changed or left behind."""
    before = tree(folder)
    outcome = slipway("convert", *arguments, folder=folder)
    assert tree(folder) == before
    assert list(scratch_of(folder).iterdir()) == []
    assert_no_process_in(scratch_of(folder))
    return outcome


def test_the_dry_run_of_a_version_prints_segments_and_estimate_as_one_document(folder: Path) -> None:
    outcome = convert(folder, "network:1", "--dry-run", "--json")
    assert outcome.code == 0, outcome.stderr
    document = outcome.document
    assert (document["dry_run"], document["source"], document["verdict"]) == (True, "network:1", "blessed")
    assert document["estimate"]["engines"] == 1
    (signature,) = document["estimate"]["signatures"]
    (segment,) = signature["segments"]
    assert 0 < segment["computing_nodes"] < segment["nodes"] <= signature["nodes"]
    assert signature["coverage"] == segment["computing_nodes"] / signature["computing_nodes"]
    assert {left["op"] for left in signature["left_out"]} == {"Identity", "Placeholder"}
    assert all(left["reason"] for left in signature["left_out"])
    checks = {check["check"]: check for check in document["checks"]}
    assert list(checks)[:4] == [
        "fp16 estimate engines",
        "fp16 estimate coverage",
        "fp16 estimate overflow",
        "fp16 estimate/serving_default/scores",
    ]
    assert all(check["variant"] == "tensorrt-fp16" and "estimate" in check["detail"] for check in checks.values())


def test_the_dry_run_of_a_model_file_names_the_layer_that_overflows_and_keeps_to_the_spec(
    folder: Path, tmp_path: Path
) -> None:
    spec = tmp_path / "package.yaml"
    spec.write_text("model: network\nvariants:\n  tensorrt-fp16: {min_coverage: 1.0}\n")
    outcome = convert(folder, "loud.keras", "--dry-run", "--spec", spec)
    assert outcome.code == 3
    assert "TRTEngineOp_000_000" in outcome.stdout
    assert "/loud_1/" in outcome.stdout and "no TensorRT ran" in outcome.stdout
    assert outcome.stdout.count("fp16 estimate overflow") == 1
    assert "loud.keras is not fit for FP16 engines, by an estimate without TensorRT" in outcome.stderr
    assert "fp16 estimate coverage, fp16 estimate overflow" in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "said", "hinted"),
    [
        (["network.keras"], 1, "only a published version can be converted", "slipway package network.keras --variant"),
        (["./registry"], 1, "only a published version can be converted", "--dry-run"),
        (["network:1", "--dry-run", "--trust"], 1, "network:1 is a version", "leave them out"),
        (["network:1", "--dry-run", "--spec", "package.yaml"], 1, "network:1 is a version", "leave them out"),
        (["network:7", "--dry-run"], 1, "network:7", ""),
        (["network:x", "--dry-run"], 1, "names no version", ""),
        (["gone.keras", "--dry-run"], 1, "gone.keras", ""),
        (["network:1", "--dry-run", "--label", "No Label"], 1, "No Label", ""),
    ],
)
def test_what_cannot_be_converted_is_refused_before_any_work(
    folder: Path, arguments: list[str], code: int, said: str, hinted: str
) -> None:
    outcome = convert(folder, *arguments, "--json")
    assert outcome.code == code
    assert said in outcome.error["message"]
    assert hinted in (outcome.error["hint"] or "")
