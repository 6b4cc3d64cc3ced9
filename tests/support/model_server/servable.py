"""What a request to one loaded version does: Predict, Classify and Regress over its SignatureDefs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import classification_pb2, predict_pb2, regression_pb2

from tests.support.model_server.batching import Batching
from tests.support.model_server.errors import ServingError
from tests.support.model_server.saved_model import SavedModel
from tests.support.model_server.tensors import to_array, to_proto

_PREDICTABLE = {
    tf.saved_model.PREDICT_METHOD_NAME,
    tf.saved_model.CLASSIFY_METHOD_NAME,
    tf.saved_model.REGRESS_METHOD_NAME,
}


class Servable:
    """A loaded version.

    Attributes:
        signatures: SignatureDef by name.
    """

    def __init__(self, model: SavedModel, batching: Batching | None) -> None:
        self.signatures = model.signatures
        self._model = model
        self._batching = batching

    def close(self) -> None:
        """Gives back its memory."""
        self._model.close()

    def predict(self, request: Any) -> Any:
        """Answers a PredictRequest; the model's name and version are for the caller to fill in.

        Raises:
            ServingError: If the signature or the inputs are not what the model has.
        """
        name = request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        signature = self.signature(name)
        arrays = {alias: to_array(alias, proto) for alias, proto in request.inputs.items()}
        outputs = self.run(signature, arrays, list(request.output_filter))
        response = predict_pb2.PredictResponse()
        response.model_spec.signature_name = name
        for alias, array in outputs.items():
            response.outputs[alias].CopyFrom(to_proto(array))
        return response

    def signature(self, name: str) -> Any:
        """The SignatureDef of that name.

        Raises:
            ServingError: FAILED_PRECONDITION, if there is none.
        """
        if name not in self.signatures:
            raise ServingError("FAILED_PRECONDITION", f'Serving signature key "{name}" not found.')
        return self.signatures[name]

    def run(self, signature: Any, arrays: Mapping[str, np.ndarray], wanted: list[str]) -> dict[str, np.ndarray]:
        """Runs a signature.

        Args:
            signature: Its SignatureDef.
            arrays: Inputs by their names in it.
            wanted: Outputs by their names in it; empty for all.

        Raises:
            ServingError: If a name, a type or a size is wrong, or the graph fails.
        """
        if signature.method_name not in _PREDICTABLE:
            methods = ", ".join(sorted(_PREDICTABLE))
            message = f"Expected prediction signature method_name to be one of {{{methods}}}. Was: "
            raise ServingError("INTERNAL", message + signature.method_name)
        _check_inputs(arrays.keys(), signature)
        for alias in wanted:
            if alias not in signature.outputs:
                names = ",".join(sorted(signature.outputs))
                message = f"output tensor alias not found in signature: {alias} Outputs expected to be in the set"
                raise ServingError("INVALID_ARGUMENT", f"{message} {{{names}}}.")
        for alias, array in arrays.items():
            expected = tf.as_dtype(signature.inputs[alias].dtype)
            if tf.as_dtype(array.dtype) != expected:
                message = f"Expects arg[0] to be {expected.name} but {array.dtype.name} is provided"
                raise ServingError("INVALID_ARGUMENT", message)
        if self._batching:
            self._batching.check(arrays.values())
        aliases = wanted or sorted(signature.outputs)
        feeds = {signature.inputs[alias].name: array for alias, array in arrays.items()}
        results = self._model.run(feeds, [signature.outputs[alias].name for alias in aliases])
        return dict(zip(aliases, results, strict=True))

    def classify(self, request: Any) -> Any:
        """Answers a ClassificationRequest.

        Raises:
            ServingError: As `predict`; or if the signature does not classify.
        """
        signature = self._signature_for(request, tf.saved_model.CLASSIFY_METHOD_NAME, "Classification")
        outputs, size = self._run_examples(signature, request)
        classes, scores = (
            outputs.get(name)
            for name in (tf.saved_model.CLASSIFY_OUTPUT_CLASSES, tf.saved_model.CLASSIFY_OUTPUT_SCORES)
        )
        response = classification_pb2.ClassificationResponse()
        for row in range(size):
            found = response.result.classifications.add()
            for column in range((scores if classes is None else classes).shape[1]):
                label = "" if classes is None else tf.compat.as_text(classes[row][column])
                found.classes.add(label=label, score=0 if scores is None else scores[row][column])
        response.model_spec.signature_name = request.model_spec.signature_name
        return response

    def regress(self, request: Any) -> Any:
        """Answers a RegressionRequest.

        Raises:
            ServingError: As `predict`; or if the signature does not regress.
        """
        signature = self._signature_for(request, tf.saved_model.REGRESS_METHOD_NAME, "Regression")
        outputs, size = self._run_examples(signature, request)
        values = outputs[tf.saved_model.REGRESS_OUTPUTS]
        if values.size != size:
            message = f"Expected output batch size to be {size}. Was: {values.size}"
            raise ServingError("INVALID_ARGUMENT", message)
        response = regression_pb2.RegressionResponse()
        for value in values.reshape(-1):
            response.result.regressions.add(value=value)
        response.model_spec.signature_name = request.model_spec.signature_name
        return response

    def _signature_for(self, request: Any, method: str, kind: str) -> Any:
        name = request.model_spec.signature_name or tf.saved_model.DEFAULT_SERVING_SIGNATURE_DEF_KEY
        if name not in self.signatures:
            raise ServingError("INVALID_ARGUMENT", f"No signature was found with the name: {name}")
        signature = self.signatures[name]
        if signature.method_name != method:
            raise ServingError(
                "INVALID_ARGUMENT",
                f"Expected {kind} signature method_name to be {method}. Was: {signature.method_name}",
            )
        return signature

    def _run_examples(self, signature: Any, request: Any) -> tuple[dict[str, np.ndarray], int]:
        examples = list(_examples(request.input))
        if not examples:
            raise ServingError("INVALID_ARGUMENT", "Input is empty.")
        serialized = np.array([example.SerializeToString() for example in examples], object)
        alias = tf.saved_model.CLASSIFY_INPUTS
        if alias not in signature.inputs:
            raise ServingError("INVALID_ARGUMENT", f"No input with the name {alias} in the signature")
        return self.run(signature, {alias: serialized}, []), len(examples)


def _examples(message: Any) -> Iterable[Any]:
    kind = message.WhichOneof("kind")
    if kind == "example_list_with_context":
        listed = message.example_list_with_context
        for example in listed.examples:
            merged = type(example)()
            merged.CopyFrom(listed.context)
            merged.MergeFrom(example)
            yield merged
    elif kind == "example_list":
        yield from message.example_list.examples


def _check_inputs(found: Iterable[str], signature: Any) -> None:
    sent, required = set(found), set(signature.inputs)
    if sent != required:
        names, extra, missing = (",".join(sorted(group)) for group in (required, sent - required, required - sent))
        raise ServingError(
            "INVALID_ARGUMENT",
            f"input size does not match signature: {len(sent)}!={len(required)} len({{{','.join(sorted(sent))}}}) != "
            f"len({{{names}}}). Sent extra: {{{extra}}}. Missing but required: {{{missing}}}.",
        )
