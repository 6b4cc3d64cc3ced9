"""The command line beside `package`, on registries that hold something."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click.testing
import numpy as np
import pytest

from flows.cli import main
from model_registry.paths import Reference
from model_registry.registry import Registry
from model_registry.servable import ServableVersion
from model_registry.state import Origin
from model_registry.storage.local import LocalStore
from model_registry.storage.probe import check_conditional_writes
from tests.support.fixtures_s3 import Bucket
from tests.support.published_models import publish

HEAVY = ("boto3", "numpy", "prefect", "tensorflow")
ANN = Origin("ann@build-7")


def slipway(*arguments: object) -> click.testing.Result:
    result = click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def answer(*arguments: object) -> Any:
    result = slipway(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made in a process of its own: the tests' keeps clear of TensorFlow."""
    directory = tmp_path_factory.mktemp("saved") / "model"
    code = (
        "import sys, pathlib; from tests.support.published_models import save_model as s; s(pathlib.Path(sys.argv[1]))"
    )
    root = Path(__file__).parents[2]
    made = subprocess.run(
        [sys.executable, "-c", code, directory], cwd=root, capture_output=True, text=True, check=False
    )
    assert made.returncode == 0, made.stderr
    return directory


@pytest.fixture
def payload(tmp_path: Path) -> Path:
    """Files that pass for a SavedModel as long as nobody loads it."""
    directory = tmp_path / "made" / "up"
    (directory / "variables").mkdir(parents=True)
    (directory / "saved_model.pb").write_bytes(b"graph" * 100)
    (directory / "variables" / "variables.index").write_bytes(b"index")
    (directory / "variables" / "variables.data-00000-of-00001").write_bytes(b"\0" * 5000)
    return directory


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Registry:
    opened = Registry(LocalStore(tmp_path / "registry"))
    monkeypatch.setenv("SLIPWAY_REGISTRY", opened.store.uri)
    return opened


@pytest.fixture
def digits(registry: Registry, payload: Path, tmp_path: Path) -> ServableVersion:
    return publish(registry, payload, tmp_path)


@pytest.fixture
def served(registry: Registry, saved_model: Path, tmp_path: Path) -> ServableVersion:
    return publish(registry, saved_model, tmp_path)


@pytest.mark.usefixtures("digits")
def test_list_names_the_models(registry: Registry, payload: Path, tmp_path: Path) -> None:
    publish(registry, payload, tmp_path, model="faces")

    assert slipway("list").stdout == "digits\nfaces\n"
    assert answer("list") == {"registry": registry.store.uri, "models": ["digits", "faces"]}


def test_list_of_an_empty_registry_prints_nothing_and_says_so_on_stderr(registry: Registry) -> None:
    result = slipway("list")

    assert (result.exit_code, result.stdout) == (0, "")
    assert f"no model in {registry.store.uri}" in result.stderr


@pytest.mark.usefixtures("digits")
def test_list_of_a_model_shows_its_versions_newest_first(registry: Registry, payload: Path, tmp_path: Path) -> None:
    for identity in "123":
        publish(registry, payload, tmp_path, identity=identity * 64)
    registry.promote("digits", 3, "stable", origin=ANN)
    registry.promote("digits", 3, "canary", origin=ANN)
    registry.retire("digits", [2], origin=ANN)

    lines = slipway("list", "digits").stdout.splitlines()

    assert lines[0].split() == ["VERSION", "LABELS", "COMMITTED"]
    assert [line.split("second")[0].split()[:-1] for line in lines[2:6]] == [
        ["4"],
        ["3", "canary,", "stable"],
        ["2", "(retired)"],
        ["1"],
    ]
    document = answer("list", "digits", "--limit", 3)
    assert (document["registry"], document["model"]) == (registry.store.uri, "digits")
    assert [(item["version"], item["labels"], item["retired"]) for item in document["versions"]] == [
        (4, [], False),
        (3, ["canary", "stable"], False),
        (2, [], True),
    ]
    created = datetime.fromisoformat(registry.get(Reference("digits", version=4)).created_at)
    committed = datetime.fromisoformat(document["versions"][0]["committed_at"])
    assert abs(committed - created) < timedelta(seconds=10)
    assert "the newest 1 of 4" in slipway("list", "digits", "--limit", 1).stderr


