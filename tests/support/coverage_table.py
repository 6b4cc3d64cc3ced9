"""Prints the table of docs/tensorrt.md: `python -m tests.support.coverage_table [MINIMUM_SEGMENT_SIZE]`.

TF-TRT's rewrite alone: no engine is built and nothing runs on TensorRT.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tasks.model_process import rewriting
from tests.support.conversions import deconvert, difference
from tests.support.packaged_zoo import package

MODELS = {
    "resnet50": "ResNet50",
    "efficientnet_b0": "EfficientNetB0",
    "mobilenet_v2": "MobileNetV2",
    "mobilenet_v3_small": "MobileNetV3Small",
    "mixed_float16": "CNN in mixed_float16",
    "mixed_bfloat16": "CNN in mixed_bfloat16",
    "image_preprocessing": "CNN with resizing of uint8 images",
    "transformer": "Transformer block with integer ids",
    "recurrent": "Bidirectional LSTM and GRU",
    "sequential": "Dense, BatchNormalization, Dense",
    "integers_and_booleans": "Dense on int32, int64, bool, uint8",
    "odd_names_in_dicts": "Eleven Dense layers side by side",
    "text_vectorization": "TextVectorization",
    "stateful_lstm": "Stateful LSTM",
}


def main() -> None:
    """Packages, rewrites and puts back each model, and prints a row for it."""
    if len(sys.argv) > 1:
        rewriting.MINIMUM_SEGMENT_SIZE = int(sys.argv[1])
    print("| model | engines | nodes | non-Const | of them in engines | share | difference |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, shown in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            candidate = package(name, Path(folder)).candidate
            (part,) = deconvert(candidate.directory, Path(folder) / "converted")
            apart = difference(candidate.directory, Path(folder) / "converted", candidate.requests())
        report = part.report
        if report.native:
            print(f"| {shown} | native: {report.native} | | | | | {apart:.1e} |")
            continue
        inside = sum(segment.computing_nodes for segment in report.segments)
        print(
            f"| {shown} | {len(report.segments)} | {report.nodes} | {report.computing_nodes} | {inside} "
            f"| {report.coverage:.1%} | {apart:.1e} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
