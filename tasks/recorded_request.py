"""The first warm-up record of a published version, read without TensorFlow: a request that is known to be answered."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from google.protobuf.message import DecodeError

from model_registry.errors import FormatError, InvalidInputError
from model_registry.payload import open_file
from model_registry.servable import NATIVE, ServableVersion
from model_registry.serving.client_messages import Message, message_class
from model_registry.serving.client_tensors import to_array
from model_registry.storage import ObjectStore
from tasks.prediction import verified_files

_WARMUP_FILE = "assets.extra/tf_serving_warmup_requests"
_KINDS = ("predict_log", "classify_log", "regress_log")
# https://www.tensorflow.org/tutorials/load_data/tfrecord#tfrecords_format_details: length, its checksum, data, its
# checksum. The checksums are not looked at: every byte has been held against its SHA-256.
_HEADER = struct.Struct("<QI")
_FOOTER = 4


def recorded_request(store: ObjectStore, version: ServableVersion, signature: str) -> Any:
    """What the version's first warm-up record of a signature asks.

    Args:
        store: Where the version lies.
        version: Its manifest.
        signature: Whose record is looked for.

    Returns:
        Arrays by input name; for classify and regress a list of serialized tf.Example messages.

    Raises:
        InvalidInputError: If there is none.
        StorageError: If the file is not what the manifest says.
        FormatError: If it is no file of warm-up records.
    """
    native = version.variant(NATIVE)
    files = [file for file in native.files if file.path == _WARMUP_FILE] if native else []
    if native and files:
        with tempfile.TemporaryDirectory(prefix="slipway-predict-") as made:
            directory = verified_files(store, version, replace(native, files=tuple(files)), Path(made))
            with open_file(directory, _WARMUP_FILE) as file:
                for record in _records(file, files[0].bytes):
                    request = next((getattr(record, kind).request for kind in _KINDS if record.HasField(kind)), None)
                    if request is not None and request.model_spec.signature_name == signature:
                        return _inputs(request)
    raise InvalidInputError(
        f"{version.model}:{version.version} has no warm-up record for signature {signature!r} to ask it with",
        hint="give --inputs FILE",
    )


def _records(file: BinaryIO, size: int) -> Iterator[Message]:
    kind = message_class("PredictionLog")
    while header := file.read(_HEADER.size):
        length = _HEADER.unpack(header)[0] if len(header) == _HEADER.size else size
        data = file.read(length) if length < size else b""
        if len(data) != length or len(file.read(_FOOTER)) != _FOOTER:
            raise FormatError(f"{_WARMUP_FILE} is no file of warm-up records: it ends within one")
        try:
            yield kind.FromString(data)
        except DecodeError:
            raise FormatError(f"{_WARMUP_FILE} is no file of warm-up records: one is no PredictionLog") from None


def _inputs(request: Message) -> Any:
    if hasattr(request, "inputs"):
        return {name: to_array(tensor, name) for name, tensor in request.inputs.items()}
    return [example.SerializeToString() for example in request.input.example_list.examples]
