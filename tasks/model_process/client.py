"""The parent's side: a child process that is told what to do and reports stage by stage.

Rules:
- The child ends with its handle, however the parent's block is left; and with the parent, because it
  gives up when its standard input closes.
- Whatever becomes of it, the parent gets an InvalidInputError (or what else its caller names) with the
  last lines of its log.
- Nothing it reports is believed before it has been checked against the message's type, and nothing it
  says reaches a terminal with its control characters.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from model_registry.errors import InvalidInputError, SlipwayError
from tasks.model_process import sandbox
from tasks.model_process.log_tail import LogTail, printable
from tasks.model_process.messages import REPLAY, Event, Role

Result = TypeVar("Result")

_EVENT = TypeAdapter(Event)
_MAX_EVENT_BYTES = 16 << 20
_MESSAGE = 4_000  # characters
_GRACE = 5.0  # seconds from the closing of the pipe to the end of the process
_LOOK = 0.5  # seconds between two looks whether the child still lives
# What asks a server, and deserialises no model.
_NEEDS_NETWORK = frozenset({REPLAY})


def require_tensorflow() -> None:
    """Tells who has the light base only what is missing.

    Raises:
        InvalidInputError: If TensorFlow is not installed.
    """
    if find_spec("tensorflow") is None:
        raise InvalidInputError(
            "this loads or runs a model, and TensorFlow is not installed",
            hint="pip install 'slipway[pipeline]', for Python 3.10 to 3.12",
        )


class ModelProcess:
    """A running child.

    Attributes:
        role: What it does; names its log and its messages.
        pid: Its process id, which is also its process group.
    """

    def __init__(
        self,
        role: Role,
        directory: Path,
        *,
        failure: type[SlipwayError] = InvalidInputError,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """Starts the child; it imports TensorFlow and waits to be told its plan.

        Args:
            role: What it is to do.
            directory: An empty directory for its HOME and temporary files; is made.
            failure: What is raised for whatever goes wrong in the child.
            settings: Variables of TensorFlow's own that are set for it.

        Raises:
            InvalidInputError: If TensorFlow is not installed.
        """
        require_tensorflow()
        self.role = role
        self._failure = failure
        home, scratch = directory / "home", directory / "tmp"
        for path in (home, scratch):
            path.mkdir(parents=True, mode=0o700)
        reading, writing = os.pipe()
        try:
            self._process = subprocess.Popen(
                sandbox.command("tasks.model_process", [role, str(writing)], network=role in _NEEDS_NETWORK),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                pass_fds=[writing],
                env={**sandbox.environment(os.environ, home, scratch), **(settings or {})},
                cwd=scratch,
                start_new_session=True,
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        assert self._process.stdout is not None
        self._log = LogTail(self._process.stdout)
        self.pid = self._process.pid
        self._events = reading
        self._buffer = b""
        self._ended = False

    def tell(self, message: Any) -> None:
        """Sends a message (a dataclass of `messages`); the child reads it when it gets there."""
        line = TypeAdapter(type(message)).dump_json(message) + b"\n"
        assert self._process.stdin is not None
        # A child that has died says so in its events; the broken pipe would hide why.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(line)
            self._process.stdin.flush()

    def result(self, stage: str, kind: type[Result], timeout: float) -> tuple[Result, float]:
        """Waits for a stage.

        Args:
            stage: Which one; stages come in the order of the plan.
            kind: The dataclass its result is read as.
            timeout: Seconds to wait; then the child is ended.

        Returns:
            The result, and how many seconds the child worked on it.

        Raises:
            SlipwayError: As the caller named it, if the stage failed, took too long, or the child ended before.
        """
        line = self._next_line(stage, time.monotonic() + timeout, timeout)
        try:
            event = _EVENT.validate_json(line)
            if event.failure is not None:
                hint = event.failure.hint
                raise self._failure(_shown(event.failure.message), hint=_shown(hint) if hint else None)
            if event.stage != stage:
                raise ValueError(f"expected stage {stage!r}, found {event.stage!r}")
            return TypeAdapter(kind).validate_python(event.result), event.seconds
        except SlipwayError:
            raise
        except (ValidationError, ValueError) as error:
            self.end()
            why = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise self._failure(
                f"the {self.role} process broke its protocol while it should {stage}: {_shown(why)}\n"
                f"{self._shown_log()}",
                hint="code in the model interferes with the process that loads it; do not trust this file",
            ) from None

    def end(self) -> None:
        """Ends the child and all it started, at once."""
        if self._ended:
            return
        self._ended = True
        # The child is reaped afterwards only: until then nobody else can be given its process group's id.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait()
        self._log.finish()
        if self._process.stdin is not None:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        os.close(self._events)

    def __enter__(self) -> ModelProcess:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def _next_line(self, stage: str, deadline: float, timeout: float) -> bytes:
        if self._ended:
            raise self._failure(f"the {self.role} process was ended before it could {stage}\n{self._shown_log()}")
        while b"\n" not in self._buffer:
            # What the child started may hold the pipe open when the child itself is gone, so its end is asked for.
            exited = self._has_exited()
            if self._is_readable(0.0 if exited else min(_LOOK, deadline - time.monotonic())):
                chunk = os.read(self._events, 65_536)
                if not chunk:
                    raise self._died(stage)
                self._buffer += chunk
            elif exited:
                raise self._died(stage)
            elif time.monotonic() >= deadline:
                self.end()
                raise self._failure(
                    f"the {self.role} process did not {stage} within {timeout:g} s, and was ended\n{self._shown_log()}",
                    hint="raise `timeouts` in the spec, or find out why the model is that slow",
                )
            if len(self._buffer) > _MAX_EVENT_BYTES:
                self.end()
                raise self._failure(
                    f"the {self.role} process broke its protocol while it should {stage}: "
                    f"it reports more than {_MAX_EVENT_BYTES:,} bytes at once",
                    hint="code in the model interferes with the process that loads it; do not trust this file",
                )
        line, self._buffer = self._buffer.split(b"\n", 1)
        return line

    def _is_readable(self, seconds: float) -> bool:
        poll = select.poll()  # select() takes no descriptor above 1023
        poll.register(self._events, select.POLLIN)
        return bool(poll.poll(max(0.0, seconds) * 1000))

    def _has_exited(self) -> bool:
        """Whether the child is a zombie; it stays one, so that its id stays taken until `end`."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

    def _died(self, stage: str) -> SlipwayError:
        deadline = time.monotonic() + _GRACE
        while not (exited := self._has_exited()) and time.monotonic() < deadline:
            time.sleep(0.01)
        self.end()
        code = self._process.returncode
        if not exited:
            how, hint = "stopped reporting", "code in the model interferes with the process that loads it"
        elif code < 0:
            how = f"was killed by {_signal_name(-code)}"
            hint = (
                "the kernel's out-of-memory killer sends SIGKILL: see dmesg, and give the run more memory"
                if -code == signal.SIGKILL
                else "native code crashed: look for a custom op or a broken file"
            )
        else:
            how, hint = f"ended with status {code}", "code in the model may have ended it"
        return self._failure(f"the {self.role} process {how} while it should {stage}\n{self._shown_log()}", hint=hint)

    def _shown_log(self) -> str:
        return f"last lines of its log:\n{self._log.text() or '(empty)'}"


def _shown(text: str) -> str:
    """What a child says, as it may be shown."""
    return printable(text[:_MESSAGE])


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
