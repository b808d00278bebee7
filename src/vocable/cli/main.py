"""The console command: verbs, and one place where errors become a line and an exit code.

Exit codes: 0 done; 2 anything the user can mend; 130 Ctrl-C; 143 SIGTERM. Nothing here imports torch: `--help` must be
there at once.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import warnings
from types import FrameType

import typer

from vocable import __version__
from vocable.cli import (
    convert,
    decode,
    encode,
    evaluate,
    export,
    info,
    listen,
    official,
    page,
    prepare,
    reconstruct,
    semantic,
    serve,
    stream,
    tokenize,
    train,
    tts,
    verify,
)
from vocable.cli.messages import complain, one_line, out_of_memory

app = typer.Typer(
    name="vocable",
    help="Speech as tokens: encode speech to codes, decode codes to speech, convert voices, speak text, train.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command()(encode.encode)
app.command()(decode.decode)
app.command()(reconstruct.reconstruct)
app.command()(tokenize.tokenize)
app.command()(verify.verify)
app.command()(convert.convert)
app.command()(tts.tts)
app.command()(serve.serve)
app.command()(page.page)
app.command()(info.info)
app.command()(official.import_official)
app.command()(official.export_official)
app.add_typer(stream.app, name="stream")
app.add_typer(train.app, name="train")
app.add_typer(prepare.app, name="prepare")
app.add_typer(semantic.app, name="semantic")
app.add_typer(evaluate.app, name="eval")
app.add_typer(listen.app, name="listen")
app.add_typer(export.app, name="export")


def _show_version(value: bool) -> None:
    if value:
        typer.echo(f"vocable {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_show_version, is_eager=True, help="Print the version."),
) -> None:
    pass


def main(arguments: list[str] | None = None) -> None:
    """Run the command and exit with its code; `arguments` default to the process's own."""
    stop = _Stop()
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    warnings.showwarning = _show_warning  # type: ignore[assignment]
    try:
        app(arguments)
    except (ValueError, ImportError, OSError, MemoryError) as error:
        complain(one_line(error))
        sys.exit(2)
    except RuntimeError as error:
        if type(error).__name__ == "OutOfMemoryError":  # torch's, which is not imported here
            complain(
                "out of memory on the GPU: smaller batches; in training, lower data.batch_size or raise accumulate"
            )
        elif out_of_memory(error):
            complain(one_line(error))
        else:
            raise
        sys.exit(2)


class _Stop:
    """What Ctrl-C and SIGTERM do: end the command by an exception, so that temporary files are removed on the way out.

    A second one within moments was meant as the same; one after that ends a clean-up that hangs.
    """

    _PATIENCE = 3.0  #: seconds

    def __init__(self) -> None:
        self.begun: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.begun is None:
            self.begun = time.monotonic()
            complain("interrupted" if number == signal.SIGINT else "terminated")
            if _imports_torch(frame):  # its C++ code aborts the process at an exception; nothing has been written yet
                os._exit(128 + number)
            sys.exit(128 + number)
        if time.monotonic() - self.begun > self._PATIENCE:
            os._exit(128 + number)


def _imports_torch(frame: FrameType | None) -> bool:
    """Return whether the import of torch is among the callers of `frame`."""
    while frame is not None:
        if frame.f_code.co_name == "<module>" and str(frame.f_globals.get("__name__")).split(".")[0] == "torch":
            return True
        frame = frame.f_back
    return False


def _show_warning(message: Warning | str, *_: object) -> None:
    complain(f"warning: {message}")


if __name__ == "__main__":
    main()
