"""The digest of custom objects' code, found without importing it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from model_registry.custom_code import custom_code_digest
from model_registry.errors import InvalidInputError

BOOM = "raise AssertionError('imported')\n"


@pytest.fixture
def code(tmp_path: Path) -> Path:
    (tmp_path / "my_layers.py").write_text(BOOM)
    package = tmp_path / "my_package"
    (package / "inner").mkdir(parents=True)
    for name in ("__init__.py", "ops.py", "inner/__init__.py", "inner/deep.py"):
        (package / name).write_text(BOOM)
    (tmp_path / "no_init").mkdir()
    (tmp_path / "no_init/ops.py").write_text(BOOM)
    return tmp_path


def test_no_modules_have_no_digest(tmp_path: Path) -> None:
    assert custom_code_digest((), tmp_path) is None


@pytest.mark.parametrize(
    ("module", "file"),
    [
        ("my_layers", "my_layers.py"),
        ("my_package", "my_package/inner/deep.py"),
        ("my_package.ops", "my_package/__init__.py"),
        ("my_package.inner.deep", "my_package/inner/deep.py"),
        ("no_init.ops", "no_init/ops.py"),
    ],
)
def test_the_digest_follows_the_code(code: Path, module: str, file: str) -> None:
    before = custom_code_digest([module], code)
    assert before is not None
    assert before == custom_code_digest([module], code)
    (code / file).write_text("changed = True\n")
    assert custom_code_digest([module], code) != before
    assert module not in sys.modules


def test_the_order_of_modules_and_their_compiled_forms_do_not_matter(code: Path) -> None:
    before = custom_code_digest(["my_layers", "my_package"], code)
    (code / "my_package/__pycache__").mkdir()
    (code / "my_package/__pycache__/ops.cpython-311.pyc").write_bytes(b"x")
    assert custom_code_digest(["my_package", "my_layers", "my_layers"], code) == before
    assert custom_code_digest(["my_layers"], code) != before


def test_a_module_may_be_installed_and_the_specs_folder_wins(
    code: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("spec")
    with pytest.raises(InvalidInputError, match="there is no module 'my_layers'"):
        custom_code_digest(["my_layers"], elsewhere)
    monkeypatch.syspath_prepend(str(code))
    installed = custom_code_digest(["my_layers"], elsewhere)
    assert installed == custom_code_digest(["my_layers"], code)
    (elsewhere / "my_layers.py").write_text("own = True\n")
    assert custom_code_digest(["my_layers"], elsewhere) != installed


def test_the_same_code_elsewhere_has_the_same_digest(code: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    moved = tmp_path_factory.mktemp("moved") / "code"
    before = custom_code_digest(["my_package"], code)
    code.rename(moved)
    assert custom_code_digest(["my_package"], moved) == before


@pytest.mark.parametrize(
    ("module", "problem"),
    [
        ("my_layer", "there is no module 'my_layer'"),
        ("my_package.missing", "no 'missing' in"),
        ("my_layers.Layer", "'my_layers' is a module and no package"),
        ("sys", "there is no module 'sys'"),
        ("", "expected a module as `import` names it"),
        ("my_layers.py", "'my_layers' is a module and no package"),
        ("../my_layers", "expected a module as `import` names it"),
        (".ops", "expected a module as `import` names it"),
        ("class", "expected a module as `import` names it"),
    ],
)
def test_a_module_that_is_not_there_is_refused(code: Path, module: str, problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        custom_code_digest([module], code)
    assert problem in caught.value.message
    if "no module" in problem:
        assert str(code) in caught.value.message


def test_code_behind_a_linked_directory_is_refused(code: Path) -> None:
    (code / "my_package/linked").symlink_to(code / "no_init")
    with pytest.raises(InvalidInputError, match="holds a link to a directory, 'linked'"):
        custom_code_digest(["my_package"], code)
