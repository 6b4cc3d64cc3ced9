"""`slipway rollout`: lets a version take over from another in steps, judged at each by what Prometheus saw."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flows.command import error_document, json_option, print_json, registry_option, reporting_errors
from flows.rollout_options import PROMETHEUS, duration, pairs, percents, plan_of, watched

if TYPE_CHECKING:
    from model_registry.registry import Registry
    from model_registry.rollout.driver import Driver
    from model_registry.rollout.report import RolloutReport
    from model_registry.state import Origin


@click.command()
@click.argument("reference", metavar="MODEL:VERSION|MODEL")
@click.option(
    "--steps", callback=percents, metavar="P,P,...", help="Percent of the requests at each. Default: 5,25,100."
)
@click.option("--bake", callback=duration, metavar="TIME", help="How long each step is judged at least. Default: 10m.")
@click.option(
    "--margin",
    "margins",
    callback=pairs,
    multiple=True,
    metavar="METRIC=SHARE",
    help="How much worse may pass. Default: error_rate=0.01 of the requests, p50=0.25 and p99=0.5 of stable's.",
)
@click.option("--check", "checks", multiple=True, metavar="PROMQL", help="Must have samples, and none of them 0.")
@click.option("--stable", metavar="LABEL", help="Whose version is replaced. Default: stable.")
@click.option("--canary", metavar="LABEL", help="Names the new version meanwhile. Default: canary.")
@click.option("--pause", "action", flag_value="pause", help="Leave the rollout of MODEL where it is.")
@click.option("--resume", "action", flag_value="resume", help="Take it up where it was left.")
@click.option("--abort", "action", flag_value="abort", help="End it without the new version.")
@click.option("--unseen", is_flag=True, help="With --abort: you vouch that no gateway sends requests to canary.")
@click.option("--status", "action", flag_value="status", help="Tell how it stands.")
@click.option(
    "--prometheus",
    default=PROMETHEUS,
    show_default=True,
    envvar="SLIPWAY_PROMETHEUS",
    show_envvar=True,
    metavar="URL",
    help="What watches the fleet.",
)
@click.option(
    "--http-config",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="How to log in there, as promtool's --http.config.file.",
)
@click.option(
    "--within",
    callback=pairs,
    multiple=True,
    metavar="LABEL=VALUE",
    help="Only series with this label, where Prometheus watches several fleets.",
)
@click.option(
    "--timeout",
    callback=duration,
    default="15m",
    show_default=True,
    metavar="TIME",
    help="How long servers and gateways may take to follow.",
)
@click.option("--reason", default="", metavar="TEXT", help="Why; `slipway history` shows it.")
@click.option("--dry-run", is_flag=True, help="Hold it to every rule, and change nothing.")
@registry_option
@json_option
def rollout(
    reference: str,
    *,
    action: str | None,
    registry: str | None,
    reason: str,
    dry_run: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Let a version take over from the one that `stable` names, step by step.

    At each step it gets more of the requests, and goes on only if it was found not worse: in its errors, its
    latency and every --check. What is found worse gets no more requests, from the first look on: after a tenth of
    --bake, and a minute at most. Without data it is paused.

    The command may end at any time: the rollout stays where it is, and --resume goes on.

    Exit codes: 0 promoted, or what was asked for is done; 3 worse; 4 somebody else took it up, paused or aborted it;
    1 paused for lack of data, or an error.

    With --json: {"model", "version", "baseline", "outcome", "why", "by", "weight", "phase", "paused", "revision",
    "looks", "evidence", "stuck"}, beside them "error" and "checks" where it was not promoted.
    """
    _require_fitting(action, dry_run=dry_run, options=options)
    with reporting_errors(as_json):
        from model_registry.registry import Registry
        from model_registry.state import Origin

        opened, origin = Registry.open(registry), Origin.here(reason)
        if action == "status":
            _status(opened, _model(reference), as_json)
        elif action == "pause":
            _pause(opened, _model(reference), origin, as_json)
        elif action:
            _lead_on(opened, _model(reference), action, origin, as_json, options)
        else:
            _begin(opened, reference, origin, dry_run, as_json, options)


def _require_fitting(action: str | None, *, dry_run: bool, options: dict[str, Any]) -> None:
    """Refuses options that would be ignored."""
    plan = ("steps", "bake", "margins", "checks", "stable", "canary")
    given = [name for name in plan if options[name]] + (["dry-run"] if dry_run else [])
    if action and given:
        names = {"margins": "margin", "checks": "check"}
        raise click.UsageError(f"--{names.get(given[0], given[0])} is for a rollout that begins, not for --{action}")
    if options["unseen"] and action != "abort":
        raise click.UsageError("--unseen goes with --abort: it ends a rollout whose gateways nobody can see")