@pytest.mark.usefixtures("digits")
def test_list_of_a_model_that_is_not_there_names_the_nearest() -> None:
    result = slipway("list", "digit")

    assert result.exit_code == 1
    assert "nearest models: digits" in result.stderr
    assert json.loads(slipway("list", "digit", "--json").stdout)["error"]["class"] == "NotFoundError"


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", "--limit", "0"],
        ["verify"],
        ["show"],
        ["show", "digits:1", "digits:2"],
        ["show", "--diff", "digits:1"],
        ["predict"],
        ["promote", "digits:1"],
        ["promote", "digits:1", "stable", "--expect", "0"],
        ["rollback", "digits", "stable", "--expect", "none"],
        ["retire"],
        ["lsit"],
    ],
)
def test_a_wrong_command_line_exits_2(arguments: list[str]) -> None:
    assert slipway(*arguments).exit_code == 2


def test_show_prints_the_manifest_with_uris(digits: ServableVersion, registry: Registry) -> None:
    document = answer("show", "digits")

    assert document | json.loads(digits.to_json()) | {"variants": 0, "blessing": 0} == document | {
        "variants": 0,
        "blessing": 0,
    }
    assert document["variants"][0]["uri"] == f"{registry.store.uri}/models/digits/native/1/"
    assert document["variants"][0]["digest"] == digits.variants[0].digest
    assert document["blessing"]["verdict"] == "blessed"
    assert [document[name] for name in ("labels", "retired", "signature", "signature_checked")] == [
        [],
        False,
        None,
        False,
    ]
    text = slipway("show", "digits:1").stdout
    assert "image float32 [null, 4]" in text
    assert document["variants"][0]["uri"] in text


@pytest.mark.usefixtures("digits")
def test_show_of_a_version_that_is_not_there_tells_which_are() -> None:
    result = slipway("show", "digits:7")

    assert result.exit_code == 1
    assert "digits:7 does not exist" in result.stderr
    assert "newest versions: 1" in result.stderr


@pytest.mark.usefixtures("digits")
def test_verify_reads_every_file_back() -> None:
    assert slipway("verify", "digits", "digits:1").stdout == "digits:1 verified: 3 files, 5.5 kB\n" * 2
    assert answer("verify", "digits")["versions"] == [
        {"model": "digits", "version": 1, "verified": True, "files": 3, "bytes": 5505, "problems": []}
    ]


def test_verify_tells_each_file_that_is_not_what_was_published(digits: ServableVersion, registry: Registry) -> None:
    directory = Path(registry.store.uri, "models/digits/native/1")
    (directory / "saved_model.pb").write_bytes(b"grapf" * 100)
    (directory / "variables/variables.index").unlink()
    (directory / "extra").write_bytes(b"12")

    result = slipway("verify", "digits:1")

    assert (result.exit_code, result.stdout) == (1, "")
    assert "digits:1 does not verify: 3 problems" in result.stderr
    assert "native/variables/variables.index is missing" in result.stderr
    assert "native/extra is not in the manifest" in result.stderr
    assert "native/saved_model.pb has sha256" in result.stderr
    printed = slipway("verify", "digits:1", "--json")
    document = json.loads(printed.stdout)
    assert printed.exit_code == 1
    assert [problem["kind"] for problem in document["versions"][0]["problems"]] == ["extra", "digest", "missing"]
    assert document["error"]["class"] == "StorageError"
    assert digits.version == 1


