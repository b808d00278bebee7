"""The command `vocable serve`."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from vocable.serve import Settings

CHECK_SECONDS = 0.1  #: between two checks whether the server has started
LARGEST_MESSAGE = 2**20  #: bytes of a message of a WebSocket


def serve(
    host: str = typer.Option("127.0.0.1", help="The address to listen at; 0.0.0.0 for all of this machine."),
    port: int = typer.Option(8000, min=0, max=65535, help="The port to listen at; 0 for any that is free."),
    model: str = typer.Option(
        None, "-m", "--model", help="The codec: a folder, a hub id or encodec:ID (default: the embedded one)."
    ),
    models: str = typer.Option(
        None, help="Language models: RUN/model of `vocable train lm`, or a hub id (default: the shipped ones)."
    ),
    voices: Path = typer.Option(None, help="A folder of prepared voices; without it none can be created."),
    device: str = typer.Option("cpu", help="The device to run on: cpu, cuda, ..."),
    api_key: str = typer.Option(
        None, envvar="VOCABLE_API_KEY", show_envvar=True, help="The key that clients must send."
    ),
    no_auth: bool = typer.Option(False, "--no-auth", help="Serve other machines without a key."),
    page: bool = typer.Option(True, help="Serve the browser page at /."),
    workers: int = typer.Option(1, min=1, help="Processes, each with its own models."),
    threads: int = typer.Option(1, min=1, help="torch threads of each worker."),
    max_bytes: int = typer.Option(25 * 2**20, min=1, help="Bytes of a request."),
    max_seconds: float = typer.Option(300.0, min=1.0, help="Seconds of a recording."),
    max_characters: int = typer.Option(4096, min=1, help="Characters of a text."),
    max_takes: int = typer.Option(16, min=1, help="Versions written of each sentence."),
    max_waiting: int = typer.Option(64, min=1, help="Requests that wait for a worker; the next one is refused."),
    max_streams: int = typer.Option(16, min=1, help="Streams of /v1/audio/codec at once."),
    max_stream_seconds: float = typer.Option(3600.0, min=1.0, help="Seconds of speech of a stream."),
    stream_idle: float = typer.Option(30.0, min=0.1, help="Seconds that a stream waits for its client."),
    grace: float = typer.Option(30.0, min=0.0, help="Seconds that running requests have to finish after SIGTERM."),
) -> None:
    """Serve speech, voice conversion and the codec over HTTP."""
    from vocable.serve import Limits, Settings

    settings = Settings(
        host=host,
        port=port,
        model=model,
        models=models,
        voices=voices,
        device=device,
        api_key=api_key,
        no_auth=no_auth,
        page=page,
        workers=workers,
        threads=threads,
        grace=grace,
        limits=Limits(
            bytes=max_bytes,
            seconds=max_seconds,
            characters=max_characters,
            takes=max_takes,
            waiting=max_waiting,
            streams=max_streams,
            stream_seconds=max_stream_seconds,
            stream_idle=stream_idle,
        ),
    )
    run(settings)


def run(settings: Settings, *, started: Callable[[str], object] = lambda url: None) -> None:
    """Run the service until a signal ends it. started: is called in a thread, with the URL, when it listens.

    Raises ValueError if the models cannot be loaded, typer.Exit if the server cannot start.
    """
    from vocable.extras import need
    from vocable.serve import create_app

    uvicorn = need("uvicorn", "serve")
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        timeout_graceful_shutdown=max(1, round(settings.grace)),
        ws="websockets-sansio",
        ws_max_size=LARGEST_MESSAGE,
        ws_per_message_deflate=False,  # speech does not get smaller
        ws_ping_interval=None,  # a stream has its own limit of idle time
    )

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            app.state.close_page()
            super().handle_exit(sig, frame)

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await app.state.streams.close_all()  # with a close code of their own
            await super().shutdown(sockets)

    server = Server(config)

    def stop() -> None:
        """End the service if its models cannot be loaded at its start."""
        if app.state.engine.loaded is None:
            server.should_exit = True

    def wait_for_start() -> None:
        while not (server.started or server.should_exit):
            time.sleep(CHECK_SECONDS)
        if server.started:
            port = server.servers[0].sockets[0].getsockname()[1]
            started(f"http://{settings.host}:{port}")

    app.state.engine.on_failure = stop
    threading.Thread(target=wait_for_start, daemon=True).start()
    server.run()
    if app.state.engine.loaded is None and app.state.engine.failure:
        raise ValueError(app.state.engine.failure)
    if not server.started:
        raise typer.Exit(2)  # the address is in use, say; the server has printed why
