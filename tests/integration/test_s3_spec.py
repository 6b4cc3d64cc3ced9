"""A package.yaml on S3: its relative paths start from its own folder there, and lead nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_registry.errors import InvalidInputError
from model_registry.revision import revision_of
from model_registry.spec_file import load_s3_spec
from tasks.fetching import fetch_source
from tasks.package_request import PackageRequest
from tests.support.command import slipway
from tests.support.fixtures_s3 import Bucket
from tests.support.trainers import Trainer

CLASSIFY = "signatures: {classify: {method: classify, scores: p, classes: %s}}\n"


@pytest.fixture
def trainer(s3_bucket: Bucket) -> Trainer:
    return Trainer(s3_bucket)


def test_what_it_names_lies_beside_it(trainer: Trainer) -> None:
    trainer.put("a/labels/en.txt", b"zero\none\n")
    spec = "model: a\nsource: ./models/a.keras\nsamples: s.npz\n" + CLASSIFY % "labels/en.txt"
    uri = trainer.put("a/package.yaml", spec.encode())

    loaded = load_s3_spec(uri)

    assert loaded.spec.source == f"{trainer.trained}/a/models/a.keras"
    assert loaded.spec.samples == f"{trainer.trained}/a/s.npz"
    assert loaded.spec.signatures is not None
    assert loaded.spec.signatures["classify"].classes == ("zero", "one")
    assert not loaded.directory.is_dir()


def test_another_uri_is_left_as_it_is(trainer: Trainer) -> None:
    uri = trainer.put("a/package.yaml", b"model: a\nsource: s3://other/a.keras\n")

    assert load_s3_spec(uri).spec.source == "s3://other/a.keras"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model: a\nsource: ../b/a.keras\n", "expected a path inside"),
        ("model: a\nsource: x/../../b/a.keras\n", "expected a path inside"),
        ("model: a\nsource: /etc/passwd\n", "expected a path inside"),
        ("model: a\nsource: .\n", "expected a path inside"),
        ("model: a\nsource: file:///etc/passwd\n", "expected a path or a URI"),
        *[
            (f"model: a\n{named}", "cannot be used as a bucket")
            for bucket in (
                "arn:aws:s3:us-east-1:123456789012:accesspoint:elsewhere",
                "arn:aws:s3::123456789012:accesspoint:elsewhere.mrap",
                "name-o0b1d075431d83bebde8xz5w8ijx1qzlbp3i3kuse10--op-s3",
                "..",
                "user@host",
            )
            for named in (f"source: s3://{bucket}/a.keras\n", f"source: a.keras\nsamples: s3://{bucket}/a.npz\n")
        ],
        ("model: a\nsource: a.keras\n" + CLASSIFY % "../labels.txt", "inside the spec's folder"),
        ("model: a\nsource: a.keras\n" + CLASSIFY % "none.txt", "cannot be read"),
        ("model: a\nsource: a.keras\ncustom_objects: [my_layers]\n", "no code is fetched from S3"),
        ("model: a\nsource: a.keras\ncustom_objects: [my_package.layers]\n", "no code is fetched from S3"),
        ("#" * (1 << 20) + "\nmodel: a\n", "too large"),
        ("model: [", "not valid YAML"),
    ],
)
def test_what_leads_elsewhere_or_is_no_spec_is_refused(trainer: Trainer, text: str, words: str) -> None:
    trainer.put("a/my_layers.py", b"")
    trainer.put("a/my_package/layers.py", b"")
    uri = trainer.put("a/package.yaml", text.encode())

    with pytest.raises(InvalidInputError, match=words):
        load_s3_spec(uri)


def test_installed_custom_objects_are_accepted(trainer: Trainer) -> None:
    uri = trainer.put("a/package.yaml", b"model: a\nsource: a.keras\ncustom_objects: [json]\n")

    assert load_s3_spec(uri).spec.custom_objects == ("json",)


@pytest.mark.parametrize("uri", ["s3://bucket", "s3://bucket/", "s3://bucket/a/", "s3:///package.yaml"])
def test_a_uri_that_names_no_object_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInputError):
        load_s3_spec(uri)


def test_a_spec_that_is_not_there_is_an_invalid_input(trainer: Trainer) -> None:
    with pytest.raises(InvalidInputError, match=r"package\.yaml is not there"):
        load_s3_spec(f"{trainer.trained}/a/package.yaml")


def test_a_request_takes_a_uri_that_went_through_a_path(trainer: Trainer) -> None:
    uri = trainer.put("a/package.yaml", b"model: a\nsource: a.keras\n")

    for spec in (uri, Path(uri)):
        assert PackageRequest(spec=spec).resolve().spec.source == f"{trainer.trained}/a/a.keras"


def test_the_command_line_takes_a_spec_on_s3(trainer: Trainer, models: Path, tmp_path: Path) -> None:
    source = trainer.hand_over("a", models / "tiny.keras", "model: tiny\nsource: tiny.keras")

    done = slipway("package", "--spec", f"{trainer.trained}/a/package.yaml", "--dry-run", "--json", folder=tmp_path)

    assert done.code == 0, done
    assert (done.document["would"], done.document["model"]) == ("package", "tiny")
    assert done.document["source"]["uri"] == source
    assert done.document["source"]["revision"] == revision_of(source)


def test_what_is_fetched_has_the_revision_that_the_store_tells(trainer: Trainer, models: Path, tmp_path: Path) -> None:
    for name in ("tiny.keras", "saved_model"):
        location = trainer.hand_over(name, models / name, f"model: tiny\nsource: {name}")

        path, revision = fetch_source(location, tmp_path / "fetched")

        assert path.name == name and path.exists()
        assert revision is not None and revision == revision_of(location)
        trainer.put(f"{name}/{name}" if name == "tiny.keras" else f"{name}/{name}/more", b"other")
        assert revision_of(location) != revision
