"""Codecs as models of Hugging Face transformers. Importing this module registers them with transformers' Auto classes.

from transformers import AutoFeatureExtractor, AutoModel
import vocable.hf

model = AutoModel.from_pretrained("FOLDER")  # written by `vocable export transformers`
"""

from __future__ import annotations

import transformers

from vocable.hf.configuration import VocableConfig
from vocable.hf.features import VocableFeatureExtractor
from vocable.hf.model import VocableModel, VocableOutput

__all__ = ["VocableConfig", "VocableFeatureExtractor", "VocableModel", "VocableOutput"]


def _register() -> None:
    transformers.AutoConfig.register(VocableConfig.model_type, VocableConfig, exist_ok=True)
    transformers.AutoFeatureExtractor.register(VocableConfig, VocableFeatureExtractor, exist_ok=True)
    for name in ("AutoModel", "AutoModelForAudioTokenization"):  # the second is in newer versions only
        if hasattr(transformers, name):
            getattr(transformers, name).register(VocableConfig, VocableModel, exist_ok=True)


_register()
