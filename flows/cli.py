"""The `slipway` command: parses, calls, prints.

Every import that takes time stands inside the command that needs it: `slipway --help` and
`slipway list` answer at once, without TensorFlow or Prefect.
"""

from __future__ import annotations

import click

from flows.cli_convert import convert
from flows.cli_doctor import doctor
from flows.cli_gateway import gateway
from flows.cli_gc import gc
from flows.cli_history import history
from flows.cli_labels import promote, retire, rollback, unlabel
from flows.cli_package import package
from flows.cli_predict import predict
from flows.cli_registry import list_, show
from flows.cli_render import render
from flows.cli_rollout import rollout
from flows.cli_sync import sync
from flows.cli_verify import verify
from model_registry import __version__


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="slipway")
def main() -> None:
    """From a trained Keras model to a servable that TensorFlow Serving loads.

    A model is named `digits`, `digits:3` or `digits@stable`. S3 is set up by the AWS_* variables
    and files that every AWS tool reads.

    Exit codes: 0 done, 1 error, 2 usage, 3 rejected by a check, 4 somebody else was first.
    """


main.add_command(package)
main.add_command(convert)
main.add_command(list_)
main.add_command(show)
main.add_command(history)
main.add_command(verify)
main.add_command(promote)
main.add_command(rollback)
main.add_command(unlabel)
main.add_command(retire)
main.add_command(rollout)
main.add_command(gc)
main.add_command(sync)
main.add_command(gateway)
main.add_command(render)
main.add_command(predict)
main.add_command(doctor)