@pytest.mark.usefixtures("served")
def test_predict_asks_the_version_with_its_own_warm_up_record() -> None:
    result = slipway("predict", "digits")

    assert result.exit_code == 0, result.stderr
    assert "first warm-up record of serving_default, 2 rows" in result.stderr
    assert result.stdout.splitlines()[:2] == ["digits:1 serving_default", "probabilities  float32 [2, 3]"]
    assert "row 0: class 1 (0.9998)" in result.stdout
    assert "row 1: class 0 (0.9998)" in result.stdout


@pytest.mark.usefixtures("served")
def test_predict_answers_strings_as_text_and_other_bytes_as_base64(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"instances": ["grün", {"b64": "AGEA"}]}))

    document = answer("predict", "digits:1", "--inputs", request, "--signature", "texts")

    assert document["outputs"]["upper"][0] == "GRÜN"
    assert document["outputs"]["raw"] == [{"b64": "Z3LDvG7/AA=="}, {"b64": "AGEA/wA="}]


@pytest.mark.usefixtures("served")
def test_predict_makes_examples_of_plain_features_for_classify(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"examples": [{"image": [0.0, 0.0, 9.0, 0.0]}]}))

    document = answer("predict", "digits:1", "--inputs", request, "--signature", "classify")

    assert document["outputs"]["classes"] == [["cat", "dog", "emu"]]
    assert document["outputs"]["scores"][0][2] > 0.99


@pytest.mark.usefixtures("served")
def test_predict_explains_what_tensorflow_refuses(tmp_path: Path) -> None:
    request = tmp_path / "request.json"
    request.write_text(json.dumps({"examples": [{"picture": [0.0, 0.0, 9.0, 0.0]}]}))

    result = slipway("predict", "digits:1", "--inputs", request, "--signature", "classify")

    assert result.exit_code == 1
    assert "'classify' cannot answer this request" in result.stderr
    assert "image" in result.stderr
    assert "Traceback" not in result.stderr


def test_predict_downloads_from_s3_and_checks_what_arrived(
    s3_bucket: Bucket, saved_model: Path, tmp_path: Path
) -> None:
    registry = Registry.open(s3_bucket.url)
    publish(registry, saved_model, tmp_path)
    np.savez(tmp_path / "request.npz", image=np.array([[9, 0, 0, 0]]), label=np.array([0]))
    ask = ("predict", "digits", "--registry", s3_bucket.url, "--inputs", tmp_path / "request.npz")

    document = answer(*ask)

    assert np.allclose(document["outputs"]["probabilities"], [[0.99975, 0.00012, 0.00012]], atol=1e-4)
    key = "models/digits/native/1/variables/variables.index"
    registry.store.delete([key])
    result = slipway(*ask)
    assert result.exit_code == 1
    assert "variables/variables.index is not what was published" in result.stderr
    assert "it is gone" in result.stderr


def test_predict_loads_no_file_that_was_changed(digits: ServableVersion, registry: Registry) -> None:
    Path(registry.store.uri, "models/digits/native/1/saved_model.pb").write_bytes(b"evil")

    result = slipway("predict", f"{digits.model}:{digits.version}")

    assert result.exit_code == 1
    assert "saved_model.pb is not what was published" in result.stderr
    assert "slipway verify digits:1" in result.stderr


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--signature", "nope"], "no signature 'nope'"),
        (["--variant", "tensorrt-fp16"], "no variant 'tensorrt-fp16'"),
        (["--inputs", "/nonexistent.json"], "/nonexistent.json cannot be read"),
    ],
)
def test_predict_refuses_what_is_not_there_before_anything_starts(options: list[str], expected: str) -> None:
    result = slipway("predict", "digits", *options)

    assert result.exit_code == 1
    assert expected in result.stderr


