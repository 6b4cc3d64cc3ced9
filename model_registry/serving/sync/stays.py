"""How a version fares in the config, from when it is added until it is loaded, or has failed. Pure.

The server reads the file at its own time, so its word about a version may be about an earlier stay of that version,
or about a failure before. What tells one from the other:

- A failed version stays END, with its error, for as long as the server lives. So END with an error counts once
  anything else was seen since the version was added, or once the server had the time to begin.
- It is tried again only if the server has polled a file without it meanwhile.
- A version that was taken out and is added again may be AVAILABLE still, and leave a moment later. It is certain that
  it stays when it was not in the server as it was added, and not in the config for a while before; or once the server
  had the time to begin with the removal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from model_registry.serving.sync.sync_state import Progress, Settings, Stay
from model_registry.serving.version_status import VersionStatus

NOT_TAKEN_UP = "the server has not taken up models.config: is --model_config_file_poll_wait_seconds set?"


def in_server(status: VersionStatus | None) -> bool:
    """Whether the server has the version, in whatever state."""
    return status is not None and status.state != "END"


def is_available(status: VersionStatus | None) -> bool:
    """Whether the server answers with the version."""
    return status is not None and status.state == "AVAILABLE"


def observe(
    listed: Iterable[int], progress: Progress, server: Mapping[int, VersionStatus], now: float, settings: Settings
) -> dict[int, Stay]:
    """The stays of the versions that the config lists, after one more look at the server."""
    stays = {}
    for version in listed:
        stay = progress.stays.get(version) or restart(now, settings)
        status = server.get(version)
        lacking = None if is_available(status) else now if stay.lacking is None else stay.lacking
        absent = None if in_server(status) else now if stay.absent is None else stay.absent
        stays[version] = replace(stay, stirred=stay.stirred or in_server(status), lacking=lacking, absent=absent)
    return stays


def restart(now: float, settings: Settings) -> Stay:
    """The stay of a version that was in the config already, and of which nothing else is known."""
    return Stay(since=now, certain=now + settings.settle, lacking=now)


def begin(version: int, progress: Progress, status: VersionStatus | None, now: float, settings: Settings) -> Stay:
    """The stay of a version that is added now."""
    clean = not in_server(status) and _has_been_out(version, progress, now, settings)
    return Stay(since=now, certain=now if clean else now + settings.settle, lacking=now)


def may_begin(version: int, progress: Progress, status: VersionStatus | None, now: float, settings: Settings) -> bool:
    """Whether the server would try the version: one that failed in it only after a poll without it."""
    failed = status is not None and status.state == "END" and bool(status.error)
    return not failed or _has_been_out(version, progress, now, settings)


def failure(stay: Stay, status: VersionStatus | None, now: float, settings: Settings) -> str:
    """Why a version counts as failed; empty if it does not."""
    waited = now - stay.since
    if status is not None and status.state == "END" and status.error and (stay.stirred or waited >= settings.settle):
        return status.error
    if stay.lacking is not None and now - stay.lacking >= settings.load_timeout:
        return f"not loaded within {settings.load_timeout:g} s" if in_server(status) else NOT_TAKEN_UP
    return ""


def is_lost(stay: Stay, now: float, settings: Settings) -> bool:
    """Whether the server does not have a version, and is not about to, that a label names."""
    gone = stay.absent is not None and now - stay.absent >= settings.settle
    return gone or (stay.lacking is not None and now - stay.lacking >= settings.load_timeout)


def _has_been_out(version: int, progress: Progress, now: float, settings: Settings) -> bool:
    """Whether the version has been out of the config for long enough. A restarted agent does not know since when."""
    began = now if progress.began is None else progress.began
    return now - progress.left.get(version, began) >= settings.settle
