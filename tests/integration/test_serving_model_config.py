from __future__ import annotations

from model_registry.serving.model_config import ServedModel, to_text

_PATH = '/models/"odd"\\ ü\t'


def test_the_servers_own_protos_read_models_config() -> None:
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    text = to_text(
        [
            ServedModel("faces", "/models/faces", (7,)),
            ServedModel("digits", _PATH, (1, 10**18 - 1), {"stable": 1, "canary": 10**18 - 1}),
        ]
    )

    config = text_format.Parse(text, model_server_config_pb2.ModelServerConfig())

    digits, faces = config.model_config_list.config
    assert (digits.name, digits.base_path, digits.model_platform) == ("digits", _PATH, "tensorflow")
    assert [*digits.model_version_policy.specific.versions] == [1, 10**18 - 1]
    assert dict(digits.version_labels) == {"stable": 1, "canary": 10**18 - 1}
    assert (faces.name, [*faces.model_version_policy.specific.versions]) == ("faces", [7])
    assert not faces.version_labels


def test_a_file_without_models_is_a_list_all_the_same() -> None:
    from google.protobuf import text_format
    from tensorflow_serving.config import model_server_config_pb2

    config = text_format.Parse(to_text([]), model_server_config_pb2.ModelServerConfig())

    assert config.WhichOneof("config") == "model_config_list"  # the server goes from one list only to another
