"""TF-TRT's own rewrite of every kind of model, put back to where a CPU runs it. No TensorRT runs in here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from tensorflow.python.compiler.tensorrt import trt_convert

from model_registry.errors import ConversionError
from model_registry.servable import Blessing
from model_registry.serving import batching
from tasks.model_process import engine_building, exporting, rewriting, segment_report, segments, wrapping
from tasks.model_process.changed_variables import changed_variables
from tasks.model_process.client import ModelProcess
from tasks.model_process.conversion_messages import BuiltEngines, ConvertedModel, ConvertPlan, RewrittenModel
from tasks.model_process.deconversion import deconverted, segment_functions
from tasks.model_process.inspecting import denied_ops, read_saved_model
from tasks.model_process.messages import (
    CONVERT,
)
from tasks.model_process.warmup_log import WARMUP_FILE
from tests.support.candidates import Candidate, answers_of, prepare
from tests.support.conversions import WORKSPACE, apart, deconvert, difference, rewrite
from tests.support.models import KINDS, WORDS, randomised
from tests.support.packaged_zoo import Packaged

pytestmark = [
    pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict:UserWarning"),
    pytest.mark.filterwarnings("ignore:Model '.*' had a build config:UserWarning"),
]

# What TF-TRT must take of a model: engines, and the share of non-Const nodes inside them.
ENGINES = {
    "resnet50": (1, 0.99),
    "efficientnet_b0": (1, 0.99),
    "mobilenet_v3_small": (1, 0.98),
    "transformer": (2, 0.85),
    "recurrent": (3, 0.13),
    "mixed_float16": (1, 0.85),
    "sequential": (1, 0.8),
    "image_preprocessing": (1, 0.55),
    "integers_and_booleans": (1, 0.35),
}
NONE = ["odd_names_in_dicts", "mixed_bfloat16", "float64", "no_variables"]
# Its variances are scaled down so that no signal fades, and each of its 27 normalizations makes rounding larger:
# over random weights 5e-6 to 1.3e-5.
AMPLIFIES = {"mobilenet": 1e-4}
# Slow, and like others of keras.applications that are there.
LEFT_TO_OTHERS = {"mobilenet_v2", "mobilenet_v3_without_top"}
ZOO = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in KINDS if name not in LEFT_TO_OTHERS]
NATIVE = {
    "text_vectorization": "its input 'text' holds strings",
    "text_vectorization_adapted_to_tf_idf": "its input 'text' holds strings",
    "string_and_integer_lookup": "its input 'word' holds strings",
    "a_model_inside_a_model": "its input 'words' holds strings",
    "subclassed_with_declared_strings": "its input 'text' holds strings",
    "hashing": "its input 'word' holds strings",
    "stateful_lstm": "it changes its variables as it runs (Assign",
    "stateful_gru": "it changes its variables as it runs (Assign",
}


@pytest.mark.parametrize("name", ZOO)
def test_a_model_comes_back_from_the_rewrite(name: str, zoo: Callable[[str], Packaged], tmp_path: Path) -> None:
    packaged = zoo(name)
    candidate, requests = packaged.candidate, packaged.candidate.requests()

    (part,) = deconvert(candidate.directory, tmp_path / "converted")

    assert exporting.read_signatures(tmp_path / "converted") == candidate.exported.signatures
    assert (tmp_path / "converted" / WARMUP_FILE).read_bytes() == candidate.log
    limit = AMPLIFIES.get(name, 1e-5) if candidate.loaded.precision == "float32" else 1e-2
    answers = answers_of(tmp_path / "converted", requests)
    assert apart(packaged.answers[: len(requests)], answers) <= limit
    report = part.report
    assert NATIVE.get(name, "nothing") in report.native if name in NATIVE else not report.native
    assert isinstance(part, rewriting.Native) == bool(report.native)
    engines, coverage = ENGINES.get(name, (0, 0.0))
    assert len(report.segments) >= engines
    assert report.coverage >= coverage
    if name in NONE or name in NATIVE:
        assert (report.segments, report.coverage) == ((), 0.0)
    outside = sum(item.nodes for item in report.left_out)
    inside = sum(segment.computing_nodes for segment in report.segments)
    assert report.native or outside + inside == report.computing_nodes <= report.nodes


def _cnn() -> keras.Model:
    image = keras.Input((16, 16, 3), name="image")
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    x = layers.BatchNormalization()(x)
    x = layers.MaxPooling2D()(x)
    x = layers.Conv2D(8, 3, activation="relu", name="conv_1")(x)
    embedding = layers.Dense(6, activation="tanh", name="embedding")(layers.Flatten()(x))
    probabilities = layers.Dense(3, activation="softmax", name="probabilities")(embedding)
    return randomised(keras.Model(image, [probabilities, layers.Dense(1, name="age")(embedding)], name="zoo"))


FOUR_SIGNATURES = {
    "serving_default": {"inputs": {"photo:0": "image"}, "outputs": {"class": "probabilities", "age": "age"}},
    "embedding": {"layer": "embedding"},
    "classify": {"method": "classify", "inputs": {"image": "image"}, "scores": "probabilities"},
    "regress": {"method": "regress", "inputs": {"image": "image"}, "outputs": ["age"]},
}


@pytest.fixture(scope="module")
def cnn(tmp_path_factory: pytest.TempPathFactory) -> Candidate:
    """Called by tensors in two ways, by tf.Examples in two more; with samples beyond its warm-up records."""
    directory = tmp_path_factory.mktemp("cnn")
    _cnn().save(directory / "zoo.keras")
    photos = np.random.default_rng(0).normal(size=(40, 16, 16, 3)).astype(np.float32)
    np.savez(directory / "samples.npz", image=photos)
    spec = {"signatures": FOUR_SIGNATURES, "samples": str(directory / "samples.npz"), "batch_sizes": [1, 8, 32]}
    candidate = prepare(directory / "zoo.keras", directory / "work", spec)
    blessing = Blessing(candidate.validate())
    assert blessing.verdict == "blessed", blessing.failures
    return candidate


@pytest.mark.xdist_group("rewritten-cnn")
def test_a_rehearsal_in_a_process_of_its_own_keeps_all_signatures(cnn: Candidate, tmp_path: Path) -> None:
    plan = ConvertPlan(
        saved_model=str(cnn.directory),
        converted=str(tmp_path / "converted"),
        cases=cnn.plan.cases,
        signatures=cnn.exported.signatures,
        workspace=WORKSPACE,
        rehearsal=True,
    )
    settings = {**segment_report.SETTINGS, "CUDA_VISIBLE_DEVICES": "-1"}
    with ModelProcess(CONVERT, tmp_path / "process", failure=ConversionError, settings=settings) as process:
        process.tell(plan)
        rewritten, _ = process.result("rewrite", RewrittenModel, 120)
        built, _ = process.result("build", BuiltEngines, 120)
        converted, _ = process.result("save", ConvertedModel, 120)

    reports = {item.name: item for item in rewritten.signatures}
    assert list(reports) == ["classify", "embedding", "regress", "serving_default"]
    assert reports["classify"].native == reports["regress"].native
    assert reports["classify"].native.startswith("it parses serialized tf.Examples (ParseExampleV2)")
    assert {name: len(item.segments) for name, item in reports.items() if not item.native} == {
        "embedding": 1,
        "serving_default": 1,
    }
    assert rewritten.engines == 2
    assert rewritten.coverage > 0.8
    reasons = {item.op: item.reason for item in reports["serving_default"].left_out}
    assert reasons["Placeholder"].startswith("excluded by segmenter option")
    assert built.engines == 0
    assert converted.promised_assets == ()
    assert converted.graph_bytes == (tmp_path / "converted/saved_model.pb").stat().st_size
    assert exporting.read_signatures(tmp_path / "converted") == cnn.exported.signatures
    assert difference(cnn.directory, tmp_path / "converted", cnn.requests()) <= 1e-5
    # The warm-up file, tf.Examples, methods, all answers: as the native variant had to.
    blessing = Blessing(cnn.validate(candidate=str(tmp_path / "converted")))
    assert blessing.verdict == "blessed", blessing.failures


@pytest.mark.xdist_group("rewritten-cnn")
def test_engines_come_along_as_assets_that_the_graph_looks_for(cnn: Candidate, tmp_path: Path) -> None:
    """As far as a machine without GPU gets: nothing here was built, and nothing here is loaded."""
    parts = rewrite(cnn.directory)
    names = [segment.name for part in parts for segment in part.report.segments]
    files = {name: tmp_path / f"{engine_building.ENGINE_FILE}{name}" for name in names}
    for file in files.values():
        file.write_bytes(b"made up")

    promised = wrapping.save_engines(parts, files, cnn.directory, tmp_path / "converted")

    assert len(promised) == 2
    assert promised == tuple(f"assets/{files[name].name}" for name in sorted(names))
    assert all((tmp_path / "converted" / asset).read_bytes() == b"made up" for asset in promised)
    assert exporting.read_signatures(tmp_path / "converted") == cnn.exported.signatures
    for path in (WARMUP_FILE, batching.FILE):
        assert (tmp_path / "converted" / path).read_bytes() == (cnn.directory / path).read_bytes()
    saved_model = read_saved_model(tmp_path / "converted")
    (meta_graph,) = saved_model.meta_graphs
    assert sorted(f"assets/{item.filename}" for item in meta_graph.asset_file_def) == list(promised)
    engines = list(segments.engines(meta_graph.graph_def))
    assert {segments.canonical_name(engine.name) for engine in engines} == set(names)
    assert not any(engine.attr["_allow_build_at_runtime"].b for engine in engines)
    functions = meta_graph.graph_def.library.function
    assert "InitializeTRTResource" in {node.op for function in functions for node in function.node_def}
    assert denied_ops(saved_model) == {}


@pytest.mark.xdist_group("rewritten-cnn")
def test_what_was_not_built_is_promised_all_the_same(cnn: Candidate, tmp_path: Path) -> None:
    promised = wrapping.save_engines(rewrite(cnn.directory), {}, cnn.directory, tmp_path / "converted")

    assert len(promised) == 2
    assert not any((tmp_path / "converted" / asset).exists() for asset in promised)


@pytest.mark.xdist_group("rewritten-cnn")
def test_building_is_fed_with_every_request_by_the_function_s_own_arguments(cnn: Candidate) -> None:
    """The converter's own `build`, on a graph whose engines are calls again: what it does without TensorRT."""
    (part,) = (item for item in rewrite(cnn.directory) if item.signature.name == "serving_default")
    assert isinstance(part, rewriting.Rewritten)
    assert list(part.arguments) == ["photo:0"]
    assert part.arguments != {"photo:0": "photo:0"}
    converter = part.converter
    converter._converted_graph_def = deconverted(part.graph_def)
    converter._converted_func = trt_convert._construct_function_from_graph_def(
        converter._converted_func, converter._converted_graph_def
    )
    fed = list(engine_building.requests(cnn.directory, Path(cnn.plan.cases), "serving_default"))
    asked: list[int] = []

    def counted() -> Any:
        for feed in fed:
            asked.append(len(feed["photo:0"]))
            yield feed

    engine_building.build(part, counted())

    assert asked == [1, 8, 32, 32]  # 40 samples: the largest batch, and the rest filled up