def _begin(
    registry: Registry, reference: str, origin: Origin, dry_run: bool, as_json: bool, options: dict[str, Any]
) -> None:
    from flows.changes import change_document, change_sentence
    from flows.cli_labels import numbered

    model, version = numbered(reference)
    driver = _driver(registry, model, origin, options)
    labels = {name: options[name] for name in ("stable", "canary") if options[name]}
    if not dry_run:
        with _staying(driver, model, options):
            _end(driver.begin(version, plan_of(options), **labels), as_json, options)
        return
    change = change_document(
        registry.store.uri, model, driver.rehearse(version, plan_of(options), **labels), dry_run=True
    )
    if as_json:
        print_json(change)
        return
    click.echo(change_sentence(change))
    click.echo("dry run: nothing was changed", err=True)


def _lead_on(
    registry: Registry, model: str, action: str, origin: Origin, as_json: bool, options: dict[str, Any]
) -> None:
    driver = _driver(registry, model, origin, options)
    with _staying(driver, model, options):
        report = driver.abort(unseen=options["unseen"]) if action == "abort" else driver.resume()
        carried_through = action == "abort" and not report.by and report.phase is None
        _end(report, as_json, options, carried_through=carried_through)


def _pause(registry: Registry, model: str, origin: Origin, as_json: bool) -> None:
    from flows.changes import change_document, change_sentence
    from flows.rollout_sentences import rollout_under_way
    from model_registry import rollout_transitions as transitions
    from model_registry.rollout.recollection import standing

    why = f"by {origin.who}{f': {origin.why}' if origin.why else ''}"
    decide = partial(transitions.pause, model=model, why=why)
    record = registry.change_traffic(model, decide, origin=origin, insist=True)
    if as_json:
        print_json(standing(model, registry.state(model), registry.history(model)).document())
    elif record:
        click.echo(change_sentence(change_document(registry.store.uri, model, record)))
    elif traffic := registry.state(model).traffic:
        click.echo(rollout_under_way(model, traffic))


def _status(registry: Registry, model: str, as_json: bool) -> None:
    from model_registry.rollout.recollection import LIMIT, standing

    state = registry.state(model)
    report = standing(model, state, registry.history(model, LIMIT))
    if as_json:
        print_json(report.document())
    else:
        from flows.rollout_printing import print_rollout

        print_rollout(report, state)


def _end(report: RolloutReport, as_json: bool, options: dict[str, Any], *, carried_through: bool = False) -> None:
    """Prints what became of a rollout.

    Raises:
        SlipwayError: If it was not promoted, which is what was asked for unless `carried_through`.
    """
    from flows.rollout_printing import failure
    from model_registry.errors import RejectedError

    error = None if carried_through else failure(report)
    if error and error.hint:
        error.hint = watched(error.hint, options)
    if not as_json:
        if error:
            raise error
        click.echo(f"{report.model}:{report.version} {report.outcome} (revision {report.revision})")
        return
    document = report.document()
    if error is None:
        print_json(document)
        return
    from dataclasses import asdict

    checks = [asdict(check) for check in error.blessing.checks] if isinstance(error, RejectedError) else []
    print_json({"error": error_document(error), "checks": checks, **document})
    raise click.exceptions.Exit(error.exit_code)


@contextlib.contextmanager
def _staying(driver: Driver, model: str, options: dict[str, Any]) -> Iterator[None]:
    """Says how to go on where the command is told to end, and of which Prometheus where an error ends it."""
    from model_registry.errors import SlipwayError

    try:
        yield
    except SlipwayError as error:
        error.hint = error.hint and watched(error.hint, options)
        raise
    except Exception:
        raise
    except BaseException:  # Ctrl-C, or a signal that asks for the end
        if traffic := driver.traffic:
            on = watched(f"`slipway rollout {model} --resume`", options)
            click.echo(
                f"the rollout of {model}:{traffic.candidate} stays where it is, {traffic.phase} with {traffic.weight} "
                f"% of the requests: {on} goes on, --abort ends it",
                err=True,
            )
        raise


def _driver(registry: Registry, model: str, origin: Origin, options: dict[str, Any]) -> Driver:
    from flows.rollout_printing import telling
    from model_registry.rollout.control_loop import Patience
    from model_registry.rollout.driver import Driver
    from model_registry.rollout.observation import Observer
    from model_registry.rollout.prometheus import Prometheus

    prometheus = Prometheus(options["prometheus"], http_config=options["http_config"])
    observer = Observer(prometheus, model, within=dict(options["within"]))
    patience = Patience(timeout=options["timeout"])
    return Driver(registry, observer, model, origin=origin, patience=patience, told=telling(registry, model))


def _model(reference: str) -> str:
    from model_registry.errors import InvalidInputError
    from model_registry.paths import Reference

    parsed = Reference.parse(reference)
    if parsed.version is not None or parsed.label:
        raise InvalidInputError(
            f"{reference!r} names a version: a model has one rollout at a time, expected its name alone",
            hint=f"slipway rollout {parsed.model}",
        )
    return parsed.model
