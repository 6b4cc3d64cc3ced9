"""Each guard rail of a conversion: what passes it, and what does not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from model_registry.servable import Check, PayloadFile
from model_registry.spec import TensorRTSpec
from tasks.conversion_checks import LARGEST_GRAPH, conversion_checks
from tasks.model_process.conversion_messages import (
    BuiltEngines,
    ConvertedModel,
    LeftOut,
    RewrittenModel,
    RewrittenSignature,
    Segment,
)

ENGINE = "assets/trt-serialized-engine.TRTEngineOp_000_000"
GOOD = RewrittenSignature(
    "serving_default", "", 60, 20, (Segment("TRTEngineOp_000_000", 55, 18),), (LeftOut("Ceil", 2, ""),)
)
NATIVE = RewrittenSignature("by_name", "takes strings", 30, 25, (), (LeftOut("LookupTableFindV2", 5, ""),))
FILES = {"saved_model.pb": 5_000, ENGINE: 900, "assets.extra/tf_serving_warmup_requests": 10}


def checks(
    *signatures: RewrittenSignature,
    built: int | None = 1,
    promised: tuple[str, ...] = (ENGINE,),
    files: dict[str, int] = FILES,
    min_coverage: float = 0.5,
) -> dict[str, Check]:
    found = conversion_checks(
        RewrittenModel(signatures or (GOOD, NATIVE)),
        None if built is None else BuiltEngines(built),
        ConvertedModel(0, promised),
        [PayloadFile(path, size, "0" * 64) for path, size in files.items()],
        settings=TensorRTSpec(min_coverage=min_coverage),
        variant="tensorrt-fp16-sm80",
    )
    assert {check.variant for check in found} == {"tensorrt-fp16-sm80"}
    return {check.check: check for check in found}


def failed(found: dict[str, Check]) -> list[str]:
    return [name for name, check in found.items() if not check.passed]


def test_a_conversion_as_it_should_be_passes_every_check() -> None:
    found = checks()

    assert list(found) == ["engines", "coverage", "graph size", "engines built", "engine assets"]
    assert failed(found) == []
    assert found["engines"].measured == 1
    assert found["coverage"].measured == pytest.approx(18 / 20), "a signature that stays native does not count"


def test_a_signature_that_stays_native_says_why() -> None:
    assert checks()["engines"].detail == "by_name stays native: takes strings"


def test_a_conversion_into_zero_engines_fails() -> None:
    found = checks(replace(GOOD, segments=()), built=0, promised=())

    assert failed(found) == ["engines", "coverage", "engines built", "engine assets"]
    assert found["engines"].detail == "TF-TRT took nothing of the graph"


def test_a_model_whose_signatures_all_stay_native_fails() -> None:
    assert "engines" in failed(checks(NATIVE, built=0, promised=()))


@pytest.mark.parametrize(("least", "passes"), [(0.9, True), (0.91, False)])
def test_the_share_of_nodes_inside_engines_is_held_against_the_spec(least: float, passes: bool) -> None:
    found = checks(min_coverage=least)["coverage"]

    assert found.passed == passes
    assert found.threshold == least
    assert found.detail == "share of non-Const nodes inside engines; outside: 2 Ceil"


def test_an_engine_that_was_not_built_fails() -> None:
    two = replace(GOOD, segments=(*GOOD.segments, Segment("TRTEngineOp_000_001", 3, 1)))
    found = checks(two)

    assert failed(found) == ["engines built"]
    assert (found["engines built"].measured, found["engines built"].threshold) == (1, 2)


@pytest.mark.parametrize(("size", "passes"), [(LARGEST_GRAPH - 1, True), (LARGEST_GRAPH, False)])
def test_a_graph_that_servers_complain_of_fails(size: int, passes: bool) -> None:
    assert checks(files={**FILES, "saved_model.pb": size})["graph size"].passed == passes


def test_a_saved_model_without_its_graph_fails() -> None:
    assert checks(files={ENGINE: 900})["graph size"].measured == "missing"
    assert failed(checks(files={ENGINE: 900})) == ["graph size"]


@pytest.mark.parametrize("files", [{"saved_model.pb": 5_000}, {**FILES, ENGINE: 0}])
def test_a_promised_engine_that_is_missing_or_empty_fails(files: dict[str, int]) -> None:
    found = checks(files=files)

    assert failed(found) == ["engine assets"]
    assert found["engine assets"].detail == f"missing or empty: {ENGINE}"


def test_a_graph_that_promises_no_engine_fails() -> None:
    assert failed(checks(promised=())) == ["engine assets"]


def test_a_rehearsal_is_not_asked_for_engines_it_cannot_have() -> None:
    found = checks(built=None, promised=(), files={"saved_model.pb": 5_000})

    assert list(found) == ["engines", "coverage", "graph size"]
    assert failed(found) == []