@pytest.mark.xdist_group("rewritten-cnn")
def test_a_segment_that_is_replaced_takes_no_memory_any_more(cnn: Candidate) -> None:
    part = wrapping.rewritten(rewrite(cnn.directory))[0]
    ((engine, native),) = segment_functions(part.graph_def).items()
    other = type(native)()
    other.CopyFrom(native)
    other.signature.name = "other"

    functions = [function.signature.name for function in deconverted(part.graph_def, {engine: other}).library.function]

    assert "other" in functions
    assert native.signature.name not in functions
    assert native.signature.name in {item.signature.name for item in deconverted(part.graph_def).library.function}


@pytest.mark.xdist_group("rewritten-cnn")
def test_building_without_a_request_says_which_signature(cnn: Candidate) -> None:
    part = wrapping.rewritten(rewrite(cnn.directory))[0]

    with pytest.raises(ConversionError, match="no warm-up record asks the signature 'embedding'"):
        engine_building.build(part, [])


@pytest.mark.xdist_group("rewritten-cnn")
def test_without_tensorrt_the_converter_s_own_refusal_is_told(cnn: Candidate) -> None:
    (signature,) = (item for item in cnn.exported.signatures if item.name == "embedding")

    with pytest.raises(ConversionError, match=r"signature 'embedding': RuntimeError: Tensorflow has not been built"):
        rewriting.rewrite(cnn.directory, signature, workspace=WORKSPACE)


