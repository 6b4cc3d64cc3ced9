"""What may not change while a model is packaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from model_registry.custom_code import custom_code_digest
from model_registry.errors import InvalidInputError
from model_registry.revision import file_mark
from model_registry.servable import Source
from tasks.lookup import Lookup


def looked_up(folder: Path) -> Lookup:
    source = folder / "model.keras"
    source.write_bytes(b"weights")
    (folder / "my_layers.py").write_text("A = 1\n")
    return Lookup(
        source=source,
        samples=None,
        described=Source(str(source), "keras", "0" * 64, 7),
        identity="1" * 64,
        rehearsal_identity="2" * 64,
        existing=None,
        superseded=False,
        state=((str(source), file_mark(source.stat())),),
        code=(folder, ("my_layers",), custom_code_digest(["my_layers"], folder)),
        seconds=0.0,
    )


def test_nothing_changed_passes(tmp_path: Path) -> None:
    looked_up(tmp_path).check_unchanged()


def test_code_that_changed_is_refused_by_its_name(tmp_path: Path) -> None:
    lookup = looked_up(tmp_path)
    (tmp_path / "my_layers.py").write_text("A = 2\n")
    with pytest.raises(InvalidInputError, match="the code of my_layers"):
        lookup.check_unchanged()


def test_a_source_that_is_gone_is_refused_by_its_path(tmp_path: Path) -> None:
    lookup = looked_up(tmp_path)
    lookup.source.unlink()
    with pytest.raises(InvalidInputError, match=r"nothing was published.*model\.keras"):
        lookup.check_unchanged()
