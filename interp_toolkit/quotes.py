"""The quotes around a label: how one is written for the model to learn, and how it is read from what the model wrote.

The opening quote stands at the end of the soft prompt. A label is followed by the closing quote and the stop token, so
the closing quote is the one right before the stop token, whatever quotes the label itself holds.
"""

from __future__ import annotations

QUOTE = '"'


def closed_label(label: str, stop: str) -> str:
    """Return what the model is to write for a label: the label without outer spaces, the closing quote, the stop token.

    Example:
        >>> closed_label('12" records', "<|im_end|>")
        '12" records"<|im_end|>'
    """
    return f"{label.strip()}{QUOTE}{stop}"


def closing_quote(text: str, stopped: bool = False) -> int | None:
    """Where the quote that encloses a description is closed, or None.

    A quote right before the stop token closes. In a text that goes on otherwise, a quote at the beginning or behind a
    space or bracket opens one inside, and the next closes it: ``"Weird Al" Yankovic"`` is closed by its last.

    Args:
        text: what the model wrote, without a stop token.
        stopped: whether a stop token followed.

    Example:
        >>> closing_quote('a bird" and so on')
        6
        >>> closing_quote('12" records"', stopped=True)
        11
    """
    if stopped and text.endswith(QUOTE):
        return len(text) - 1
    inside = False
    for i, char in enumerate(text):
        if char != QUOTE:
            continue
        if not inside and (i == 0 or text[i - 1].isspace() or text[i - 1] in "([{"):
            inside = True
        elif inside:
            inside = False
        else:
            return i
    return None


def described(text: str, stopped: bool = False) -> str:
    """A text up to its closing quote; a quote that is left open at the very end is taken for the closing one.

    Args:
        text: what the model wrote, without a stop token.
        stopped: whether a stop token followed.

    Example:
        >>> described('Bees "')
        'Bees'
    """
    end = closing_quote(text, stopped)
    return text[:end].strip() if end is not None else text.strip().removesuffix(QUOTE).strip()
