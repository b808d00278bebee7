"""A worker process: loads the models, then does one batch of jobs after another.

Messages, over a pipe. From the service: a list of jobs, or CANCEL, which ends the batch that runs. From the worker:
`Loaded` once, or a `str` that says why nothing could be loaded; then for each batch `Output`s, `End`s (one for each
job; those after the first that a job gets have no effect), and IDLE.
"""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import cast

import torch

from vocable.corpus.parallel import end_with_parent
from vocable.lm.cancelling import Cancelled, IsCancelled
from vocable.serve.batches import decode, encode
from vocable.serve.jobs import Convert, Decode, Encode, Failed, Job, PrepareVoice, Refused, Result, Speak
from vocable.serve.settings import Settings
from vocable.serve.work import Models, load

CANCEL, IDLE = "cancel", "idle"
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Output:
    """One result of a job."""

    index: int  #: of the job in its batch
    result: Result


@dataclass(frozen=True)
class End:
    """End of a job."""

    index: int  #: of the job in its batch
    error: Refused | Failed | None  #: None: all results have been sent


def main(connection: Connection, settings: Settings) -> None:
    """Run a worker until the other end of the connection is closed or the parent process ends."""
    end_with_parent()
    for number in (signal.SIGINT, signal.SIGTERM):  # the service ends its workers when their jobs are done
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(settings.threads)
    try:
        models = load(settings)
    except (ValueError, OSError, ImportError, RuntimeError, MemoryError) as error:
        connection.send(" ".join(str(error).split()) or type(error).__name__)
        return
    connection.send(models.loaded)
    while True:
        try:
            jobs = connection.recv()
        except EOFError:
            return
        if jobs == CANCEL:  # it came after the end of its batch
            continue
        for message in _do(models, jobs, connection.poll):
            connection.send(message)
        connection.send(IDLE)


def _do(models: Models, jobs: Sequence[Job], cancelled: IsCancelled) -> Iterator[Output | End]:
    """Do a batch of jobs. While it runs, the service sends nothing but CANCEL."""
    try:
        for index, outcome in _outcomes(models, jobs, cancelled):
            yield End(index, outcome) if outcome is None or isinstance(outcome, Refused) else Output(index, outcome)
        ends: list[End] = [End(index, None) for index in range(len(jobs))]
    except Cancelled:
        ends = [End(index, None) for index in range(len(jobs))]
    except Refused as error:
        ends = [End(0, error)]
    except Exception:
        log.exception("a job failed")
        ends = [End(index, Failed("the service could not do this; its log says why")) for index in range(len(jobs))]
    yield from ends


def _outcomes(
    models: Models, jobs: Sequence[Job], cancelled: IsCancelled
) -> Iterator[tuple[int, Result | Refused | None]]:
    """Yield results and refusals with the index of their job, and None for the end of a job. Jobs of a batch are of one
    kind."""
    longest = models.limits.seconds
    match jobs[0]:
        case Encode():
            encodes = cast(Sequence[Encode], jobs)
            yield from enumerate(encode(models.codec, encodes, longest=longest, cancelled=cancelled))
        case Decode():
            decodes = cast(Sequence[Decode], jobs)
            yield from enumerate(decode(models.codec, decodes, longest=longest, cancelled=cancelled))
        case Speak():
            yield from models.speak(cast(Sequence[Speak], jobs), cancelled)
        case Convert() as job:
            yield 0, models.convert(job, cancelled)
        case PrepareVoice() as job:
            yield 0, models.prepare(job)
