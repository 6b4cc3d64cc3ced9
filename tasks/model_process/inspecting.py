"""What a SavedModel would do to the machine that loads it, found in its proto before anything of it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2, saved_model_pb2

from model_registry.errors import InvalidInputError
from tasks.model_process.denied_ops import (
    DENIED,
    NO_PATH,
    READS_ASSETS,
    READS_CHECKPOINTS,
    READS_PATH_IN_ATTRIBUTE,
    WRITES_CHECKPOINTS,
)
from tasks.model_process.graph_walk import GraphWalk

_ASSETS = "assets"
_ASSETS_COLLECTION = "saved_model_assets"  # where TensorFlow 1 kept what asset_file_def holds now


def read_saved_model(directory: Path) -> saved_model_pb2.SavedModel:
    """Parses `saved_model.pb`.

    Raises:
        google.protobuf.message.DecodeError: If it is no SavedModel.
        OSError: If it cannot be read.
    """
    saved_model = saved_model_pb2.SavedModel()
    saved_model.ParseFromString((directory / tf.saved_model.SAVED_MODEL_FILENAME_PB).read_bytes())
    return saved_model


def denied_ops(saved_model: saved_model_pb2.SavedModel) -> dict[str, str]:
    """The ops in a SavedModel that reach beyond its graph, with what they do there, sorted by name.

    Looks at every node of every MetaGraph and function. Ops on checkpoints are left to the saver, which
    has them in every SavedModel; those that read an asset may read the model's own.

    Raises:
        InvalidInputError: If the graph is ambiguous: it has two nodes or functions of one name.
    """
    found: dict[str, str] = {}
    for meta_graph in saved_model.meta_graphs:
        walk = GraphWalk(meta_graph)
        for function, node in walk.nodes():
            if node.op in DENIED:
                found[node.op] = DENIED[node.op]
            elif node.op in READS_ASSETS and not (
                len(node.input) > 1 and walk.comes_from_asset(function, node.input[1])
            ):
                found[node.op] = READS_ASSETS[node.op]
            elif node.op in READS_PATH_IN_ATTRIBUTE:
                source = node.attr[READS_PATH_IN_ATTRIBUTE[node.op]].s
                if source and not source.startswith(NO_PATH):
                    found[node.op] = "reads files"
        found |= _among(walk.run_by_serving(), WRITES_CHECKPOINTS | READS_CHECKPOINTS)
        found |= _among(walk.run_by_restoring(), WRITES_CHECKPOINTS)
    return dict(sorted(found.items()))


def shown(ops: dict[str, str]) -> str:
    """Denied ops for a person: `ReadFile (reads files), WriteFile (writes files)`."""
    return ", ".join(f"{op} ({reason})" for op, reason in ops.items())


def check_assets(directory: Path, saved_model: saved_model_pb2.SavedModel) -> None:
    """Refuses assets that are not files below the SavedModel's `assets/`.

    TensorFlow joins the directory with whatever name is given, so an absolute one or `..` is any file of the
    machine; and what is restored as an asset is copied into what is saved again.

    Raises:
        InvalidInputError: If an asset lies elsewhere, is a symbolic link, or is not in the list of assets.
    """
    for meta_graph in saved_model.meta_graphs:
        for asset in _assets(meta_graph):
            problem = _problem(directory / _ASSETS, asset.filename)
            if problem:
                raise InvalidInputError(
                    f"{directory.name} has the asset {asset.filename[:100]!r}, which {problem}: "
                    f"expected a file below its own {_ASSETS}/",
                    hint="do not load this model before you know where it comes from; TensorFlow writes no such name",
                )
        count = len(meta_graph.asset_file_def)
        for node in meta_graph.object_graph_def.nodes:
            if node.WhichOneof("kind") == "asset" and not 0 <= node.asset.asset_file_def_index < count:
                raise InvalidInputError(
                    f"{directory.name} refers to asset {node.asset.asset_file_def_index} of {count}",
                    hint="save the model again",
                )


def _among(nodes: Iterable[Any], reasons: dict[str, str]) -> dict[str, str]:
    return {node.op: reasons[node.op] for node in nodes if node.op in reasons}


def _assets(meta_graph: Any) -> Iterator[Any]:
    yield from meta_graph.asset_file_def
    if _ASSETS_COLLECTION in meta_graph.collection_def:
        for item in meta_graph.collection_def[_ASSETS_COLLECTION].any_list.value:
            asset = meta_graph_pb2.AssetFileDef()
            item.Unpack(asset)
            yield asset


def _problem(assets: Path, name: str) -> str | None:
    path = PurePosixPath(name)
    if path.is_absolute() or "\\" in name or "://" in name or "\0" in name:
        return "is no relative path"
    if not path.parts or ".." in path.parts:
        return "leads elsewhere"
    inside = [assets.joinpath(*path.parts[:depth]) for depth in range(len(path.parts) + 1)]
    return "is reached by a symbolic link" if any(part.is_symlink() for part in inside) else None
