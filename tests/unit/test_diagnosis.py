"""The doctor's verdicts, and its probe of a store's conditional writes."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from model_registry.errors import ConflictError, StorageError
from model_registry.servable import Accelerator
from model_registry.storage.memory import MemoryStore
from model_registry.storage.probe import check_conditional_writes
from tasks.conversion_place import Here, Nowhere, Place
from tasks.conversion_pool import Pool
from tasks.diagnosis import Finding, judge_hardware, judge_library, judge_place, judge_python, wanted_versions, worst
from tasks.model_process.messages import Hardware


@pytest.mark.parametrize(
    ("version", "verdict"), [((3, 9), "fail"), ((3, 10), "ok"), ((3, 12), "ok"), ((3, 13), "warn")]
)
def test_python_is_judged_by_what_the_pipeline_runs_on(version: tuple[int, int], verdict: str) -> None:
    assert judge_python(version).verdict == verdict


@pytest.mark.parametrize(
    ("found", "verdict"), [(None, "warn"), ("2.17.1", "ok"), ("2.18.0", "fail"), ("2.17.1rc1", "fail")]
)
def test_a_library_is_judged_by_our_own_requirement(found: str | None, verdict: str) -> None:
    assert judge_library("tensorflow", found, ">=2.17.1,<2.18").verdict == verdict


def test_what_is_not_installed_comes_with_the_command_that_installs_it() -> None:
    assert judge_library("keras", None, "").hint == "pip install 'slipway[pipeline]'"


def test_requirements_are_read_by_distribution() -> None:
    found = wanted_versions(['keras<3.16,>=3.12; extra == "pipeline"', "boto3 >= 1.36", "Rich"])

    assert found == {"keras": "<3.16,>=3.12", "boto3": ">= 1.36", "rich": ""}


def test_tensorrt_is_judged_by_the_library_the_build_wants() -> None:
    def verdicts(hardware: Hardware) -> list[str]:
        return [finding.verdict for finding in judge_hardware(hardware)]

    assert verdicts(Hardware(("T4",), True, "libnvinfer.so.8.6.1", "")) == ["ok", "ok"]
    assert verdicts(Hardware((), True, "libnvinfer.so.8.6.1", "no such file")) == ["warn", "warn"]
    assert verdicts(Hardware(("T4",), False, "", "")) == ["ok", "warn"]


@pytest.mark.parametrize(
    ("place", "verdict", "told"),
    [
        (Here(None), "warn", "a rehearsal, for SLIPWAY_CONVERSION says so"),
        (
            Here(Accelerator("Tesla T4", "7.5", "535", "12.3", "8.6.1")),
            "ok",
            "here, on Tesla T4, as tensorrt-fp16-sm75",
        ),
        (Pool("convert-model/convert-model", "gpu"), "ok", "by convert-model/convert-model on the work pool 'gpu'"),
        (Nowhere("there is no GPU", "get one"), "warn", "nowhere: there is no GPU"),
    ],
)
def test_where_a_conversion_would_run_is_told(place: Place, verdict: str, told: str) -> None:
    finding = judge_place(place)

    assert (finding.check, finding.verdict, finding.found) == ("conversion", verdict, told)
    assert bool(finding.hint) == (verdict != "ok")


def test_the_worst_verdict_counts() -> None:
    findings = [Finding("a", "", "ok"), Finding("b", "", "warn"), Finding("c", "", "fail")]

    assert [worst(findings[:count]) for count in (1, 2, 3)] == ["ok", "warn", "fail"]


class _IgnoresConditions(MemoryStore):
    """As rclone's server does."""

    def put_new(self, key: str, data: bytes) -> str:
        self._write(key, data)
        return self.get(key).etag

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        return _IgnoresConditions.put_new(self, key, data)


class _IgnoresIfMatch(_IgnoresConditions):
    def put_new(self, key: str, data: bytes) -> str:
        return MemoryStore.put_new(self, key, data)


class _RefusesRightEtags(MemoryStore):
    """As Ceph 16 does with quoted ones."""

    def put_if_match(self, key: str, data: bytes, etag: str) -> str:
        raise ConflictError(f"{key} was changed")


class _LooksBeforeItWrites(MemoryStore):
    """As Swift does: one after another it is right, at once several win."""

    def put_new(self, key: str, data: bytes) -> str:
        if any(info.key == key for info in self.list(key.rpartition("/")[0] + "/")):
            raise ConflictError(f"{key} exists")
        time.sleep(0.02)  # the time in which the others look, too
        self._write(key, data)
        return self.get(key).etag


@pytest.mark.parametrize(
    ("store", "expected"),
    [
        (_IgnoresConditions, "ignores If-None-Match"),
        (_IgnoresIfMatch, "ignores If-Match, so swapping with a wrong ETag"),
        (_RefusesRightEtags, "refuses swapping with the right ETag"),
        (_LooksBeforeItWrites, "of them win: expected 1"),
    ],
)
def test_a_store_that_two_writers_could_overwrite_each_other_on_is_refused(
    store: Callable[[], MemoryStore], expected: str
) -> None:
    opened = store()

    with pytest.raises(StorageError, match=expected):
        check_conditional_writes(opened)

    assert list(opened.list("")) == []


def test_a_store_with_conditional_writes_passes_and_is_left_as_it_was() -> None:
    store = MemoryStore()

    check_conditional_writes(store)

    assert list(store.list("")) == []
