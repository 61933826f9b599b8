"""What was tried before: lessons, which teach, and every judged trial behind them."""

from knowledge.experience.lesson import (
    ALIKE,
    Lesson,
    append_lesson,
    drop_lessons,
    fingerprint,
    latest,
    likeness,
    plain_op,
    read_lessons,
    signature,
)

__all__ = [
    "ALIKE",
    "Lesson",
    "append_lesson",
    "drop_lessons",
    "fingerprint",
    "latest",
    "likeness",
    "plain_op",
    "read_lessons",
    "signature",
]