@pytest.mark.xdist_group("rewritten-cnn")
def test_the_absence_of_a_gpu_is_passed_over_only_inside_the_block() -> None:
    before = trt_convert._check_trt_version_compatibility, trt_convert.array_ops

    def look() -> None:
        assert "GPU:0" in trt_convert.array_ops.zeros([]).device
        assert trt_convert.array_ops.ones is before[1].ones
        raise KeyError

    with pytest.raises(KeyError), rewriting.without_gpu():
        look()

    assert (trt_convert._check_trt_version_compatibility, trt_convert.array_ops) == before


def _edited(candidate: Candidate, directory: Path, change: Callable[[Any], None]) -> Path:
    directory.mkdir()
    saved_model = read_saved_model(candidate.directory)
    change(saved_model.meta_graphs[0].graph_def)
    (directory / "saved_model.pb").write_bytes(saved_model.SerializeToString())
    return directory


@pytest.mark.xdist_group("rewritten-cnn")
def test_weights_beyond_what_a_graph_holds_are_refused_before_they_are_loaded(cnn: Candidate, tmp_path: Path) -> None:
    def grow(graph_def: Any) -> None:
        kernel = next(node for node in graph_def.node if node.op == "VarHandleOp")
        kernel.attr["shape"].shape.dim[0].size = 1 << 30

    with pytest.raises(ConversionError, match=r"frozen, the weights take .* bytes, those of each signature anew"):
        rewrite(_edited(cnn, tmp_path / "edited", grow))


