"""A model of the zoo, packaged once for all who ask for it one after another."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.support.packaged_zoo import Packaged


@pytest.fixture(scope="session")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Packaged]:
    """Packages the model of a name; the last one is kept.

    Tests of one model bear its name as their xdist_group, so that they run one after another in one worker.
    """

    @functools.lru_cache(maxsize=1)
    def packaged(name: str) -> Packaged:
        from tests.support.packaged_zoo import package  # Keras takes seconds, and few tests need it

        return package(name, tmp_path_factory.mktemp(name))

    return packaged
