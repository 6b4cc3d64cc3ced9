"""What crosses the hand-over, and what of it is not believed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from model_registry.errors import ConflictError, ConversionError, FormatError, InvalidInputError, NotFoundError
from model_registry.servable import Accelerator, Check, PayloadFile, Run, Variant
from model_registry.spec import PackageSpec
from model_registry.storage.memory import MemoryStore
from model_registry.variants import REHEARSAL
from tasks.handover import check_converted
from tasks.handover_documents import (
    ConvertedDocument,
    ErrorDocument,
    HandoverRequest,
    HandoverResult,
    Pulse,
    Staging,
    in_upload_order,
)
from tasks.handover_worker import convert_staged, fetch_files
from tests.support.published_models import SIGNATURES

RUN = Run("1", "brave-otter")
WARMUP = PayloadFile("assets.extra/tf_serving_warmup_requests", 3, "ab" * 32)
BATCHING = PayloadFile("batching_params.pbtxt", 4, "ef" * 32)
GRAPH = PayloadFile("saved_model.pb", 5, "cd" * 32)
A100 = Accelerator("NVIDIA A100-SXM4-40GB", "8.0", "535.104", "12.3", "8.6.1")
SIGNATURE = SIGNATURES[:1]
STAGING = Staging("run-1")


def request(**changes: Any) -> HandoverRequest:
    spec = PackageSpec.default("digits").model_dump(mode="json")
    made = HandoverRequest("digits", spec, SIGNATURE, 2, 8, 2, (WARMUP, GRAPH), (), (), RUN, "2.17.1")
    return replace(made, **changes)


def converted(**changes: Any) -> ConvertedDocument:
    names = ("engines", "signatures", "ops", "parity/serving_default/probabilities")
    variant = changes.pop("variant", Variant(REHEARSAL, (WARMUP, GRAPH)))
    checks = tuple(Check(name, variant.name, 1, 1, True) for name in names)
    return replace(ConvertedDocument(variant, checks, ()), **changes)


def test_documents_come_back_as_they_were_written() -> None:
    result = HandoverResult(converted(variant=Variant(A100.variant, (WARMUP, GRAPH), A100)))
    assert HandoverRequest.from_json(request().to_json(), key="k") == request()
    assert HandoverResult.from_json(result.to_json(), key="k") == result
    assert Pulse.from_json(Pulse(RUN, "w").next().to_json(), key="k") == Pulse(RUN, "w", 1)


@pytest.mark.parametrize("path", ["../../etc/passwd", "/etc/passwd", "a/../b", "", "a\\b", ".slipway-x"])
def test_a_file_that_would_lie_elsewhere_is_refused(path: str) -> None:
    file = replace(GRAPH, path=path)
    with pytest.raises(FormatError, match="names a file that is none of a hand-over"):
        HandoverRequest.from_json(request(cases=(file,)).to_json(), key="k")
    with pytest.raises(FormatError, match="names a file that is none of a hand-over"):
        HandoverResult.from_json(HandoverResult(converted(variant=Variant(REHEARSAL, (file,)))).to_json(), key="k")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {
            "converted": json.loads(HandoverResult(converted()).to_json())["converted"],
            "error": {"message": ""},
        },
        {"schema_version": 2, "error": {"message": "m"}},
        {"error": {"hint": "less"}},
    ],
)
def test_a_result_that_is_none_is_refused(document: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        HandoverResult.from_json(json.dumps({"schema_version": 1, **document}).encode(), key="k")


@pytest.mark.parametrize("error", [ConversionError("no memory", hint="less"), InvalidInputError("another spec")])
def test_whatever_failed_elsewhere_is_a_failed_conversion_here(error: Any) -> None:
    raised = ErrorDocument.of(error).error("flow run 'x' on work pool 'gpu'")
    assert type(raised) is ConversionError
    assert (raised.message, raised.hint) == (f"flow run 'x' on work pool 'gpu': {error.message}", error.hint)


def test_files_go_up_with_the_graph_last_whatever_order_they_are_told_in() -> None:
    assert in_upload_order((GRAPH, replace(GRAPH, path="variables/v"), WARMUP)) == (
        WARMUP,
        replace(GRAPH, path="variables/v"),
        GRAPH,
    )


@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (converted(), ""),
        (converted(variant=Variant(A100.variant, (WARMUP, GRAPH), A100)), ""),
        (converted(variant=Variant("native", (WARMUP, GRAPH))), "it is called 'native'"),
        (converted(variant=Variant("tensorrt-fp16-sm80", (WARMUP, GRAPH))), "by its accelerator it would be"),
        (converted(variant=Variant("tensorrt-fp16-sm89", (WARMUP, GRAPH), A100)), "it would be 'tensorrt-fp16-sm80'"),
        (converted(checks=()), "it was not checked"),
        (converted(checks=(Check("engines", "native", 1, 1, True),)), "checks of another variant, 'native'"),
        (converted(checks=converted().checks[:3]), "without the check 'parity/serving_default/probabilities'"),
        (converted(checks=converted().checks[1:]), "without the check 'engines'"),
        (converted(checks=(Check("engines", REHEARSAL, 0, 1, False),)), ""),  # it is a rejection, and that is all
        (converted(variant=Variant(REHEARSAL, (GRAPH,))), "warm-up records are not those of the native variant"),
        (converted(variant=Variant(REHEARSAL, (WARMUP, BATCHING, GRAPH))), "batching parameters are not those of"),
    ],
)
def test_what_comes_back_is_held_against_what_was_asked_for(document: ConvertedDocument, problem: str) -> None:
    found = check_converted(document, SIGNATURE, (WARMUP, GRAPH))
    assert problem in found and bool(found) == bool(problem)


def test_a_variant_that_was_to_be_tried_in_a_server_does_not_pass_without() -> None:
    on_a_gpu = converted(variant=Variant(A100.variant, (WARMUP, GRAPH), A100))
    asked = SIGNATURE, (WARMUP, GRAPH)
    assert "without the check 'server/load'" in check_converted(on_a_gpu, *asked, served=True)
    assert "without the check 'server'" in check_converted(converted(), *asked, served=True)
    tried = replace(on_a_gpu, checks=(*on_a_gpu.checks, Check("server/load", A100.variant, 3.2, 900.0, True)))
    assert check_converted(tried, *asked, served=True) == ""


# The worker's side, before it starts a process.


@pytest.mark.parametrize("keys", [{"server": "docker", "image": "theirs:1"}, {"server": "elsewhere:8500"}])
def test_a_staged_spec_that_names_an_image_or_a_server_needs_the_operators_grant(
    tmp_path: Path, keys: dict[str, str]
) -> None:
    store = MemoryStore()
    spec = PackageSpec.parse({"model": "digits", **keys}).model_dump(mode="json")
    store.put_new(STAGING.request, request(spec=spec, tensorflow="2.16.2").to_json())
    with pytest.raises(InvalidInputError, match="expected the operator's grant, found none"):
        convert_staged(store, "run-1", tmp_path, made_by=RUN, rehearsal=True)
    store.delete([STAGING.pulse, STAGING.result])
    with pytest.raises(ConversionError, match=r"2\.16\.2"):  # what is looked at next
        convert_staged(store, "run-1", tmp_path, made_by=RUN, rehearsal=True, trusted=True)


def test_a_worker_without_a_request_says_that_nobody_waits(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="nothing is staged"):
        convert_staged(MemoryStore(), "run-1", tmp_path, made_by=RUN, rehearsal=True)


def test_a_second_worker_does_not_take_a_run_that_has_one(tmp_path: Path) -> None:
    store = MemoryStore()
    store.put_new(STAGING.request, request().to_json())
    store.put_new(STAGING.pulse, Pulse(Run("2", "calm-crane"), "w").to_json())
    with pytest.raises(ConflictError, match="'calm-crane' has taken this conversion already"):
        convert_staged(store, "run-1", tmp_path, made_by=RUN, rehearsal=True)
    assert not any(info.key == STAGING.result for info in store.list(""))


@pytest.mark.parametrize("data", [b"other", b"", None])
def test_a_file_that_is_not_what_was_handed_over_is_told_to_whom_waits(tmp_path: Path, data: bytes | None) -> None:
    store = MemoryStore()
    store.put_new(STAGING.request, request(native=(GRAPH,)).to_json())
    if data is not None:
        store.put_new(f"{STAGING.files('native')}saved_model.pb", data)
    with pytest.raises(ConversionError) as caught:
        convert_staged(store, "run-1", tmp_path, made_by=RUN, rehearsal=True)
    assert ("is gone" if data is None else "is not what was handed over") in caught.value.message
    result = HandoverResult.from_json(store.get(STAGING.result).data, key="k")
    assert result.error == ErrorDocument.of(caught.value)


def test_a_worker_with_another_tensorflow_refuses(tmp_path: Path) -> None:
    store = MemoryStore()
    store.put_new(STAGING.request, request(tensorflow="2.16.2").to_json())
    with pytest.raises(ConversionError, match=r"expected 2\.16\.2, which the model was exported with"):
        convert_staged(store, "run-1", tmp_path, made_by=RUN, rehearsal=True)


def test_nothing_to_fetch_makes_an_empty_directory(tmp_path: Path) -> None:
    assert fetch_files(MemoryStore(), "p/", (), tmp_path / "cases").is_dir()


def test_what_a_worker_says_steers_no_terminal() -> None:
    raised = ErrorDocument("no\x1b[2J memory\nlog", "\x07less").error("w")
    assert (raised.message, raised.hint) == ("w: no?[2J memory\nlog", "?less")