@pytest.mark.xdist_group("rewritten-cnn")
def test_a_graph_that_reaches_beyond_the_model_is_not_loaded(cnn: Candidate, tmp_path: Path) -> None:
    def spoil(graph_def: Any) -> None:
        graph_def.library.function[0].node_def.add(name="spy", op="ReadFile")

    with pytest.raises(ConversionError, match=r"ReadFile \(reads files\)"):
        rewrite(_edited(cnn, tmp_path / "edited", spoil))


@pytest.mark.xdist_group("rewritten-cnn")
def test_a_symbolic_link_beside_the_warm_up_file_is_not_followed(cnn: Candidate, tmp_path: Path) -> None:
    native = tmp_path / "native"
    (native / "assets.extra").mkdir(parents=True)
    (native / "assets.extra/other").symlink_to("/etc/hostname")

    with pytest.raises(ConversionError, match=r"assets.extra/other is a symbolic link"):
        wrapping.save_deconverted(rewrite(cnn.directory)[1:2], native, tmp_path / "converted")


@pytest.mark.xdist_group("rewritten-tables")
def test_a_signature_with_a_table_stays_beside_one_that_is_converted(tmp_path: Path) -> None:
    vocabulary = tmp_path / "words.txt"
    vocabulary.write_text("\n".join(WORDS))
    module = tf.Module()
    initializer = tf.lookup.TextFileInitializer(
        str(vocabulary), tf.string, tf.lookup.TextFileIndex.WHOLE_LINE, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER
    )
    module.table = tf.lookup.StaticHashTable(initializer, -1)
    generator = np.random.default_rng(3)
    module.weights = [
        tf.Variable(generator.normal(size=(8, 8)).astype(np.float32), name=f"w{index}") for index in range(6)
    ]

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, name="rank")], autograph=False)
    def named(rank: Any) -> Any:
        index = tf.math.floormod(rank, len(WORDS))
        word = tf.gather(tf.constant(WORDS), index)
        return {"rank": module.table.lookup(word), "weight": tf.gather(module.weights[0][0], index)}

    @tf.function(input_signature=[tf.TensorSpec([None, 8], name="x")], autograph=False)
    def score(x: Any) -> Any:
        for weight in module.weights:
            x = tf.nn.tanh(tf.matmul(x, weight))
        return {"score": x}

    source = tmp_path / "source"
    tf.saved_model.save(module, str(source), signatures={"named": named, "serving_default": score})
    candidate = prepare(source, tmp_path / "work", source_format="saved_model")

    parts = deconvert(candidate.directory, tmp_path / "converted")

    assert [part.report.native for part in parts] == [
        "it looks things up in a table (HashTableV2), which cannot be frozen into a graph",
        "",
    ]
    assert [len(part.report.segments) for part in parts] == [0, 1]
    assert (tmp_path / "converted/assets/words.txt").read_text() == vocabulary.read_text()
    assert difference(candidate.directory, tmp_path / "converted", candidate.requests()) <= 1e-5
    blessing = Blessing(candidate.validate(candidate=str(tmp_path / "converted")))
    assert blessing.verdict == "blessed", blessing.failures


