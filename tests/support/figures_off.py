"""Switch static figures off in tests that do not check them, as they take longer than a tiny run."""

from importlib import import_module

import pytest

DRAWN_BY = ("stratalens.report.publish", "stratalens.commands.report")


def draw_no_figures(patch: pytest.MonkeyPatch) -> None:
    for name in DRAWN_BY:
        patch.setattr(import_module(name), "write_figures", lambda _tables, _directory: None)
