"""Static figures take longer than a tiny run: tests that do not look at them do without."""

import pytest

DRAWN_BY = ("stratalens.report.publish.write_figures", "stratalens.commands.report.write_figures")


def draw_no_figures(patch: pytest.MonkeyPatch) -> None:
    for name in DRAWN_BY:
        patch.setattr(name, lambda _tables, _directory: None)
