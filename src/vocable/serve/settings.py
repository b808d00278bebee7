"""Settings of the service."""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Limits:
    """Largest request that the service accepts."""

    bytes: int = 25 * 2**20  #: of the body of a request
    seconds: float = 300.0  #: of a recording, and of the speech that tokens decode to
    characters: int = 4096  #: of a text
    takes: int = 16  #: of each sentence
    waiting: int = 64  #: jobs that wait for a worker; further requests are answered with 429
    voices: int = 1000  #: prepared voices that are kept
    streams: int = 16  #: streams of `/v1/audio/codec` at once; further ones are closed with 1013
    stream_seconds: float = 3600.0  #: of the speech of a stream
    stream_idle: float = 30.0  #: seconds that a stream may wait for its client, to send or to read

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value <= 0:
                raise ValueError(f"the limit of {name} must be above 0, not {value}")


@dataclass(frozen=True)
class Settings:
    """What the service loads, and who may use it."""

    host: str = "127.0.0.1"
    port: int = 8000
    model: str | None = None  #: the codec, as in `load_codec`; None: the embedded one
    models: str | None = None  #: the language models, as in `load_models`; None: the shipped ones, if any
    voices: str | os.PathLike[str] | None = None  #: folder of prepared voices; None: voices cannot be created
    device: str = "cpu"
    api_key: str | None = field(default=None, repr=False)  #: that clients must send; None: clients need no key
    no_auth: bool = False  #: allow other machines without a key
    page: bool = True  #: serve the browser page at /
    workers: int = 1  #: processes, each with its own models
    threads: int = 1  #: torch threads of each worker
    grace: float = 30.0  #: seconds that running requests have to finish after SIGTERM
    limits: Limits = Limits()

    def __post_init__(self) -> None:
        if self.workers < 1 or self.threads < 1:
            raise ValueError("the service needs at least 1 worker and 1 thread")
        if self.api_key is not None and not (self.api_key.isascii() and self.api_key.strip()):
            raise ValueError("an API key consists of ASCII characters and is not empty")
        if not self.is_local and self.api_key is None and not self.no_auth:
            raise ValueError(
                f"{self.host} can be reached from other machines: set --api-key (or VOCABLE_API_KEY), or --no-auth"
            )

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the service."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
