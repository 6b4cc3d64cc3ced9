"""A directory that one process fills and others read: durable writes, whole files, no symbolic link ever followed.

Others may run as other users: directories have mode 0755 and files 0644, whatever the umask. Only the root itself may
be a symbolic link.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from model_registry.errors import ConflictError, StorageError
from model_registry.storage.durable import rename, sync_directory, temporary_name, write_durably
from model_registry.storage.durable import translated as in_our_words
from model_registry.storage.local_links import is_linked, refuse_links

ANYBODY_READS = 0o755

_TEMPORARY = re.compile(r"\.slipway-[0-9a-f]{16}\.tmp")

log = logging.getLogger("slipway")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Turns the system's errors into ours; what they advise is for a registry."""
    try:
        with in_our_words(path):
            yield
    except StorageError as error:
        if isinstance(error.__cause__, OSError):
            error.hint = "see the disk there, and who may write to it"
        raise


def is_full(error: StorageError) -> bool:
    """Whether it failed for want of room."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)


def is_temporary(name: str) -> bool:
    """Whether a file has the name of one that was to be moved into another's place."""
    return _TEMPORARY.fullmatch(name) is not None


class OwnedDirectory:
    """The directory. Names are relative to it. Methods raise StorageError where the disk fails, or a link is met."""

    def __init__(self, root: Path) -> None:
        """Touches nothing yet.

        Args:
            root: Its path.
        """
        self.root = root.absolute()

    def children(self, folder: str) -> list[str]:
        """The names in a directory, sorted; none where it is no directory."""
        path = self.root / folder
        self._refuse_links(f"{folder}/x".lstrip("/"))
        with translated(path):
            try:
                return sorted(entry.name for entry in path.iterdir())
            except (FileNotFoundError, NotADirectoryError):
                return []

    def folders(self, folder: str) -> list[str]:
        """The names of the directories in a directory, sorted. A link to one is none."""
        return [name for name in self.children(folder) if self._mode(f"{folder}/{name}", stat.S_ISDIR)]

    def links(self, folder: str) -> list[str]:
        """The names of the symbolic links in a directory, sorted."""
        return [name for name in self.children(folder) if self._mode(f"{folder}/{name}", stat.S_ISLNK)]

    def make(self, folder: str) -> Path:
        """Makes a directory and its parents."""
        path = self.root / folder
        self._refuse_links(f"{folder}/x")
        with translated(path):
            made = [above for above in (path, *path.parents) if not above.exists()]
            path.mkdir(parents=True, exist_ok=True)
            for above in made:
                above.chmod(ANYBODY_READS)
                sync_directory(above.parent)
        return path

    def read(self, name: str) -> bytes | None:
        """A file's content, or None where there is none."""
        self._refuse_links(f"{name}/x")
        with translated(self.root / name):
            try:
                return (self.root / name).read_bytes()
            except FileNotFoundError:
                return None

    def replace(self, name: str, data: bytes) -> None:
        """Writes a file: readers see the old one or the new, and a loss of power leaves either."""
        path = self.root / name
        self._refuse_links(name)
        with translated(path):
            temporary = path.with_name(temporary_name())
            try:
                write_durably(temporary, data)
                temporary.chmod(0o644)
                rename(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)
            sync_directory(path.parent)

    def move(self, name: str, to: str) -> None:
        """Gives a file or a directory another name in the same place."""
        self._refuse_links(name)
        with translated(self.root / name):
            rename(self.root / name, self.root / to)
            sync_directory((self.root / to).parent)

    def remove(self, name: str) -> None:
        """Removes a file, a link or a whole tree, if it is there."""
        path = self.root / name
        self._refuse_links(name)
        with translated(path):
            if path.is_symlink() or not path.is_dir():
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path)  # which follows no link on its way down

    def clear(self, folder: str, is_left: Callable[[str], bool]) -> None:
        """Removes what an agent that ended early left in a directory, as far as the disk lets us.

        What cannot be removed stays, with a warning: it takes room, and stands in nobody's way.

        Args:
            folder: The directory.
            is_left: Tells by its name whether something was left.
        """
        try:
            names = [name for name in self.children(folder) if is_left(name)]
        except StorageError as error:
            log.warning("%s cannot be cleared: %s", self.root / folder, error)
            return
        for name in names:
            try:
                self.remove(f"{folder}/{name}".lstrip("/"))
            except StorageError as error:
                log.warning("%s was left by an earlier agent, and stays: %s", self.root / folder / name, error)

    def lock(self, name: str) -> int:
        """Takes a lock that the kernel frees when this process ends; returns the descriptor that holds it.

        Raises:
            ConflictError: If another process has it.
        """
        path = self.root / name
        self._refuse_links(f"{name}/x")
        with translated(path):
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                raise ConflictError(
                    f"another agent fills {self.root} already", hint="one agent for each directory; end the other first"
                ) from None
            except BaseException:
                os.close(descriptor)
                raise
        return descriptor

    def refuse_link(self, name: str) -> None:
        """Refuses a name that is a link, or lies beyond one.

        Raises:
            StorageError: If it does.
        """
        if is_linked(self.root, name):
            raise StorageError(
                f"{self.root / name} is left alone: it is a symbolic link, or lies beyond one",
                hint="replace the link by what it leads to, or remove it",
            )

    def _mode(self, name: str, kind: Callable[[int], bool]) -> bool:
        with translated(self.root / name):
            try:
                return kind((self.root / name).lstat().st_mode)
            except FileNotFoundError:  # it went in this moment
                return False

    def _refuse_links(self, name: str) -> None:
        refuse_links(self.root, name)
