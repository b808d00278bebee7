"""One of several processes of a run, for test_processes.py: RECIPE.json FOLDER OUT [signal].

With `signal`, the first process alone gets SIGTERM, and while it saves: when the others have gone on to the next step.
"""

import json
import signal
import sys
from pathlib import Path

import torch

from vocable.training.codec import CodecTrainer
from vocable.training.processes import rank
from vocable.training.recipe import from_dict
from vocable.training.stop import Interrupted

torch.set_num_threads(1)
trainer = CodecTrainer(from_dict(json.loads(Path(sys.argv[1]).read_text())), sys.argv[2])
losses = []
step = trainer.train_step
trainer.train_step = lambda parts: losses.append(step(parts)) or losses[-1]  # type: ignore[method-assign,func-returns-value]
save = trainer.save


def save_and_hear_a_signal() -> None:
    save()
    if rank() == 0 and trainer.step == trainer.recipe.save_every:
        signal.raise_signal(signal.SIGTERM)


if sys.argv[4:] == ["signal"]:
    trainer.save = save_and_hear_a_signal  # type: ignore[method-assign]
try:
    summary = trainer.run()
except Interrupted as stopped:
    print(f"{stopped} at step {trainer.step}")
    sys.exit(128 + stopped.signal)
tensors = {
    f"{name}/{k}": t for name, component in trainer.components().items() for k, t in component.state_dict().items()
}
torch.save({"tensors": tensors, "losses": losses, "summary": summary}, f"{sys.argv[3]}-{rank()}.pt")
