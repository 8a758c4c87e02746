"""`affect`: errors a user can mend become one message and exit code 1, an interrupt or SIGTERM 130."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import typer

from affect.engine.cli import (
    bench,
    crossval,
    datasets,
    demo,
    draw,
    evaluating,
    mouse,
    prototypes,
    report,
    running,
    softlabels,
    stats,
    sweep,
    tables,
    training,
)
from affect.engine.system.log import say
from affect.shards.errors import InputError

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Read faces: pack pictures, train, evaluate, export, run.",
)  # fmt: skip
for module in (
    demo,
    draw,
    datasets,
    stats,
    training,
    evaluating,
    softlabels,
    prototypes,
    sweep,
    crossval,
    tables,
    mouse,
    report,
    running,
    bench,
):
    module.register(app)

INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__  # of click, or of the copy that newer releases of typer carry


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what a Ctrl-C keeps, a scheduler's end keeps too
    try:
        code = app(standalone_mode=False) or 0
        if code == INTERRUPTED:  # typer turns an interrupt into this code, without a word
            raise KeyboardInterrupt
        sys.exit(code)
    except InputError as error:
        say(f"error: {error}")
        sys.exit(1)
    except (typer.Abort, KeyboardInterrupt):
        say("interrupted; everything finished so far is kept")
        sys.exit(INTERRUPTED)
    except UsageError as error:
        error.show()
        sys.exit(2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
