"""Every file of a result: written by `publish`, read back by `load_result`.

Tables and JSON files are here, pictures in `figures/`, the page in `page/`. May import: labels and
the rooms that labels may import. Main types: Result, Tables.
"""

from stratalens.report.publish import publish
from stratalens.report.saved import load_result

__all__ = ["load_result", "publish"]
