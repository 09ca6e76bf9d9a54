"""The one line that tells an error."""

from stratalens.errors import printable

MAX_LINE_CHARACTERS = 1500


def error_line(message: str, words: list[str]) -> str:
    """Make a message one line of limited length, whatever files and servers put into it.

    Args:
        message: what is wrong.
        words: those of the command line, which the message may repeat: their secrets are masked.

    Returns:
        the line, without control characters.
    """
    from stratalens.files.redaction import as_printed

    text = printable(" ".join(as_printed(message, words).split()))
    text = text if len(text) <= MAX_LINE_CHARACTERS else f"{text[: MAX_LINE_CHARACTERS - 300]} ... {text[-300:]}"
    return f"stratalens: {text}"
