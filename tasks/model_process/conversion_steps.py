"""The steps of one conversion, each with what the ones before it left."""

from __future__ import annotations

import contextlib
import tempfile
from pathlib import Path

import tensorflow as tf

from tasks.model_process import engine_building, rewriting, wrapping
from tasks.model_process.conversion_messages import BuiltEngines, ConvertedModel, ConvertPlan, RewrittenModel


class Conversion:
    """A conversion under way.

    Args:
        plan: What is to be converted.
    """

    def __init__(self, plan: ConvertPlan) -> None:
        self.plan = plan
        self.native = Path(plan.saved_model)
        self.directory = Path(plan.converted)
        self.engines: dict[str, Path] = {}

    def rewrite(self) -> RewrittenModel:
        """Has TF-TRT rewrite each signature that it can take."""
        with rewriting.without_gpu() if self.plan.rehearsal else contextlib.nullcontext():
            self.parts = rewriting.rewrite_all(self.native, self.plan.signatures, workspace=self.plan.workspace)
        return RewrittenModel(tuple(part.report for part in self.parts))

    def build(self) -> BuiltEngines:
        """Has TensorRT build the engines for the shapes of the requests, and writes them into files."""
        if self.plan.rehearsal:
            return BuiltEngines(0)
        for part in wrapping.rewritten(self.parts):
            requests = engine_building.requests(self.native, Path(self.plan.cases), part.signature.name)
            engine_building.build(part, requests)
        # The process's own temporary directory, which its parent removes.
        self.engines = engine_building.serialize(wrapping.rewritten(self.parts), Path(tempfile.mkdtemp()))
        engine_building.check_reached(wrapping.rewritten(self.parts), self.engines)
        return BuiltEngines(sum(file.stat().st_size > 0 for file in self.engines.values()))

    def save(self) -> ConvertedModel:
        """Writes all signatures, with the engines or with what they were made from."""
        promised: tuple[str, ...] = ()
        if self.plan.rehearsal:
            wrapping.save_deconverted(self.parts, self.native, self.directory)
        else:
            promised = wrapping.save_engines(self.parts, self.engines, self.native, self.directory)
        graph = self.directory / tf.saved_model.SAVED_MODEL_FILENAME_PB
        return ConvertedModel(graph.stat().st_size, promised)
