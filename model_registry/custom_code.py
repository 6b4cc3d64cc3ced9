"""The digest of the modules that a model's custom objects come from. Nothing is imported to find them."""

from __future__ import annotations

import hashlib
import keyword
import os
import sys
from collections.abc import Iterator, Sequence
from importlib.machinery import PathFinder
from pathlib import Path

from model_registry.errors import InvalidInputError


def custom_code_digest(modules: Sequence[str], directory: Path) -> str | None:
    """SHA-256 over the files of the named modules.

    A module is its file; a module inside a package is the whole package, since importing it runs
    the package's own code too. What the modules import in turn is not followed.

    Args:
        modules: Names as `import` takes them.
        directory: Where they are looked for first; sys.path follows.

    Returns:
        Lower-case hexadecimal over the sorted lines `sha256  path`, or None for no modules.

    Raises:
        InvalidInputError: If a name is none, or there is no such module made of files.
    """
    if not modules:
        return None
    lines = {f"{_digest(file)}  {path}\n" for module in modules for path, file in _files(module, directory)}
    return hashlib.sha256("".join(sorted(lines)).encode(errors="surrogateescape")).hexdigest()


def _files(module: str, directory: Path) -> Iterator[tuple[str, Path]]:
    """The files of a module's outermost package: their paths from where it is imported, and where they lie."""
    parts = module.split(".")
    if not all(part.isidentifier() and not keyword.iskeyword(part) for part in parts):
        raise InvalidInputError(f"expected a module as `import` names it, like 'my_layers', found {module!r}")
    places = [str(directory), *sys.path]
    PathFinder.invalidate_caches()
    looked_in = places
    for depth, part in enumerate(parts):
        # Each part by its own name alone: given a dotted one, the finder wants the parent imported.
        spec = PathFinder.find_spec(part, places)
        if spec is None or (depth < len(parts) - 1 and spec.submodule_search_locations is None):
            raise InvalidInputError(
                f"there is no module {module!r}: no {part!r} in {', '.join(place or '.' for place in places)}"
                if spec is None
                else f"there is no module {module!r}: {part!r} is a module and no package",
                hint="`custom_objects` names modules beside the package.yaml, or installed ones",
            )
        if depth == 0:
            top, looked_in = spec, places
        places = list(spec.submodule_search_locations or ())
    if top.submodule_search_locations is not None:
        for location in top.submodule_search_locations:
            for file in _tree(Path(location)):
                yield f"{parts[0]}/{file.relative_to(location).as_posix()}", file
        return
    file = Path(top.origin or "")
    if not top.origin or not file.is_file():
        raise InvalidInputError(
            f"the module {module!r} is no file: found {top.origin or 'no origin'} in {len(looked_in)} places",
            hint="`custom_objects` names modules that are files; unpack a zipped one",
        )
    yield file.name, file


def _tree(top: Path) -> Iterator[Path]:
    for folder, directories, files in os.walk(top):
        for name in directories:
            if (Path(folder) / name).is_symlink():
                raise InvalidInputError(
                    f"the package {str(top)!r} holds a link to a directory, {name!r}: its code would go unseen",
                    hint="copy the directory into the package",
                )
        # Compiled anew at will, so no part of what the code is.
        directories[:] = sorted(set(directories) - {"__pycache__"})
        yield from (Path(folder) / name for name in sorted(files))


def _digest(file: Path) -> str:
    try:
        return hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidInputError(f"the code {str(file)!r} cannot be read: {error.strerror or error}") from None
