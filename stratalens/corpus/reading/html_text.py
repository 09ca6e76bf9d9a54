"""The text that a browser shows of an HTML page."""

import re

_STYLES = ("display:none", "display: none", "DISPLAY:NONE", "DISPLAY: NONE", "visibility:hidden", "visibility: hidden")
HIDDEN = ("[hidden]", "ix\\:header", *(f'[style*="{style}"]' for style in _STYLES))
"""Elements that no browser shows, as CSS names them; filings to the SEC have their data in `ix:header`."""
_MAY_HIDE = re.compile(r"hidden|ix:header|display\s*:\s*none", re.I)


def html_to_text(page: str) -> str:
    """Text of a page, with a line for each block; what a browser does not show is left out, tables and lists kept."""
    from resiliparse.extract.html2text import extract_plain_text  # pyright: ignore[reportMissingModuleSource]

    return extract_plain_text(
        page,
        preserve_formatting=True,
        main_content=False,
        list_bullets=False,
        alt_texts=False,
        noscript=True,
        skip_elements=HIDDEN if _MAY_HIDE.search(page) else None,
    )
