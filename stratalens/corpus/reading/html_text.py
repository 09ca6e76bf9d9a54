"""The text that a browser shows of an HTML page."""


def html_to_text(page: str) -> str:
    """Text of a page, with a line for each block; scripts, styles and the head are left out, tables and lists kept."""
    from resiliparse.extract.html2text import extract_plain_text  # pyright: ignore[reportMissingModuleSource]

    return extract_plain_text(
        page, preserve_formatting=True, main_content=False, list_bullets=False, alt_texts=False, noscript=True
    )
