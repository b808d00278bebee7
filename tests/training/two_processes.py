"""One of several processes of a run, for test_processes.py: RECIPE.json FOLDER OUT."""

import json
import sys
from pathlib import Path

import torch

from vocable.training.codec import CodecTrainer
from vocable.training.processes import rank
from vocable.training.recipe import from_dict

torch.set_num_threads(1)
trainer = CodecTrainer(from_dict(json.loads(Path(sys.argv[1]).read_text())), sys.argv[2])
losses = []
step = trainer.train_step
trainer.train_step = lambda parts: losses.append(step(parts)) or losses[-1]  # type: ignore[method-assign,func-returns-value]
summary = trainer.run()
tensors = {f"{name}/{k}": t for name, part in trainer._parts().items() for k, t in part.state_dict().items()}
torch.save({"tensors": tensors, "losses": losses, "summary": summary}, f"{sys.argv[3]}-{rank()}.pt")
