"""The messages of TensorFlow Serving's gRPC API that a client needs, without TensorFlow.

`tensorflow_serving.apis` imports TensorFlow, four to ten seconds and 470 MB, for what is a few dozen field numbers.
They are the wire format, which never changes. So they stand here as the .proto files have them, in a descriptor pool
of their own: a process may import TensorFlow too. A test holds each field against TensorFlow's own descriptors.

Sources: tensorflow/core/framework/{tensor,tensor_shape}.proto, tensorflow/core/example/{example,feature}.proto,
tensorflow/core/protobuf/meta_graph.proto and tensorflow_serving/apis/*.proto, all of 2.17. Enumerations are int32
here, which is the same on the wire, and what belongs to a `oneof` stands without it.
"""

from __future__ import annotations

import re
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# A message is generated code, whose fields no type checker knows.
Message = Any

SCHEMA = """
message Dim { int64 size = 1; }
message TensorShapeProto { repeated Dim dim = 2; bool unknown_rank = 3; }
message TensorProto {
  int32 dtype = 1; TensorShapeProto tensor_shape = 2; bytes tensor_content = 4;
  repeated float float_val = 5; repeated double double_val = 6; repeated int32 int_val = 7;
  repeated bytes string_val = 8; repeated float scomplex_val = 9; repeated int64 int64_val = 10;
  repeated bool bool_val = 11; repeated double dcomplex_val = 12; repeated int32 half_val = 13;
  repeated uint32 uint32_val = 16; repeated uint64 uint64_val = 17;
}
message TensorInfo { int32 dtype = 2; TensorShapeProto tensor_shape = 3; }
message SignatureDef {
  map<string, TensorInfo> inputs = 1; map<string, TensorInfo> outputs = 2; string method_name = 3;
}
message SignatureDefMap { map<string, SignatureDef> signature_def = 1; }
message BytesList { repeated bytes value = 1; }
message FloatList { repeated float value = 1; }
message Int64List { repeated int64 value = 1; }
message Feature { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; }
message Features { map<string, Feature> feature = 1; }
message Example { Features features = 1; }
message ExampleList { repeated Example examples = 1; }
message Input { ExampleList example_list = 1; }

message Int64Value { int64 value = 1; }
message ModelSpec { string name = 1; Int64Value version = 2; string signature_name = 3; string version_label = 4; }
message PredictRequest { ModelSpec model_spec = 1; map<string, TensorProto> inputs = 2; }
message PredictResponse { map<string, TensorProto> outputs = 1; ModelSpec model_spec = 2; }
message ClassificationRequest { ModelSpec model_spec = 1; Input input = 2; }
message Class { string label = 1; float score = 2; }
message Classifications { repeated Class classes = 1; }
message ClassificationResult { repeated Classifications classifications = 1; }
message ClassificationResponse { ClassificationResult result = 1; ModelSpec model_spec = 2; }
message RegressionRequest { ModelSpec model_spec = 1; Input input = 2; }
message Regression { float value = 1; }
message RegressionResult { repeated Regression regressions = 1; }
message RegressionResponse { RegressionResult result = 1; ModelSpec model_spec = 2; }

message Any { string type_url = 1; bytes value = 2; }
message GetModelMetadataRequest { ModelSpec model_spec = 1; repeated string metadata_field = 2; }
message GetModelMetadataResponse { ModelSpec model_spec = 1; map<string, Any> metadata = 2; }
message StatusProto { int32 error_code = 1; string error_message = 2; }
message ModelVersionStatus { int64 version = 1; int32 state = 2; StatusProto status = 3; }
message GetModelStatusRequest { ModelSpec model_spec = 1; }
message GetModelStatusResponse { repeated ModelVersionStatus model_version_status = 1; }

message PredictLog { PredictRequest request = 1; }
message ClassifyLog { ClassificationRequest request = 1; }
message RegressLog { RegressionRequest request = 1; }
message PredictionLog { ClassifyLog classify_log = 2; RegressLog regress_log = 3; PredictLog predict_log = 6; }
"""

_PACKAGE = "slipway.serving"
_MESSAGE = re.compile(r"message (\w+) \{([^}]*)\}")
_FIELD = re.compile(r"(repeated |map<string, )?(\w+)>? (\w+) = (\d+);")
_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    kind: getattr(_Field, f"TYPE_{kind.upper()}")
    for kind in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint32", "uint64")
}


def _described() -> descriptor_pb2.FileDescriptorProto:
    file = descriptor_pb2.FileDescriptorProto(name="slipway/serving.proto", package=_PACKAGE, syntax="proto3")
    for name, body in _MESSAGE.findall(SCHEMA):
        message = file.message_type.add(name=name)
        for form, kind, field, number in _FIELD.findall(body):
            many = _Field.LABEL_REPEATED if form else _Field.LABEL_OPTIONAL
            described = message.field.add(name=field, number=int(number), label=many)
            if form.startswith("map"):
                entry = message.nested_type.add(name=f"{field.title().replace('_', '')}Entry")
                entry.options.map_entry = True
                _set_type(entry.field.add(name="key", number=1, label=_Field.LABEL_OPTIONAL), "string")
                _set_type(entry.field.add(name="value", number=2, label=_Field.LABEL_OPTIONAL), kind)
                _set_type(described, f"{name}.{entry.name}")
            else:
                _set_type(described, kind)
    return file


def _set_type(field: descriptor_pb2.FieldDescriptorProto, kind: str) -> None:
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type, field.type_name = _Field.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"


_POOL = descriptor_pool.DescriptorPool()
_POOL.AddSerializedFile(_described().SerializeToString())


def message_class(name: str) -> Message:
    """The class of a message of `SCHEMA`."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{_PACKAGE}.{name}"))
