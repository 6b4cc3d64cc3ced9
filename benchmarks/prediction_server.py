"""A PredictionService that costs next to nothing: it answers each request with zeros, ready made.

What is measured against it is the client. It speaks real gRPC with TensorFlow Serving's own messages, checks that the
whole request has arrived, and answers as TensorFlow Serving does, with the values in `float_val`.

python -m benchmarks.prediction_server: prints its port, and ends with its stdin.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import meta_graph_pb2
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    predict_pb2,
    prediction_service_pb2_grpc,
)

MODEL = "digits"
INPUT, OUTPUT = "image", "probabilities"
SHAPE = (28, 28, 1)
CLASSES = 10


class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self) -> None:
        self._answers: dict[int, predict_pb2.PredictResponse] = {}
        self._metadata = _metadata()

    def Predict(self, request: Any, context: Any) -> Any:  # noqa: N802
        tensor = request.inputs[INPUT]
        rows = tensor.tensor_shape.dim[0].size
        if tensor.dtype != tf.float32.as_datatype_enum or len(tensor.tensor_content) != rows * int(np.prod(SHAPE)) * 4:
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the request is not whole")
        if rows not in self._answers:
            self._answers[rows] = _answer(rows)
        return self._answers[rows]

    def GetModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802
        return self._metadata


def _answer(rows: int) -> predict_pb2.PredictResponse:
    response = predict_pb2.PredictResponse()
    response.model_spec.name = MODEL
    response.model_spec.version.value = 1
    tensor = response.outputs[OUTPUT]
    tensor.dtype = tf.float32.as_datatype_enum
    tensor.tensor_shape.CopyFrom(tf.TensorShape((rows, CLASSES)).as_proto())
    tensor.float_val.extend([0.1] * rows * CLASSES)
    return response


def _metadata() -> get_model_metadata_pb2.GetModelMetadataResponse:
    definitions = get_model_metadata_pb2.SignatureDefMap()
    signature = definitions.signature_def["serving_default"]
    signature.method_name = tf.saved_model.PREDICT_METHOD_NAME
    for tensors, name, shape in ((signature.inputs, INPUT, SHAPE), (signature.outputs, OUTPUT, (CLASSES,))):
        info = meta_graph_pb2.TensorInfo(name=f"{name}:0", dtype=tf.float32.as_datatype_enum)
        info.tensor_shape.CopyFrom(tf.TensorShape((None, *shape)).as_proto())
        tensors[name].CopyFrom(info)
    response = get_model_metadata_pb2.GetModelMetadataResponse()
    response.model_spec.name = MODEL
    response.model_spec.version.value = 1
    response.metadata["signature_def"].Pack(definitions)
    return response


def main() -> None:
    """Serves until stdin ends."""
    server = grpc.server(ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    print(server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    sys.stdin.read()
    server.stop(None)


if __name__ == "__main__":
    main()
