"""`slipway doctor`: what this machine has, and what to do about what it lacks."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from flows.command import json_option, print_json, registry_option, reporting_errors


@click.command()
@registry_option
@json_option
def doctor(registry: str | None, as_json: bool) -> None:
    """Check this machine: libraries, GPU, TensorRT, registry, Docker, Prefect.

    Exit code 1 if anything is broken; a warning tells what does not work here, and how it would.
    """
    from flows.printing import print_findings
    from tasks.diagnosis import diagnose, worst

    with reporting_errors(as_json):
        findings = diagnose(registry)
        verdict = worst(findings)
        broken = [finding for finding in findings if finding.verdict == "fail"]
        if as_json:
            document: dict[str, Any] = {"verdict": verdict, "checks": [asdict(finding) for finding in findings]}
            if broken:
                message = "; ".join(f"{finding.check}: {finding.found}" for finding in broken)
                document["error"] = {"class": "SlipwayError", "message": message, "hint": broken[0].hint or None}
            print_json(document)
        else:
            print_findings(findings)
        if broken:
            raise click.exceptions.Exit(1)
