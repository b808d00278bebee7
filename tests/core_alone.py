"""Run by `make core` in an environment with the core's needs alone: import every inference module, use the command."""

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
import tempfile
from pathlib import Path

import vocable

#: Rooms whose modules need an extra only when their work is done are imported too: their needs come late.
for extra in ("transformers", "matplotlib", "tensorboard", "pytest"):
    assert importlib.util.find_spec(extra) is None, f"{extra} is installed: this is not the core alone"
names = [m.name for m in pkgutil.walk_packages(vocable.__path__, "vocable.")]
for name in names:
    if not name.startswith(("vocable.hf", "vocable.serve.")):  # whose files need their extras
        importlib.import_module(name)
print(f"{len(names)} modules of vocable {vocable.__version__} import with the core alone")

lazy = "import sys, vocable; vocable.SpeechTokenizer.from_pretrained(); sys.exit('sympy' in sys.modules)"
assert subprocess.run([sys.executable, "-c", lazy]).returncode == 0, "loading imports torch's compiler: a second lost"

speech = Path(sys.argv[1]).resolve()
command = [str(Path(sys.executable).with_name("vocable"))]
with tempfile.TemporaryDirectory() as folder:
    tokens, out = f"{folder}/speech.safetensors", f"{folder}/speech.wav"
    subprocess.run([*command, "encode", str(speech), "-o", tokens], check=True)
    subprocess.run([*command, "decode", tokens, "-o", out], check=True)
    assert Path(out).stat().st_size > 1000
