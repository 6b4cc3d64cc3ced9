"""The two text files whose messages `tensorflow-serving-api` does not ship: batching parameters and monitoring.

Their fields are those of session_bundle_config.proto and monitoring_config.proto; only names and types matter in text.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format, wrappers_pb2

from tests.support.model_server.errors import ServingError

_Field = descriptor_pb2.FieldDescriptorProto
_INT64, _BOOL, _STRING = ".google.protobuf.Int64Value", ".google.protobuf.BoolValue", ".google.protobuf.StringValue"
_BATCHING = {
    "max_batch_size": _INT64,
    "batch_timeout_micros": _INT64,
    "max_enqueued_batches": _INT64,
    "num_batch_threads": _INT64,
    "thread_pool_name": _STRING,
    "enable_large_batch_splitting": _BOOL,
    "max_execution_batch_size": _INT64,
}


def _messages() -> tuple[Any, Any]:
    file = descriptor_pb2.FileDescriptorProto(
        name="tests/support/model_server/parameters.proto",
        package="tests.support.model_server",
        syntax="proto3",
        dependency=[wrappers_pb2.DESCRIPTOR.name],
    )
    batching = file.message_type.add(name="BatchingParameters")
    for number, (name, kind) in enumerate(_BATCHING.items(), 1):
        batching.field.add(
            name=name, number=number, type=_Field.TYPE_MESSAGE, type_name=kind, label=_Field.LABEL_OPTIONAL
        )
    batching.field.add(name="allowed_batch_sizes", number=20, type=_Field.TYPE_INT64, label=_Field.LABEL_REPEATED)
    batching.field.add(name="pad_variable_length_inputs", number=21, type=_Field.TYPE_BOOL, label=_Field.LABEL_OPTIONAL)
    prometheus = file.message_type.add(name="PrometheusConfig")
    prometheus.field.add(name="enable", number=1, type=_Field.TYPE_BOOL, label=_Field.LABEL_OPTIONAL)
    prometheus.field.add(name="path", number=2, type=_Field.TYPE_STRING, label=_Field.LABEL_OPTIONAL)
    monitoring = file.message_type.add(name="MonitoringConfig")
    monitoring.field.add(
        name="prometheus_config",
        number=1,
        type=_Field.TYPE_MESSAGE,
        type_name=f".{file.package}.PrometheusConfig",
        label=_Field.LABEL_OPTIONAL,
    )
    pool = descriptor_pool.Default()
    pool.Add(file) if hasattr(pool, "Add") else pool.AddSerializedFile(file.SerializeToString())
    names = ("BatchingParameters", "MonitoringConfig")
    found = [message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}")) for name in names]
    return found[0], found[1]


BatchingParameters, MonitoringConfig = _messages()


def read_text(path: str | Path, message: Any) -> Any:
    """Fills a message from its text form.

    Raises:
        ServingError: If the file is not there, has an unknown field or is no such text.
    """
    try:
        return text_format.Parse(Path(path).read_bytes(), message)
    except OSError as error:
        raise ServingError("NOT_FOUND", f"{path}; {error.strerror}") from None
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ServingError("INVALID_ARGUMENT", f"Invalid protobuf file: '{path}' ({error})") from None
