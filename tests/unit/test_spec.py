"""What a package.yaml may say, and what is answered when it says something else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_registry.errors import InvalidInputError
from model_registry.spec import (
    DEFAULT_BATCH_SIZES,
    InputSpec,
    OutputSpec,
    PackageSpec,
    SignatureSpec,
    require_trust,
)


def parse(**keys: Any) -> PackageSpec:
    return PackageSpec.parse({"model": "digits", **keys})


def signature(**keys: Any) -> SignatureSpec:
    signatures = parse(signatures={"serving_default": keys}).signatures
    assert signatures is not None
    return signatures["serving_default"]


def test_a_model_name_alone_is_a_spec_with_defaults() -> None:
    spec = parse()
    assert spec == PackageSpec.default("digits")
    assert (spec.source, spec.signatures, spec.batch_sizes, spec.samples, spec.quality) == (None,) * 5
    assert DEFAULT_BATCH_SIZES == (1, 8)
    assert (spec.timeouts.load, spec.timeouts.validation) == (600, 900)
    assert (spec.top1_agreement.at_least, spec.top1_agreement.min_samples) == (0.99, 100)
    assert (spec.variants.native.atol, spec.variants.native.rtol) == (None, None)
    assert (spec.custom_objects, spec.unsafe_deserialization) == ((), False)


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["a", "b"], (InputSpec("a", "a"), InputSpec("b", "b"))),
        ({"image": "input_1"}, (InputSpec("image", "input_1"),)),
        ({"image": {"from": "input_1"}}, (InputSpec("image", "input_1"),)),
        ({"image": None}, (InputSpec("image"),)),
        (
            {"image": {"dtype": "float32", "shape": [None, 8, 8, 1]}},
            (InputSpec("image", None, "float32", (None, 8, 8, 1)),),
        ),
        ({"text": {"from": "t", "dtype": "string", "shape": []}}, (InputSpec("text", "t", "string", ()),)),
        ((InputSpec("image", "i", "int8", (1,)),), (InputSpec("image", "i", "int8", (1,)),)),
        (None, None),
    ],
)
def test_inputs_have_one_normal_form(written: object, read: object) -> None:
    assert signature(inputs=written).inputs == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (["a", "b"], (OutputSpec("a", "a"), OutputSpec("b", "b"))),
        ({"public": "dense_1", "same": "dense_1"}, (OutputSpec("public", "dense_1"), OutputSpec("same", "dense_1"))),
        ((OutputSpec("a", "b"),), (OutputSpec("a", "b"),)),
        (None, None),
    ],
)
def test_outputs_have_one_normal_form(written: object, read: object) -> None:
    assert signature(outputs=written).outputs == read


def test_a_regression_names_its_output_in_one_word() -> None:
    assert signature(method="regress", outputs="price").outputs == (OutputSpec("price", "price"),)


def test_a_signature_left_empty_is_the_models_own() -> None:
    assert parse(signatures={"serving_default": None}).signatures == {"serving_default": SignatureSpec()}


def test_batch_sizes_are_sorted_and_each_once() -> None:
    assert parse(batch_sizes=[32, 1, 8, 1]).batch_sizes == (1, 8, 32)


def test_a_key_left_empty_is_a_key_left_out() -> None:
    assert parse(variants={"native": None}, timeouts={"load": None}, quality=None) == parse()


SIGNATURE = "signatures.serving_default"


@pytest.mark.parametrize("settings", [None, {}])
def test_a_conversion_is_asked_for_by_naming_it(settings: dict[str, Any] | None) -> None:
    spec = parse(variants={"tensorrt-fp16": settings})

    assert spec.variants.tensorrt_fp16 == spec.variants.tensorrt == parse().variants.tensorrt
    assert parse().variants.tensorrt_fp16 is None
    assert PackageSpec.parse(spec.model_dump(mode="json")) == spec != parse()


@pytest.mark.parametrize(("written", "size"), [("2GiB", 2 << 30), ("512 MiB", 512 << 20), (1 << 30, 1 << 30)])
def test_a_workspace_is_a_size_or_a_number_of_bytes(written: object, size: int) -> None:
    assert parse(variants={"tensorrt-fp16": {"workspace": written}}).variants.tensorrt.workspace == size


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"model": None}, "model: expected a value, found nothing"),
        ({"model": 12}, "model: expected text, found the number 12; put it in quotes"),
        ({"model": "no spaces"}, "model: model name 'no spaces'"),
        ({"model": "../up"}, "model: model name '../up'"),
        ({"batch_size": [1]}, "batch_size: unknown key; did you mean 'batch_sizes'?"),
        ({"colour": "red"}, "colour: unknown key; expected one of batch_sizes, custom_objects"),
        ({1: 2}, "expected a key that is text"),
        ({"batch_sizes": []}, "batch_sizes: expected at least one batch size, found an empty list"),
        ({"batch_sizes": 8}, "batch_sizes: expected a list, found the number 8"),
        ({"batch_sizes": [1, 0]}, "batch_sizes[1]: expected a number 1 or more, found the number 0"),
        ({"batch_sizes": [-4]}, "batch_sizes[0]: expected a number 1 or more, found the number -4"),
        ({"batch_sizes": [True]}, "batch_sizes[0]: expected a whole number, found true"),
        ({"batch_sizes": [1.5]}, "batch_sizes[0]: expected a whole number, found the number 1.5"),
        ({"batch_sizes": ["8"]}, "batch_sizes[0]: expected a whole number, found the text '8'"),
        ({"batch_sizes": [10**5000]}, "batch_sizes[0]: expected a number at most 65536, found a huge number"),
        ({"batch_sizes": list(range(1, 102))}, "batch_sizes: expected at most 100 batch sizes, found 101"),
        (
            {"signatures": {f"s{n}": {} for n in range(11)}, "batch_sizes": list(range(1, 101))},
            "batch_sizes: expected at most 1,000 warm-up records",
        ),
        ({"signatures": {}}, "signatures: expected at least one signature"),
        ({"signatures": ["a"]}, "signatures: expected a mapping, found a list of 1"),
        ({"signatures": {"": {}}}, "expected a name of 1 to 256 printable characters, found the text ''"),
        ({"signatures": {"__saved_model_init_op": {}}}, "TensorFlow keeps the names beginning with '__saved_model'"),
        ({"signatures": {"a": {"metod": "predict"}}}, "signatures.a.metod: unknown key; did you mean 'method'?"),
        ({"signatures": {"a": {"method": "clasify"}}}, "did you mean 'classify'?"),
        ({"source": "https://host/m.keras"}, "source: expected a path or a URI like s3://"),
        ({"source": "s3://bucket"}, "source: expected a path or a URI like s3://"),
        ({"source": "file:///m.keras"}, "source: expected a path or a URI like s3://"),
        ({"source": ""}, "source: expected a path or an s3:// URI, found the text ''"),
        ({"source": "a\0b"}, "source: expected a path or an s3:// URI"),
        ({"samples": "samples.csv"}, "samples: expected an .npz file"),
        ({"samples": "http://host/s.npz"}, "samples: expected a path or a URI like s3://"),
        ({"custom_objects": "my_layers"}, "custom_objects: expected a list, found the text 'my_layers'"),
        ({"custom_objects": ["my_layers.py!"]}, "found 'my_layers.py!'"),
        ({"custom_objects": ["a..b"]}, "found 'a..b'"),
        ({"custom_objects": ["class"]}, "found 'class'"),
        ({"unsafe_deserialization": "yes"}, "unsafe_deserialization: expected true or false, found the text 'yes'"),
        ({"unsafe_deserialization": 1}, "unsafe_deserialization: expected true or false, found the number 1"),
        ({"variants": {"native": {"atol": -1e-5}}}, "variants.native.atol: expected a number 0 or more"),
        ({"variants": {"native": {"rtol": float("nan")}}}, "variants.native.rtol: expected a finite number"),
        ({"variants": {"native": {"atol": "1e-5"}}}, "variants.native.atol: expected a number, found the text '1e-5'"),
        ({"variants": {"tensorrt": {}}}, "variants.tensorrt: unknown key; did you mean 'tensorrt-fp16'?"),
        ({"variants": {"tensorrt-fp16": {"precision": "int8"}}}, "variants.tensorrt-fp16.precision: unknown key"),
        ({"variants": {"tensorrt-fp16": {"workspace": "2 apples"}}}, "or a size such as 512MiB or 2GiB"),
        ({"variants": {"tensorrt-fp16": {"workspace": "1KiB"}}}, "variants.tensorrt-fp16.workspace: expected"),
        ({"variants": {"tensorrt-fp16": {"workspace": True}}}, "variants.tensorrt-fp16.workspace: expected"),
        ({"variants": {"tensorrt-fp16": {"min_coverage": 50}}}, "min_coverage: expected a number at most 1"),
        ({"variants": {"tensorrt-fp16": {"min_speedup": 0}}}, "min_speedup: expected a number above 0"),
        ({"timeouts": {"convert": "1h"}}, "timeouts.convert: expected a number"),
        ({"timeouts": {"load": 0}}, "timeouts.load: expected a number above 0"),
        ({"timeouts": {"validat": 5}}, "timeouts.validat: unknown key; did you mean 'validate'?"),
        ({"timeouts": 5}, "timeouts: expected a mapping, found the number 5"),
        ({"top1_agreement": {"at_least": 99}}, "top1_agreement.at_least: expected a number at most 1"),
        ({"top1_agreement": {"min_samples": 0}}, "top1_agreement.min_samples: expected a number 1 or more"),
    ],
)
def test_a_wrong_spec_is_refused_where_it_is_wrong(keys: dict[Any, Any], problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(**keys) if all(isinstance(key, str) for key in keys) else PackageSpec.parse({"model": "digits", **keys})
    assert problem in caught.value.message
    assert caught.value.message.startswith("the spec: ")


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ({"inputs": []}, ".inputs: expected at least one name, found an empty list"),
        ({"inputs": {}}, ".inputs: expected at least one name, found an empty mapping"),
        ({"inputs": "image"}, ".inputs: expected a list of names, or a mapping"),
        ({"inputs": ["a", "a"]}, ".inputs: expected each name once, found 'a' 2 times"),
        ({"inputs": [1]}, ".inputs: expected a list of names, found the number 1 in it"),
        ({"inputs": [["a"]]}, ".inputs: expected a list of names, found a list of 1 in it"),
        ({"inputs": {"": "a"}}, "expected a name of 1 to 256 printable characters"),
        ({"inputs": {"a": 5}}, ".inputs.a: expected a mapping, found the number 5"),
        ({"inputs": {"image": {"dtype": "float31"}}}, ".inputs.image.dtype: expected float16, bfloat16"),
        ({"inputs": {"image": {"dtype": "float31"}}}, "found the text 'float31'; did you mean 'float32'?"),
        ({"inputs": {"image": {"form": "a"}}}, ".inputs.image.form: unknown key; did you mean 'from'?"),
        ({"inputs": {"image": {"source": "a"}}}, ".inputs.image.source: unknown key"),
        ({"inputs": {"image": {"shape": [None, 0]}}}, ".inputs.image.shape[1]: expected a number above 0"),
        ({"inputs": {"image": {"shape": [None, -1]}}}, ".inputs.image.shape[1]: expected a number above 0"),
        ({"inputs": {"image": {"shape": [True]}}}, ".inputs.image.shape[0]: expected a whole number, found true"),
        ({"inputs": {"image": {"shape": 8}}}, ".inputs.image.shape: expected a list, found the number 8"),
        ({"inputs": {"image": {"shape": [1] * 255}}}, ".inputs.image.shape: expected at most 254 dimensions"),
        ({"inputs": {"image": {"shape": [2**32, 2**32]}}}, ".inputs.image.shape: expected a shape of fewer than"),
        ({"inputs": {"a": {"dtype": "bool"}, "b": "b"}}, ".inputs: expected `from: NAME` for 'a'"),
        ({"inputs": {"a": "x", "b": "x"}}, "found 'x' under several public names"),
        ({"outputs": "a"}, ".outputs: expected a list of names"),
        ({"outputs": {"a": {"from": "b"}}}, ".outputs.a: expected text, found a mapping with 'from'"),
        ({"outputs": ["a", "a"]}, ".outputs: expected each name once"),
        ({"layer": "x", "outputs": ["a"]}, ": expected `layer` or `outputs`, found both"),
        ({"scores": "a"}, ": `scores` goes with method classify, found it with method predict"),
        ({"classes": ["a"]}, ": `classes` goes with method classify"),
        ({"method": "classify"}, ": expected `scores: OUTPUT` for method classify"),
        ({"method": "classify", "scores": "a", "layer": "b"}, ": `layer` goes with method predict"),
        ({"method": "classify", "scores": "a", "outputs": ["b"]}, ": `outputs` goes with method predict or regress"),
        ({"method": "classify", "scores": "a", "classes": []}, ".classes: expected 1 to 1,000,000 labels"),
        ({"method": "classify", "scores": "a", "classes": [0]}, ".classes[0]: expected text, found the number 0"),
        ({"method": "classify", "scores": "a", "classes": "l.txt"}, ".classes: expected a list of labels"),
        ({"method": "regress"}, ": expected `outputs: OUTPUT`, one name, for method regress, found 0"),
        ({"method": "regress", "outputs": ["a", "b"]}, ", one name, for method regress, found 2"),
        ({"method": "regress", "outputs": "a", "scores": "b"}, ": `scores` goes with method classify"),
    ],
)
def test_a_wrong_signature_is_refused_where_it_is_wrong(keys: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        signature(**keys)
    assert problem in caught.value.message
    assert SIGNATURE in caught.value.message


@pytest.mark.parametrize(
    ("quality", "problem"),
    [
        ({"metric": "acuracy", "at_least": 0.9}, "quality.metric: expected accuracy, top5_accuracy"),
        ({"metric": "accuracy", "at_least": 95}, "quality.at_least: expected a number at most 1"),
        ({"metric": "accuracy", "at_most": 0.9}, "expected `at_least` for the metric accuracy, found `at_most`"),
        ({"metric": "accuracy", "at_least": 0.9, "at_most": 1}, "expected `at_least` for the metric accuracy"),
        ({"metric": "top5_accuracy"}, "expected `at_least: NUMBER` for the metric top5_accuracy, found no limit"),
        ({"metric": "mean_absolute_error", "at_least": 0.9}, "expected `at_most` for the metric mean_absolute_error"),
        ({"metric": "root_mean_squared_error", "at_most": -1}, "quality.at_most: expected a number 0 or more"),
        ({"metric": "accuracy", "at_least": 0.9, "signature": "serve"}, "found 'serve'; did you mean 'server'?"),
    ],
)
def test_a_wrong_quality_gate_is_refused(quality: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(samples="s.npz", signatures={"server": {}}, quality={"labels": "y", "signature": "server", **quality})
    assert problem in caught.value.message


def test_quality_needs_samples() -> None:
    with pytest.raises(InvalidInputError, match=r"quality: expected `samples: FILE\.npz` beside it"):
        parse(quality={"labels": "y", "metric": "accuracy", "at_least": 0.9})


def test_all_problems_are_told_the_missing_one_last() -> None:
    with pytest.raises(InvalidInputError) as caught:
        PackageSpec.parse({"modle": "digits", "batch_sizes": [0], "timeouts": {"load": "x"}})
    lines = caught.value.message.splitlines()
    assert len(lines) == 4
    assert "modle: unknown key; did you mean 'model'?" in caught.value.message
    assert lines[-1] == "  model: expected a value, found nothing; this key is required"


def test_a_thousand_problems_are_cut_short() -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse(**{f"key{number}": 1 for number in range(1000)})
    assert caught.value.message.splitlines()[-1] == "  and 980 more"


@pytest.mark.parametrize("keys", [{"unsafe_deserialization": True}, {"custom_objects": ["my_layers"]}])
def test_code_runs_only_with_the_operators_grant(keys: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(keys))) as caught:
        require_trust(parse(**keys), trusted=False)
    assert "--trust" in str(caught.value)
    assert "`trust: true`" in str(caught.value)
    require_trust(parse(**keys), trusted=True)


def test_a_spec_without_code_needs_no_grant() -> None:
    require_trust(parse(), trusted=False)


names = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12).filter(
    lambda name: not name.startswith("__saved_model")
)
shapes = st.lists(st.none() | st.integers(1, 64), max_size=5)
dtypes = st.sampled_from(["float32", "bfloat16", "int64", "uint8", "bool", "string"])
one_input = st.dictionaries(
    names, st.none() | st.fixed_dictionaries({}, optional={"dtype": dtypes, "shape": shapes}), min_size=1, max_size=1
)
many_inputs = st.lists(names, unique=True, min_size=1, max_size=4).flatmap(
    lambda sources: st.lists(names, unique=True, min_size=len(sources), max_size=len(sources)).map(
        lambda public: dict(zip(public, ({"from": source} for source in sources), strict=True))
    )
)
inputs = one_input | many_inputs | st.lists(names, unique=True, min_size=1, max_size=4)
outputs = st.lists(names, unique=True, min_size=1, max_size=3) | st.dictionaries(names, names, min_size=1, max_size=3)
signatures = st.one_of(
    st.fixed_dictionaries({}, optional={"inputs": inputs, "outputs": outputs}),
    st.fixed_dictionaries({"layer": names}, optional={"inputs": inputs}),
    st.fixed_dictionaries(
        {"method": st.just("classify"), "scores": names},
        optional={"inputs": inputs, "classes": st.lists(names, min_size=1, max_size=4)},
    ),
    st.fixed_dictionaries({"method": st.just("regress"), "outputs": names}, optional={"inputs": inputs}),
)
tolerances = st.floats(0, 1)
specs = st.fixed_dictionaries(
    {"model": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True), "samples": st.just("s3://b/s.npz")},
    optional={
        "source": st.sampled_from(["/models/digits.keras", "s3://bucket/digits.h5"]),
        "custom_objects": st.just(["my_layers", "pkg.ops"]),
        "unsafe_deserialization": st.booleans(),
        "signatures": st.dictionaries(names, signatures, min_size=1, max_size=3).map(
            lambda some: {"serving_default": {}, **some}
        ),
        "batch_sizes": st.lists(st.integers(1, 4096), min_size=1, max_size=8),
        "variants": st.fixed_dictionaries({"native": st.fixed_dictionaries({"atol": tolerances, "rtol": tolerances})}),
        "quality": st.just({"labels": "y", "metric": "mean_absolute_error", "at_most": 3}),
        "top1_agreement": st.fixed_dictionaries({"at_least": tolerances}),
        "timeouts": st.fixed_dictionaries({"load": st.integers(1, 600), "validate": st.floats(1, 600)}),
    },
)


@given(specs)
def test_the_normal_form_reads_back_to_the_same_spec(document: dict[str, Any]) -> None:
    spec = PackageSpec.parse(document)
    dump = spec.model_dump(mode="json")
    assert PackageSpec.parse(dump) == spec
    assert PackageSpec.parse(dump).model_dump(mode="json") == dump
    assert PackageSpec.model_validate_json(json.dumps(dump)) == spec


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from([*PackageSpec.model_fields, "inputs", "outputs", "native", "from", "shape", "method"])
            | st.text()
            | st.integers(),
            inner,
            max_size=5,
        )
    ),
    max_leaves=20,
)


other_keys = dict.fromkeys(PackageSpec.model_fields.keys() - {"model"}, junk)


@given(junk | st.fixed_dictionaries({"model": st.just("digits")}, optional=other_keys))
def test_any_document_is_a_spec_or_invalid_input(document: object) -> None:
    try:
        spec = PackageSpec.parse(document)
    except InvalidInputError:
        return
    assert PackageSpec.parse(spec.model_dump(mode="json")) == spec
