"""TF-TRT's report of what it leaves out, as TensorFlow 2.17.1 wrote it, and what is read from it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from tasks.model_process import segment_report

REPORT = """\
2026-01-01 10:00:00.000001: W tensorflow/compiler/tf2tensorrt/segment/segment.cc:969]\x20

################################################################################
TensorRT unsupported/non-converted OP Report:
\t- ExpandDims -> 3x
\t\t- [Count: 3x] Data type bool is not supported for ExpandDims, must be one of [float, int32, half]

\t- Identity -> 5x
\t\t- [Count: 1x] excluded by segmenter option. Most likely an input or output node.
\t\t- [Count: 4x] Data type int64 is not supported for Identity.

\t- Cumsum -> 2x
\t\t- [Count: 2x] Op type Cumsum is not supported.

--------------------------------------------------------------------------------
\t- Total nonconverted OPs: 10
\t- Total nonconverted OP Types: 3
For more information see https://docs.nvidia.com/deeplearning/frameworks/tf-trt-user-guide/index.html#supported-ops.
################################################################################

2026-01-01 10:00:00.000002: E somewhere/else.cc:1] \t- Mul -> 1x
\t\t- [Count: 1x] is no part of the report.
"""


def test_each_op_has_the_reason_of_most_of_its_nodes() -> None:
    assert segment_report.reasons(REPORT) == {
        "ExpandDims": "Data type bool is not supported for ExpandDims, must be one of [float, int32, half]",
        "Identity": "Data type int64 is not supported for Identity",
        "Cumsum": "Op type Cumsum is not supported",
    }


def test_without_a_report_there_are_no_reasons() -> None:
    assert segment_report.reasons("") == {}
    assert segment_report.reasons("\t- Mul -> 1x\n\t\t- [Count: 1x] said by something else.") == {}


def _run(*lines: str) -> subprocess.CompletedProcess[bytes]:
    script = "\n".join(["import os", "from tasks.model_process import segment_report", *lines])
    return subprocess.run([sys.executable, "-c", script], capture_output=True, check=False, cwd=Path.cwd(), timeout=60)


def test_what_native_code_writes_to_stderr_is_gathered_and_written_all_the_same() -> None:
    ended = _run(
        "os.write(2, b'before ')",
        "with segment_report.captured() as log:",
        "    os.write(2, b'during ')",
        "print(log(), end='')",
        "os.write(2, b'after')",
    )

    assert ended.returncode == 0
    assert ended.stdout == b"during "
    assert ended.stderr == b"before during after"


def test_the_last_words_of_a_process_that_aborts_are_not_lost() -> None:
    ended = _run(
        "with segment_report.captured():",
        "    os.write(2, b'Check failed: trt says why')",
        "    os.abort()",
    )

    assert ended.returncode == -signal.SIGABRT
    assert ended.stderr == b"Check failed: trt says why"


def test_without_tee_nothing_is_gathered_and_nothing_lost() -> None:
    ended = _run(
        "os.environ['PATH'] = '/nowhere'",
        "with segment_report.captured() as log:",
        "    os.write(2, b'during')",
        "print(repr(log()), end='')",
    )

    assert (ended.stdout, ended.stderr) == (b"''", b"during")
