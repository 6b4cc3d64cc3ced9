"""The program: `python -m tests.support.model_server --model_config_file=... --port=... --rest_api_port=...`."""

from __future__ import annotations

import os
import sys
import threading

from tests.support.model_server.flags import UsageError, parse

_FAILED = 255


def main() -> int:
    """Runs until a signal ends the process, which is then as abrupt as with the real server."""
    try:
        flags = parse(sys.argv[1:])
    except UsageError as error:
        sys.stdout.write(f"{error}\nusage: tensorflow_model_server\n")
        return _FAILED
    from tests.support.model_server.errors import ServingError
    from tests.support.model_server.server import ModelServer

    try:
        ModelServer(flags).start()
    except ServingError as error:
        sys.stdout.write(f"Failed to start server. Error: {error}\n")
        return _FAILED
    threading.Event().wait()
    return 0


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # Loads and polls may be under way in threads; the real process does not wait for them either.
    os._exit(code)
