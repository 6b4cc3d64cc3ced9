"""What a conversion must have come to before anybody tries its answers. Pure: what the child reports in, checks out.

TF-TRT says nothing of any of this: it converts into zero engines, saves a graph that looks for engines which are not
there, and freezes weights into a file that no server reads.
"""

from __future__ import annotations

from collections.abc import Sequence

from model_registry.servable import Check, PayloadFile
from model_registry.spec import TensorRTSpec
from tasks.model_process.conversion_messages import BuiltEngines, ConvertedModel, RewrittenModel

# A protocol buffer ends at 2 GiB, and servers complain of messages from about half of that on.
LARGEST_GRAPH = 1_000_000_000  # bytes

_GRAPH = "saved_model.pb"
_NAMED = 3  # how many of a kind a detail names


def conversion_checks(
    rewritten: RewrittenModel,
    built: BuiltEngines | None,
    converted: ConvertedModel,
    files: Sequence[PayloadFile],
    *,
    settings: TensorRTSpec,
    variant: str,
) -> tuple[Check, ...]:
    """Checks what was converted, as far as that can be told without running it.

    Args:
        rewritten: What TF-TRT made of the graph.
        built: The engines that were built; None in a rehearsal, which has none.
        converted: What was saved.
        files: What lies in the converted SavedModel's directory.
        settings: The thresholds.
        variant: Whose checks they are.
    """
    sizes = {file.path: file.bytes for file in files}
    checks = [
        _engines(rewritten, variant),
        _coverage(rewritten, settings.min_coverage, variant),
        _graph(sizes, variant),
    ]
    if built is not None:
        checks += [_built(rewritten, built, variant), _assets(converted, sizes, variant)]
    return tuple(checks)


def _engines(rewritten: RewrittenModel, variant: str) -> Check:
    found = rewritten.engines
    native = [f"{item.name} stays native: {item.native}" for item in rewritten.signatures if item.native]
    detail = "" if found else "TF-TRT took nothing of the graph"
    return Check("engines", variant, found, 1, found >= 1, "; ".join([*filter(None, [detail]), *native[:_NAMED]]))


def _coverage(rewritten: RewrittenModel, least: float, variant: str) -> Check:
    found = rewritten.coverage
    outside: dict[str, int] = {}
    for signature in rewritten.signatures:
        if not signature.native:
            for item in signature.left_out:
                outside[item.op] = outside.get(item.op, 0) + item.nodes
    most = sorted(outside.items(), key=lambda item: (-item[1], item[0]))[:_NAMED]
    named = ", ".join(f"{nodes} {op}" for op, nodes in most)
    detail = "share of non-Const nodes inside engines" + (f"; outside: {named}" if named else "")
    return Check("coverage", variant, found, least, found >= least, detail)


def _built(rewritten: RewrittenModel, built: BuiltEngines, variant: str) -> Check:
    wanted = rewritten.engines
    detail = "" if built.engines == wanted else "an engine that is not built ahead is built by the first request"
    return Check("engines built", variant, built.engines, wanted, wanted >= 1 and built.engines == wanted, detail)


def _graph(sizes: dict[str, int], variant: str) -> Check:
    size = sizes.get(_GRAPH)
    if size is None:
        return Check("graph size", variant, "missing", LARGEST_GRAPH, False, f"there is no {_GRAPH}")
    fits = size < LARGEST_GRAPH
    detail = f"bytes of {_GRAPH}, which holds the weights" + ("" if fits else "; publish this model as native only")
    return Check("graph size", variant, size, LARGEST_GRAPH, fits, detail)


def _assets(converted: ConvertedModel, sizes: dict[str, int], variant: str) -> Check:
    promised = converted.promised_assets
    lacking = [path for path in promised if not sizes.get(path)]
    if not promised:
        detail = "the graph names no file with an engine"
    elif lacking:
        detail = f"missing or empty: {', '.join(lacking[:_NAMED])}"
    else:
        detail = "files with engines that the graph looks for"
    wanted = max(1, len(promised))
    return Check("engine assets", variant, len(promised) - len(lacking), wanted, bool(promised) and not lacking, detail)