@pytest.mark.usefixtures("digits")
def test_doctor_finds_a_registry_that_works(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "")
    before = [info.key for info in registry.store.list("")]

    document = answer("doctor")

    found = {item["check"]: item for item in document["checks"]}
    assert found["registry"]["verdict"] == "ok"
    assert "conditional writes have one winner" in found["registry"]["found"]
    assert found["tensorflow"]["verdict"] == "ok"
    assert found["GPU"]["verdict"] == "warn"  # the tests hide it
    assert {"Python", "TensorRT", "model process", "Docker", "Prefect API"} <= found.keys()
    assert [info.key for info in registry.store.list("")] == before


def test_doctor_makes_no_registry_where_none_is(registry: Registry) -> None:
    found = {item["check"]: item for item in answer("doctor")["checks"]}

    assert found["registry"]["verdict"] == "ok"
    assert "not there yet" in found["registry"]["found"]
    assert not Path(registry.store.uri).exists()


def test_the_doctors_probe_passes_on_a_directory_and_on_s3(registry: Registry, s3_bucket: Bucket) -> None:
    for store in (registry.store, Registry.open(s3_bucket.url).store):
        check_conditional_writes(store)

        assert list(store.list("")) == []


def test_doctor_exits_1_if_something_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    (tmp_path / "file").write_text("no directory")

    result = slipway("doctor", "--registry", tmp_path / "file", "--json")

    document = json.loads(result.stdout)
    assert (result.exit_code, document["verdict"]) == (1, "fail")
    broken = {item["check"] for item in document["checks"] if item["verdict"] == "fail"}
    assert broken == {"registry", "Prefect API http://127.0.0.1:1/api"}
    assert "registry" in document["error"]["message"]


@pytest.mark.usefixtures("digits")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["list"],
        ["list", "digits"],
        ["show", "digits"],
        ["show", "--diff", "digits:1", "digits"],
        ["verify", "digits"],
        ["verify", "--all"],
        ["promote", "digits:1", "stable"],
        ["retire", "digits:1", "--dry-run"],
        ["history", "digits"],
    ],
)
def test_light_commands_load_nothing_heavy(arguments: list[str]) -> None:
    code = (
        "import sys; from flows.cli import main; main(sys.argv[1:], standalone_mode=False); "
        f"sys.exit('loaded ' + ', '.join(name for name in {HEAVY!r} if name in sys.modules))"
    )
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=os.environ, capture_output=True, text=True, check=False
    )

    assert found.stderr.splitlines()[-1:] == ["loaded "], found.stderr


def test_dry_run_tells_what_would_be_packaged_and_leaves_nothing(
    registry: Registry, saved_model: Path, tmp_path: Path
) -> None:
    source = tmp_path / "model"
    source.symlink_to(saved_model)
    before = sorted(tmp_path.rglob("*"))

    document = answer("package", saved_model, "--name", "digits", "--dry-run")

    assert (document["would"], document["model"], document["version"]) == ("package", "digits", None)
    assert document["source"]["format"] == "saved_model"
    assert sorted(tmp_path.rglob("*")) == before
    text = slipway("package", saved_model, "--name", "digits", "--dry-run")
    assert text.stdout.startswith("would package ")
    assert registry.store.uri in text.stdout


def test_dry_run_finds_the_version_that_is_there(registry: Registry, saved_model: Path, tmp_path: Path) -> None:
    identity = answer("package", saved_model, "--name", "digits", "--dry-run")["identity"]
    publish(registry, saved_model, tmp_path, identity=identity)

    document = answer("package", saved_model, "--name", "digits", "--dry-run")

    assert (document["would"], document["version"]) == ("reuse", 1)
    forced = answer("package", saved_model, "--name", "digits", "--dry-run", "--force")
    assert forced["would"] == "package"


def test_dry_run_refuses_what_packaging_would_refuse(registry: Registry, tmp_path: Path) -> None:
    result = slipway("package", tmp_path / "nothing.keras", "--dry-run", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["class"] == "InvalidInputError"
    assert not Path(registry.store.uri).exists()
