"""Training leaves a process as it was, and does not depend on what else the process does."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from training.test_resume import corpus, plan  # noqa: F401 (a fixture)
from vocable.corpus.manifest import Utterance, write_manifest
from vocable.training.codec import CodecTrainer
from vocable.training.stop import StopSignals
from vocable.training.torch_globals import num_threads, seeded
from vocable.training.vocoder import VocoderTrainer, vocoder_recipe

pytest.importorskip("accelerate")


def settings() -> list[Any]:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    limit, grad = torch._dynamo.config.cache_size_limit, torch.is_grad_enabled()
    return [torch.get_num_threads(), torch.get_rng_state().tolist(), limit, torch.get_default_dtype(), grad, *handlers]


def test_a_run_leaves_everything_as_it_was(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **_: None)  # a minute, and a C++ compiler
    torch._dynamo.config  # noqa: B018 (imported by its first use)
    torch.manual_seed(7)
    before, during = settings(), []
    plan_ = plan(threads=torch.get_num_threads() + 1, compile=True, max_steps=2)
    trainer = CodecTrainer(plan_, "run")
    assert settings() == before
    step = trainer.train_step
    trainer.train_step = lambda parts: during.append(settings()) or step(parts)  # type: ignore[method-assign,func-returns-value]
    trainer.run()
    assert settings() == before
    assert during[0][0] == before[0] + 1 and during[0][2] > before[2], "while it trains they count"


def test_a_run_that_fails_leaves_everything_as_it_was(corpus: Path) -> None:  # noqa: F811
    before = settings()
    trainer = CodecTrainer(plan(threads=torch.get_num_threads() + 1), "run")

    def fail(parts: list[Any]) -> dict[str, float]:
        raise RuntimeError("no")

    trainer.train_step = fail  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        trainer.run()
    assert settings() == before


def test_a_vocoder_leaves_everything_as_it_was(corpus: Path) -> None:  # noqa: F811
    soundfile.write(corpus / "long.wav", 0.1 * np.random.default_rng(0).normal(size=35_000), 16_000)
    write_manifest(corpus / "long.jsonl", [Utterance("1", corpus / "long.wav", 35_000 / 16_000)])
    before = settings()
    trainer = VocoderTrainer(vocoder_recipe("corpus/phones", manifest="long.jsonl", seed=3), "vocoder", max_time=0.1)
    assert settings() == before
    trainer.run()
    assert settings() == before


def test_runs_in_threads_are_those_of_one_thread(corpus: Path) -> None:  # noqa: F811
    """Two at a time, whose codecs lie in another module that goes back and forth between training and not."""
    weights: dict[str, dict[str, torch.Tensor]] = {}
    failed: list[BaseException] = []

    def train(folder: str, seed: int, disturbed: bool) -> None:
        try:
            trainer = CodecTrainer(plan(seed=seed, max_steps=5, threads=1), folder)
            parent, step = torch.nn.ModuleList([trainer.model]), trainer.train_step

            def disturb(parts: list[Any]) -> dict[str, float]:
                parent.train(trainer.step % 2 == 0)
                return step(parts)

            if disturbed:
                trainer.train_step = disturb  # type: ignore[method-assign]
            trainer.run()
            weights[folder] = trainer.model.state_dict()
        except BaseException as error:
            failed.append(error)
            raise

    for seed in (1, 2):
        train(f"alone-{seed}", seed, False)
    together = [threading.Thread(target=train, args=(f"together-{seed}", seed, True)) for seed in (1, 2)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join()
    assert not failed
    for seed in (1, 2):
        ours, theirs = weights[f"alone-{seed}"], weights[f"together-{seed}"]
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


def test_seeded_draws_what_its_seed_says_and_gives_back() -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(0)
    first = torch.rand(1)
    with seeded(1):
        assert torch.equal(torch.rand(3), wanted)
    rest = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(torch.rand(2), torch.cat([first, rest]))


def test_threads_are_given_back_after_an_error() -> None:
    before = torch.get_num_threads()
    with pytest.raises(KeyError), num_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    with num_threads(0):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_signals_outside_of_the_main_thread_and_handlers_of_c_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    outcome: list[object] = []

    def block() -> None:
        try:
            with StopSignals() as stop:
                outcome.append(stop.received)
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert outcome == [0]
    with monkeypatch.context() as c:
        c.setattr(signal, "getsignal", lambda number: None)  # as for a handler that was not installed from Python
        with StopSignals():
            pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
