"""An estimate as it is shown: tables for people, one document for programs."""

from __future__ import annotations

import json

import click
import pytest

from flows.cli_convert import _tell
from flows.estimate_printing import print_rewritten, rewritten_document
from model_registry.errors import RejectedError
from model_registry.servable import Check
from tasks.estimation import Estimate
from tasks.model_process.conversion_messages import LeftOut, RewrittenModel, RewrittenSignature, Segment

REWRITTEN = RewrittenModel(
    (
        RewrittenSignature("classify", "it parses tf.Examples", 9, 7, (), ()),
        RewrittenSignature(
            "serving_default",
            "",
            40,
            20,
            (Segment("TRTEngineOp_000_000", 30, 15),),
            (LeftOut("Cumsum", 3, "Op type Cumsum is not supported"), LeftOut("NoOp", 2, "")),
        ),
    )
)
SOURCE = {"source": "digits:3", "model": "digits", "version": 3, "registry": "/registry"}


def check(passed: bool) -> Check:
    return Check("fp16 estimate overflow", "tensorrt-fp16", 0 if passed else 7, 0, passed, "an estimate")


def test_the_tables_tell_engines_what_is_left_out_and_why(capsys: pytest.CaptureFixture[str]) -> None:
    print_rewritten("digits:3", REWRITTEN)
    shown = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert shown[0].startswith("digits:3: an estimate made on a CPU")
    assert "classify 0 9 7 - it parses tf.Examples" in shown
    assert "serving_default 1 40 20 75.0%" in shown
    assert "serving_default TRTEngineOp_000_000 30 15" in shown
    assert "serving_default Cumsum 3 Op type Cumsum is not supported" in shown
    assert "serving_default NoOp 2" in shown


def test_a_name_out_of_a_graph_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    nasty = RewrittenSignature("a\x1b[31m", "", 1, 1, (), (LeftOut("b\x1b]0;", 1, "c\x07"),))
    print_rewritten("x\x1b[2J", RewrittenModel((nasty,)))
    shown = capsys.readouterr().out
    assert "\x1b" not in shown and "\x07" not in shown


def test_the_document_has_the_shares_that_the_tables_have() -> None:
    document = rewritten_document(REWRITTEN)
    assert (document["engines"], document["coverage"]) == (1, 0.75)
    assert [signature["coverage"] for signature in document["signatures"]] == [0.0, 0.75]
    assert json.loads(json.dumps(document))["signatures"][1]["left_out"][0]["op"] == "Cumsum"


def test_an_estimate_that_failed_is_one_document_with_the_table_and_the_error(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(click.exceptions.Exit) as left:
        _tell(SOURCE, Estimate(REWRITTEN, (check(True), check(False)), 1.5), as_json=True)
    assert left.value.exit_code == 3
    document = json.loads(capsys.readouterr().out)
    assert (document["verdict"], document["error"]["class"]) == ("rejected", "RejectedError")
    assert "fp16 estimate overflow" in document["error"]["message"]
    assert document["estimate"]["engines"] == 1
    assert [item["passed"] for item in document["checks"]] == [True, False]


def test_an_estimate_that_failed_is_a_rejection_with_its_blessing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RejectedError, match="digits:3 is not fit") as rejected:
        _tell(SOURCE, Estimate(REWRITTEN, (check(False),), 1.5), as_json=False)
    assert rejected.value.blessing.failures == (check(False),)
    assert "TRTEngineOp_000_000" in capsys.readouterr().out


def test_an_estimate_that_passed_shows_its_checks(capsys: pytest.CaptureFixture[str]) -> None:
    _tell(SOURCE, Estimate(REWRITTEN, (check(True),), 1.5), as_json=False)
    printed = capsys.readouterr()
    assert "fp16 estimate overflow" in printed.out and "passed" in printed.out
    assert "nothing was changed" in printed.err
