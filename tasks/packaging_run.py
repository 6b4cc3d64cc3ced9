"""One run of the pipeline: what it works with until it is over.

The child processes take seconds to import TensorFlow. They are started before anything else that takes time, so that
the import runs beside fetching, hashing and Prefect's own start; but not for a store that does not answer, and they are
ended as soon as the version is found to be there. `begin` may be called before the flow (the command line does, while
Prefect starts a temporary server); the flow's own call then finds the work done.
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from model_registry.identity import library_versions
from model_registry.registry import Registry
from model_registry.spec_file import LoadedSpec
from tasks.conversion_place import Here
from tasks.delivery import Delivery
from tasks.estimation import estimator as start_estimator
from tasks.lookup import Lookup, look_up
from tasks.model_process.client import ModelProcess
from tasks.model_process.messages import ESTIMATE, PREPARE, VALIDATE, PreparePlan, Role
from tasks.package_request import PackageRequest
from tasks.server_check import require_server

# Where there is a GPU the processes would fight for its memory, and its TF32 is coarser than the parity asked for.
_ON_THE_CPU = {"CUDA_VISIBLE_DEVICES": "-1"}


@dataclass
class PackagingRun:
    """What one packaging works with.

    Attributes:
        request: What was asked for.
        loaded: The spec in force.
        registry: Where the version is published.
        delivery: Which variants it shall have.
        workspace: A directory of the run's own.
        processes: What ends with the run.
        libraries: Versions of what packages it.
        started: When, by time.perf_counter.
    """

    request: PackageRequest
    loaded: LoadedSpec
    registry: Registry
    delivery: Delivery
    workspace: Path
    processes: contextlib.ExitStack
    libraries: dict[str, str] = field(default_factory=library_versions)
    started: float = field(default_factory=time.perf_counter)
    _begun: Lookup | None = None
    _started: tuple[ModelProcess, ModelProcess, ModelProcess | None] | None = None

    @property
    def model(self) -> ModelProcess:
        """The process that loads the model, once the run was begun."""
        assert self._started is not None
        return self._started[0]

    @property
    def validator(self) -> ModelProcess:
        """The process that never sees it."""
        assert self._started is not None
        return self._started[1]

    @property
    def estimator(self) -> ModelProcess | None:
        """The process that tries the conversion before a GPU is paid for; None where none is tried."""
        assert self._started is not None
        return self._started[2]

    @property
    def seconds(self) -> float:
        """How long it has been going on."""
        return time.perf_counter() - self.started

    @property
    def candidate(self) -> Path:
        """Where the SavedModel is written."""
        return self.workspace / "candidate"

    @property
    def cases(self) -> Path:
        """What the model process leaves for the validator."""
        return self.workspace / "cases"

    def begin(self) -> Lookup:
        """Fetches and digests the source, looks for its version, and sets the model process to work. Once.

        Raises:
            InvalidInputError: If the source is no model, or there is no server to try the candidate in.
            NotFoundError: If it is not there.
            StorageError: If it or the registry cannot be read.
        """
        if self._begun is None:
            self._begun = self._begin()
        return self._begun

    def end_loading(self) -> None:
        """Ends the processes that have done their part, and frees the memory that the model takes in them."""
        self.model.end()
        self.validator.end()

    def end_processes(self) -> None:
        """Ends the processes: nobody writes into the candidate any more."""
        self.end_loading()
        if self.estimator is not None:
            self.estimator.end()

    def _begin(self) -> Lookup:
        begun = look_up(
            self.request,
            self.loaded,
            self.registry,
            self.delivery,
            self.workspace,
            self.libraries,
            reached=self._start_processes,
        )
        if begun.existing is not None:
            self.end_processes()
        else:
            self._require_server()
            self.cases.mkdir()
            self.model.tell(
                PreparePlan(
                    source=str(begun.source),
                    source_format=begun.described.format,
                    spec=self.loaded.spec.model_dump(mode="json"),
                    trusted=self.request.trust,
                    code_directory=str(self.loaded.directory),
                    samples=str(begun.samples) if begun.samples else None,
                    candidate=str(self.candidate),
                    cases=str(self.cases),
                )
            )
        return begun

    def _start_processes(self) -> None:
        if self._started is not None:  # the look for the source failed for the moment, and is repeated
            return

        def start(role: Role) -> ModelProcess:
            return self.processes.enter_context(ModelProcess(role, self.workspace / role, settings=_ON_THE_CPU))

        model, validator, estimator = start(PREPARE), start(VALIDATE), None
        if self.delivery.to_convert is not None:
            estimator = self.processes.enter_context(start_estimator(self.workspace / ESTIMATE))
        self._started = model, validator, estimator

    def _require_server(self) -> None:
        """Looks for the server before any long work; for that of a variant that is only welcome when its time comes."""
        spec, place = self.loaded.spec, self.delivery.to_convert
        require_server(spec)
        if self.delivery.required and isinstance(place, Here) and place.accelerator is not None:
            require_server(spec, accelerated=True)


_early: dict[PackageRequest, PackagingRun] = {}


@contextlib.contextmanager
def packaging_run(request: PackageRequest) -> Iterator[PackagingRun]:
    """The run for a request: the one that was begun early, or a new one. Everything of it ends with the block.

    Raises:
        SlipwayError: As `PackageRequest.open` and `Delivery.of` do, and if the registry cannot be written.
    """
    early = _early.get(request)
    if early is not None:
        yield early
        return
    started = time.perf_counter()
    loaded, registry = request.open()
    delivery = Delivery.of(request.variants, loaded.spec, registry.store.uri)
    with contextlib.ExitStack() as ending:
        workspace = ending.enter_context(registry.store.workspace(uuid.uuid4().hex))
        processes = ending.enter_context(contextlib.ExitStack())
        yield PackagingRun(request, loaded, registry, delivery, workspace, processes, started=started)


@contextlib.contextmanager
def begun_early(request: PackageRequest) -> Iterator[PackagingRun]:
    """Begins a run at once, for the flow that will be called with the same request inside the block.

    Raises:
        SlipwayError: If the request cannot be carried out; nothing is left behind then.
    """
    with packaging_run(request) as run:
        run.begin()
        _early[request] = run
        try:
            yield run
        finally:
            del _early[request]
