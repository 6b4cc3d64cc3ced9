"""The directory that an agent fills and a server reads.

models.config                              the one channel to the server, replaced whole
models/<model>/<version>/...               a payload; its name is a number only once all of it is verified and on disk
models/<model>/.incoming-<version>-<hex>/  on its way in; a server ignores the name
models/<model>/.leaving-<version>-<hex>/   on its way out
.slipway/lock                              held by the one agent that fills the directory
.slipway/agent.json                        what the agent remembers
.slipway/versions/<model>/<version>.json   which variant lies there, so that a restart verifies it without the registry
"""

from __future__ import annotations

import logging
import os
import secrets
import stat
from contextlib import suppress
from functools import partial
from pathlib import Path

from model_registry.errors import ConflictError, FormatError, InvalidInputError, StorageError
from model_registry.paths import check_model_name
from model_registry.payload import hash_files, walk_files
from model_registry.servable import Variant
from model_registry.serving.owned_directory import ANYBODY_READS, OwnedDirectory, is_temporary, translated
from model_registry.serving.sync.version_notes import NOTES, VersionNotes
from model_registry.storage.durable import prepare_tree, remove_directory
from model_registry.storage.local_links import is_linked

MODELS = "models"
CONFIG = "models.config"

_OWN = ".slipway"
MEMORY = f"{_OWN}/agent.json"
_LOCK = f"{_OWN}/lock"
_INCOMING, _LEAVING = ".incoming-", ".leaving-"

log = logging.getLogger("slipway")


