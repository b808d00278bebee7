"""Corpora of speech and of tokens.

recordings     `manifest.py` (JSONL files), `prepare.py` (public corpora and folders), `hub.py` (Hugging Face datasets),
               `check.py` (bad recordings)
tokenizing     `tokenize.py`, which calls `plan.py`, an engine of `engines.py`, its workers of `worker.py`
its files      `shards.py` (tokens), `index.py` (entries and the index), `verify.py`
training       `dataset.py` (PyTorch datasets), `sequences.py`, `strings.py` and `bpe.py` (codes for language models)
"""
