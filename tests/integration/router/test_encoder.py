"""MiniLM as it really is: its rows do not depend on who else is in the batch."""

import math

import pytest

from router.data import encoder
from router.data.encoder import MAX_BATCH, WIDTH, encode

TEXTS = ["short", "a somewhat longer text about sorting lists in Python", "word " * 400, ""]


def cosine(left: list[float], right: list[float]) -> float:
    return sum(a * b for a, b in zip(left, right, strict=True))


def test_rows_are_unit_vectors_of_the_known_width() -> None:
    for row in encode(TEXTS):
        assert len(row) == WIDTH
        assert math.hypot(*row) == pytest.approx(1, abs=1e-5)


def test_a_batch_gives_what_its_texts_give_alone() -> None:
    for text, row in zip(TEXTS, encode(TEXTS), strict=True):
        assert max(abs(a - b) for a, b in zip(row, encode([text])[0], strict=True)) <= 1e-5


def test_a_batch_is_one_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    forward, sizes = encoder._forward, []

    def counted(tokenizer: object, model: object, texts: list[str], tokens: int) -> list[list[float]]:
        sizes.append(len(texts))
        return forward(tokenizer, model, texts, tokens)

    monkeypatch.setattr(encoder, "_forward", counted)
    assert len(encode(["text"] * (MAX_BATCH + 1))) == MAX_BATCH + 1
    assert encode([]) == []
    assert sizes == [MAX_BATCH, 1]


def test_alike_is_near() -> None:
    sort, again, poem = encode(["sort a list in Python", "Python list sorting", "a poem about the sea"])
    assert cosine(sort, again) > 0.7 > 0.3 > cosine(sort, poem)


def test_fewer_words_by_fewer_layers_are_another_encoder() -> None:
    start = "find the weather in Paris and in Rome for the next five days"
    [brief], [longer] = (encode([text], 8, 2) for text in (start, start + " or of London"))
    assert cosine(brief, longer) == pytest.approx(1, abs=1e-5)
    assert cosine(encode([start])[0], encode([start + " or of London"])[0]) < 0.999
    assert encoder.is_loaded(2) and encoder.is_loaded() and not encoder.is_loaded(5)
