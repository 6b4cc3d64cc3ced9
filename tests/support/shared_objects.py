"""Shared libraries for x86-64 Linux, written without a compiler: each of their functions returns one number."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

_HEADER, _PROGRAM, _SYMBOL, _DYNAMIC = "<16sHHIQQQIHHHHHH", "<IIQQQQQQ", "<IBBHQQ", "<QQ"
_LOAD, _DYNAMIC_SEGMENT, _STACK = 1, 2, 0x6474E551
_HASH, _STRTAB, _SYMTAB, _STRSZ, _SYMENT, _END = 4, 5, 6, 10, 11, 0


def write_library(path: Path, functions: Mapping[str, int]) -> None:
    """Writes a library that the dynamic loader takes (ELF-64, see elf(5)).

    Args:
        path: Where.
        functions: What each function returns, by its name.
    """
    names, offsets, code = b"\0", [], b""
    for name, number in functions.items():
        offsets.append((len(names), len(code)))
        names += name.encode() + b"\0"
        code += b"\xb8" + struct.pack("<I", number) + b"\xc3"  # mov eax, number; ret
    count = len(functions) + 1
    # One bucket: the loader walks the chain through all symbols.
    chain = [*range(2, count), 0] if functions else []
    hashes = struct.pack(f"<{3 + count}I", 1, count, 1 if functions else 0, 0, *chain)

    start = struct.calcsize(_HEADER) + 3 * struct.calcsize(_PROGRAM)
    symbols_at = start
    hashes_at = symbols_at + count * struct.calcsize(_SYMBOL)
    names_at = hashes_at + len(hashes)
    code_at = names_at + len(names)
    dynamic_at = -(-(code_at + len(code)) // 8) * 8

    symbols = struct.pack(_SYMBOL, 0, 0, 0, 0, 0, 0)
    for name_at, entry in offsets:
        symbols += struct.pack(_SYMBOL, name_at, 0x12, 0, 1, code_at + entry, 6)  # a global function
    entries = [
        (_HASH, hashes_at),
        (_STRTAB, names_at),
        (_SYMTAB, symbols_at),
        (_STRSZ, len(names)),
        (_SYMENT, struct.calcsize(_SYMBOL)),
        (_END, 0),
    ]
    dynamic = b"".join(struct.pack(_DYNAMIC, *entry) for entry in entries)
    end = dynamic_at + len(dynamic)
    identity = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    shared, x86_64, executable = 3, 62, 7
    header = struct.pack(_HEADER, identity, shared, x86_64, 1, 0, 64, 0, 0, 64, 56, 3, 64, 0, 0)
    programs = (
        struct.pack(_PROGRAM, _LOAD, executable, 0, 0, 0, end, end, 4096)
        + struct.pack(_PROGRAM, _DYNAMIC_SEGMENT, 6, dynamic_at, dynamic_at, dynamic_at, len(dynamic), len(dynamic), 8)
        + struct.pack(_PROGRAM, _STACK, 6, 0, 0, 0, 0, 0, 16)
    )
    body = header + programs + symbols + hashes + names + code
    path.write_bytes(body.ljust(dynamic_at, b"\0") + dynamic)