class ServingDirectory:
    """The directory. Methods raise StorageError where the disk fails, or a symbolic link lies in the way.

    Attributes:
        problems: Why a model could not be looked at by the last `here`, by its name.
    """

    def __init__(self, root: Path) -> None:
        """Makes the directory where it is missing, and locks it.

        Args:
            root: Its path.

        Raises:
            ConflictError: If another agent has it.
        """
        self._place = OwnedDirectory(root)
        self.root = self._place.root
        self.problems: dict[str, str] = {}
        self._notes = VersionNotes(self._place, MODELS)
        for name in (MODELS, _OWN, NOTES):
            self._place.make(name)
        self._lock: int | None = self._place.lock(_LOCK)

    def close(self) -> None:
        """Lets another agent have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def clear(self) -> None:
        """Removes what an agent that ended early left half-done: nobody else works here.

        What cannot be removed stays, with a warning: it takes room, and stands in nobody's way.
        """
        for model in self._place.folders(MODELS):
            self._place.clear(f"{MODELS}/{model}", lambda name: name.startswith((_INCOMING, _LEAVING)))
        for folder in ("", _OWN, *(f"{NOTES}/{model}" for model in self._place.folders(NOTES))):
            self._place.clear(folder, is_temporary)
        self._forget_what_is_gone()

    def path(self, model: str, version: int) -> Path:
        """Where a version lies, or will."""
        return self.root / MODELS / check_model_name(model) / str(version)

    def here(self) -> dict[str, dict[int, Variant]]:
        """The versions that lie here whole, as far as their files' names and sizes tell, by model.

        One that cannot be looked at, such as a link that somebody planted, holds up no other: see `problems`.
        """
        found: dict[str, dict[int, Variant]] = {}
        problems: dict[str, str] = {}
        models = {*self._place.folders(NOTES), *self._place.links(NOTES), *self._place.links(MODELS)}
        for model in sorted(models):
            try:
                if versions := self._versions(model):
                    found[model] = versions
            except StorageError as error:
                problems[model] = str(error)
                if self.problems.get(model) != str(error):
                    log.warning("%s: %s", model, error)
            except InvalidInputError:  # no name of a model: it is nobody's
                continue
        self.problems = problems
        return found

    def variant(self, model: str, version: int) -> Variant | None:
        """The variant that lies under a version's number, or None where it does not lie there whole."""
        try:
            variant = self._notes.read(model, version)
        except StorageError:
            return None
        return variant if variant and self._looks_whole(self.path(model, version), variant) else None

    def verify(self, model: str, version: int, variant: Variant) -> bool:
        """Whether exactly the files of a variant lie under a version's number; reads every byte."""
        directory = self.path(model, version)
        try:
            if is_linked(self.root, f"{MODELS}/{model}/{version}"):
                return False
            names = sorted(walk_files(directory))
            expected = {file.path: file for file in variant.files}
            return names == sorted(expected) and {*hash_files(directory, names)} == {*expected.values()}
        except (InvalidInputError, StorageError):  # gone, a link, or a file that cannot be read
            return False

    def occupied(self, model: str, version: int) -> bool:
        """Whether anything at all has a version's name."""
        return os.path.lexists(self.path(model, version))

    def require_own(self, model: str) -> None:
        """Refuses a model whose directories are links, or lie beyond one."""
        for folder in (MODELS, NOTES):
            self._place.refuse_link(f"{folder}/{check_model_name(model)}")

    def is_own(self, model: str, version: int) -> bool:
        """Whether an agent put there what has a version's name."""
        return self._notes.read(model, version) is not None

    def incoming(self, model: str, version: int) -> Path:
        """Makes a directory for a version on its way here."""
        check_model_name(model)
        self._place.make(f"{MODELS}/{model}")
        return self._place.make(f"{MODELS}/{model}/{_INCOMING}{version}-{secrets.token_hex(4)}")

    def commit(self, incoming: Path, model: str, version: int, variant: Variant) -> None:
        """Gives a verified directory its number, once everything in it is on the disk.

        Raises:
            ConflictError: If something has the number.
        """
        target = self.path(model, version)
        with translated(target):
            prepare_tree(incoming, ANYBODY_READS)
        if os.path.lexists(target):
            raise ConflictError(
                f"{target} is there already, and this agent did not put it there",
                hint="see what it is, and remove it: the agent brings what the registry has",
            )
        self.note(model, version, variant)  # before the rename: a number without a note would be a stranger's
        self._place.move(f"{MODELS}/{model}/{incoming.name}", f"{MODELS}/{model}/{version}")

    def abandon(self, incoming: Path) -> None:
        """Removes what was on its way here, as far as the disk lets us."""
        with suppress(StorageError):
            self._place.remove(str(incoming.relative_to(self.root)))

    def take_over(self, model: str, version: int, variant: Variant) -> None:
        """Makes a verified directory that has its number already, from before the notes were lost, as ours are."""
        path = self.path(model, version)
        with translated(path):
            prepare_tree(path, ANYBODY_READS)
        self.note(model, version, variant)

    def note(self, model: str, version: int, variant: Variant) -> None:
        """Notes which variant lies under a version's number, or will in a moment."""
        self._notes.write(model, version, variant)

    def discard(self, model: str, version: int) -> None:
        """Removes a version. Its number goes first, by a rename: a server never sees half of it."""
        number = f"{MODELS}/{check_model_name(model)}/{version}"
        if os.path.lexists(self.root / number):
            self._place.move(number, f"{MODELS}/{model}/{_LEAVING}{version}-{secrets.token_hex(4)}")
        self._notes.remove(model, version)
        self.remove_leaving(model, version)

    def remove_leaving(self, model: str, version: int) -> None:
        """Removes what is left of a version that was discarded, and could not be removed whole."""
        for name in self._place.children(f"{MODELS}/{model}"):
            if name.startswith(f"{_LEAVING}{version}-"):
                self._place.remove(f"{MODELS}/{model}/{name}")

    def free(self) -> int:
        """Bytes that an ordinary user may still write."""
        with translated(self.root):
            found = os.statvfs(self.root)
            return found.f_bavail * found.f_frsize

    def arrived(self, model: str) -> int:
        """Bytes that lie in a model's directories on their way in."""
        total, names = 0, list[str]()
        with suppress(StorageError):  # then nothing arrives there any more
            names = self._place.folders(f"{MODELS}/{model}")
        for name in names:
            if name.startswith(_INCOMING):
                for folder, _, files in os.walk(self.root / MODELS / model / name):
                    for file in files:
                        with suppress(OSError):
                            total += os.lstat(f"{folder}/{file}").st_blocks * 512
        return total

    def config(self) -> str | None:
        """The text of models.config, or None where there is none."""
        data = self._place.read(CONFIG)
        try:
            return data.decode() if data is not None else None
        except UnicodeDecodeError:
            raise FormatError(
                f"{self.root / CONFIG} is not as slipway sync writes it: it is no UTF-8",
                hint="the agent owns this file; remove it",
            ) from None

    def write_config(self, text: str) -> None:
        """Replaces models.config whole."""
        self._place.replace(CONFIG, text.encode())

    def memory(self) -> bytes | None:
        """What was remembered, or None."""
        return self._place.read(MEMORY)

    def write_memory(self, data: bytes) -> None:
        """Replaces what is remembered."""
        self._place.replace(MEMORY, data)

    def _forget_what_is_gone(self) -> None:
        """Removes notes of versions that are not here, and directories of models that have none."""
        linked = {*self._place.links(MODELS)}
        for model in self._place.folders(NOTES):
            if model not in linked:
                self._place.clear(f"{NOTES}/{model}", partial(self._is_left, model))
        for folder in (MODELS, NOTES):
            for model in self._place.folders(folder):
                remove_directory(self.root / folder / model)

    def _is_left(self, model: str, note: str) -> bool:
        return not os.path.lexists(self.root / MODELS / model / note.removesuffix(".json"))

    def _versions(self, model: str) -> dict[int, Variant]:
        """The versions of one model that lie here whole.

        Raises:
            StorageError: If it cannot be told which do.
        """
        self.require_own(model)
        found = {version: self._notes.read(model, version) for version in self._notes.numbers(model)}
        return {
            version: variant
            for version, variant in found.items()
            if variant and self._looks_whole(self.path(model, version), variant)
        }

    def _looks_whole(self, directory: Path, variant: Variant) -> bool:
        try:
            for path in (directory.parent, directory):
                if not stat.S_ISDIR(path.lstat().st_mode):
                    return False
            for file in variant.files:
                found = os.lstat(f"{directory}/{file.path}")
                if not stat.S_ISREG(found.st_mode) or found.st_size != file.bytes:
                    return False
        except OSError:
            return False
        return bool(variant.files)