def _sharing_a_variable(directory: Path) -> Path:
    """`update` changes `offset`, in a loop's body, and reads `scale`; `apart` reads neither of them, nor is it read."""
    generator = np.random.default_rng(3)
    module = tf.Module()
    module.weights = [
        tf.Variable(generator.normal(size=(8, 8)).astype(np.float32), name=f"w{index}") for index in range(6)
    ]
    module.offset = tf.Variable(tf.zeros([8]), name="offset")
    module.scale = tf.Variable(tf.ones([8]), name="scale")
    x = [tf.TensorSpec([None, 8], name="x")]

    def chain(value: Any) -> Any:
        for weight in module.weights:
            value = tf.nn.tanh(tf.matmul(value, weight))
        return value

    @tf.function(input_signature=x, autograph=False)
    def update(x: Any) -> Any:
        def body(step: Any) -> Any:
            module.offset.assign(tf.reduce_mean(x * module.scale, 0))
            return (step + 1,)

        old = x - module.offset
        with tf.control_dependencies([old]):
            steps = tf.while_loop(lambda step: step < 1, body, (tf.constant(0),))
        return {"mean": old, "steps": tf.reshape(steps[0], [1])}

    @tf.function(input_signature=x, autograph=False)
    def reads_it(x: Any) -> Any:
        return {"y": chain(x - module.offset)}

    @tf.function(input_signature=x, autograph=False)
    def apart(x: Any) -> Any:
        return {"y": chain(x * module.scale)}

    tf.saved_model.save(
        module, str(directory), signatures={"serving_default": reads_it, "update": update, "apart": apart}
    )
    return directory


@pytest.mark.xdist_group("rewritten-tables")
def test_a_signature_that_reads_what_another_one_changes_stays_native(tmp_path: Path) -> None:
    """`serving_default` comes before `update` in the warm-up file: no replay of it would tell that it is frozen."""
    source = _sharing_a_variable(tmp_path / "source")
    native = tmp_path / "work/candidate"
    prepare(source, tmp_path / "work", source_format="saved_model")

    parts = {part.signature.name: part.report for part in deconvert(native, tmp_path / "converted")}

    assert parts["serving_default"].native == (
        "'update' changes the variable 'offset' that it reads, so it cannot be frozen into a graph"
    )
    assert parts["update"].native.startswith("it changes its variables as it runs (AssignVariableOp)")
    assert (parts["apart"].native, len(parts["apart"].segments)) == ("", 1)
    asked = [(name, {"x": np.full((1, 8), x, np.float32)}) for name, x in (("update", 3.0), ("serving_default", 1.0))]
    assert difference(native, tmp_path / "converted", asked) <= 1e-5


@pytest.mark.xdist_group("rewritten-tables")
def test_where_a_changed_handle_cannot_be_followed_all_that_are_reached_count_as_changed(tmp_path: Path) -> None:
    meta_graph = read_saved_model(_sharing_a_variable(tmp_path / "source")).meta_graphs[0]
    assert changed_variables(meta_graph, "update") == {"offset"}
    for function in meta_graph.graph_def.library.function:
        for node in function.node_def:
            if node.op == "AssignVariableOp":
                node.input[0] = "from_nowhere"

    assert changed_variables(meta_graph, "update") == {"offset", "scale"}
    assert changed_variables(meta_graph, "apart") == frozenset()


@pytest.mark.xdist_group("rewritten-tables")
def test_a_changed_answer_shows_in_the_difference(tmp_path: Path) -> None:
    """Or the parity above would prove nothing: a weight of a segment is doubled."""
    KINDS["sequential"].build().save(tmp_path / "zoo.keras")
    candidate = prepare(tmp_path / "zoo.keras", tmp_path / "work")
    parts = rewrite(candidate.directory)
    (part,) = wrapping.rewritten(parts)
    segment = part.graph_def.library.function[0]
    weight = next(node for node in segment.node_def if node.op == "Const" and node.attr["dtype"].type == 1)
    doubled = 2 * tf.make_ndarray(weight.attr["value"].tensor)
    weight.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(doubled))

    wrapping.save_deconverted(parts, candidate.directory, tmp_path / "converted")

    assert difference(candidate.directory, tmp_path / "converted", candidate.requests()) > 1e-3
