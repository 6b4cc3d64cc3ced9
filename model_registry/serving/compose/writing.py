"""How words, files and mounts are written so that Compose takes them for what they are. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from textwrap import indent

# No container opens a port below 1024, or needs a capability to write where it does.
CONFINED = """\
cap_drop: [ALL]
security_opt: ["no-new-privileges:true"]
logging: {driver: local}  # rotates by itself
"""


def quoted(text: str) -> str:
    """A double-quoted scalar of YAML, as which JSON's strings are read; Compose takes `$$` for a dollar sign."""
    return json.dumps(text).replace("$", "$$")


def listed(words: Sequence[str], *, by: int = 6) -> str:
    """The words of a command, one a line."""
    return "\n".join(f"{' ' * by}- {quoted(word)}" for word in words)


def mount(source: str, target: str, what: str) -> str:
    """A file or directory of the machine that a container may read."""
    return (
        f"  - type: bind  # {what}\n    source: {quoted(source)}\n    target: {target}\n    read_only: true\n"
        "    bind: {create_host_path: false}\n"
    )


def config(name: str, content: str) -> str:
    """A file inside the file."""
    return f"{name}:\n  content: |\n{indent(content.replace('$', '$$'), '    ')}"


def asking(port: int, path: str) -> str:
    """What tells in bash whether a port answers; the images of servers have no program that speaks HTTP."""
    return (
        f"exec 3<>/dev/tcp/127.0.0.1/{port} && "
        f"printf 'GET {path} HTTP/1.1\\r\\nHost: localhost\\r\\nConnection: close\\r\\n\\r\\n' >&3 && "
        'read -r -t 5 status <&3 && [[ "$status" == *" 200 "* ]]'
    )
