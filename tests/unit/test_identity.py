"""What makes two packagings the same, and what makes them two."""

from __future__ import annotations

import platform
import re
from typing import Any

import pytest

from model_registry.identity import converted_identity, identity, library_versions
from model_registry.spec import PackageSpec, TensorRTSpec

SPEC: dict[str, Any] = {
    "model": "digits",
    "source": "/a/digits.keras",
    "samples": "/a/samples.npz",
    "batch_sizes": [1, 8],
    "signatures": {"serving_default": {"inputs": {"a": "x", "b": "y"}}},
}
BASE: dict[str, Any] = {
    "source_sha256": "a" * 64,
    "spec": PackageSpec.parse(SPEC),
    "samples_sha256": "b" * 64,
    "code_sha256": None,
    "libraries": {"tensorflow": "2.17.1", "keras": "3.15.1"},
    "variants": ["native", "tensorrt-fp16"],
}


def spec(**changes: Any) -> dict[str, PackageSpec]:
    return {"spec": PackageSpec.parse({**SPEC, **changes})}


def test_an_identity_is_a_sha256() -> None:
    assert re.fullmatch(r"[0-9a-f]{64}", identity(**BASE))


@pytest.mark.parametrize(
    "change",
    [
        spec(source="s3://bucket/moved.keras"),
        spec(samples="/b/moved.npz"),
        spec(timeouts={"load": 5, "convert": 5, "validate": 5}),
        spec(variants={"tensorrt-fp16": {}}),  # by name there or on the command line: it is the same conversion
        spec(batch_sizes=[8, 1, 1]),
        spec(server="none"),
        spec(signatures={"serving_default": {"inputs": {"b": {"from": "y"}, "a": "x"}}}),
        {"libraries": {"keras": "3.15.1", "tensorflow": "2.17.1"}},
        {"variants": ("tensorrt-fp16", "native", "native")},
    ],
)
def test_what_does_not_change_the_outcome_does_not_change_the_identity(change: dict[str, Any]) -> None:
    assert identity(**{**BASE, **change}) == identity(**BASE)


CHANGES: list[dict[str, Any]] = [
    {"source_sha256": "c" * 64},
    {"samples_sha256": None},
    {"samples_sha256": "a" * 64, "source_sha256": "b" * 64},
    {"code_sha256": "d" * 64},
    {"libraries": {"tensorflow": "2.17.1", "keras": "3.15.2"}},
    {"libraries": {"tensorflow": "2.17.1"}},
    {"variants": ["native"]},
    spec(model="letters"),
    spec(batch_sizes=[1]),
    spec(batch_sizes=None),
    spec(signatures={"serving_default": {"inputs": {"a": "y", "b": "x"}}}),
    spec(signatures=None),
    spec(quality={"labels": "y", "metric": "accuracy", "at_least": 0.9}),
    spec(quality={"labels": "y", "metric": "accuracy", "at_least": 0.95}),
    spec(variants={"native": {"atol": 1e-3}}),
    spec(variants={"tensorrt-fp16": {"min_coverage": 0.6}}),
    spec(custom_objects=["my_layers"]),
    spec(unsafe_deserialization=True),
    spec(top1_agreement={"min_samples": 10}),
    spec(server="docker"),
    spec(server="docker", image="ours:1"),
]


def test_every_change_of_what_goes_in_makes_another_identity() -> None:
    identities = [identity(**{**BASE, **change}) for change in [{}, *CHANGES]]
    assert len(set(identities)) == len(CHANGES) + 1


def test_the_settings_of_a_variant_that_nobody_sets_out_for_do_nothing() -> None:
    native = {**BASE, "variants": ["native"]}
    settings = spec(variants={"tensorrt-fp16": {"min_coverage": 0.6}})
    assert identity(**{**native, **settings}) == identity(**native)


def test_versions_are_told_without_importing_the_libraries() -> None:
    versions = library_versions()
    assert versions["python"] == platform.python_version()
    assert versions["slipway"]
    assert versions.keys() <= {"python", "slipway", "tensorflow", "keras", "tensorflow-serving-api", "numpy"}
    assert versions["numpy"].startswith("1.26.")


def test_a_rehearsal_is_identified_by_the_settings_of_the_conversion_too() -> None:
    coarser = spec(variants={"tensorrt-fp16": {"atol": 0.5}})
    rehearsal = {**BASE, "variants": ["native", "tensorrt-fp16-rehearsal"]}
    assert identity(**rehearsal) != identity(**BASE)
    assert identity(**{**rehearsal, **coarser}) != identity(**rehearsal)


def test_the_conversion_of_a_version_is_identified_by_that_version_and_how_it_is_converted() -> None:
    base: dict[str, Any] = {
        "published": "a" * 64,
        "settings": TensorRTSpec(),
        "libraries": {"tensorflow": "2.17.1"},
        "variants": ("native", "tensorrt-fp16"),
    }
    changes: list[dict[str, Any]] = [
        {},
        {"published": "b" * 64},
        {"settings": TensorRTSpec(atol=0.5)},
        {"libraries": {"tensorflow": "2.17.0"}},
        {"variants": ("native", "tensorrt-fp16-rehearsal")},
    ]

    def identified(published: str, **rest: Any) -> str:
        return converted_identity(published, **rest)

    assert len({identified(**{**base, **change}) for change in changes}) == len(changes)
    assert identified(**{**base, "variants": ("tensorrt-fp16", "native")}) == identified(**base)
