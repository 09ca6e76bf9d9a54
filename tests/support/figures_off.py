"""Switch static figures off in tests that do not check them, as they take longer than a tiny run."""

from importlib import import_module

import pytest


def draw_no_figures(patch: pytest.MonkeyPatch) -> None:
    drawn_by = import_module("stratalens.report.publish")
    patch.setattr(drawn_by, "write_figures", lambda _tables, _directory, _parts, _effects: None)
