import pytest

from schema.values.foreign import clean_text


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("", ""),
        ("plain", "plain"),
        ("Grüße 😀", "Grüße 😀"),
        ("a\0b", "ab"),
        ("hi \ud83d\ude00 there", "hi 😀 there"),
        ("hi \ud83d", "hi �"),
        ("\ude00 there", "� there"),
        ("\ud83dx\ude00", "�x�"),
        ("\ude00\ud83d", "��"),
        ("\ud83d\ud83d\ude00", "�😀"),
        ("\ud83d\0\ude00", "😀"),
    ],
)
def test_foreign_text_becomes_what_everybody_can_hold(text: str, cleaned: str) -> None:
    assert clean_text(text) == cleaned
    assert clean_text(cleaned) == cleaned
    cleaned.encode()
