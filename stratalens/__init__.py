"""stratalens finds which features of a language model belong to a domain, layer by layer, and shows the evidence."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stratalens.commands.analyze import Result

__all__ = ["analyze"]


def analyze(**options: object) -> "Result":
    """Run the complete analysis.

    Args:
        options: the options of `stratalens analyze`, such as `layers=[4, 10]`, `top_n=20` or `output_dir="results"`.

    Returns:
        The finished run: `top_features`, `best_features`, `layers` and `all_features(layer)` are pandas DataFrames.

    Raises:
        StratalensError: the input is not usable; the message says what to do.
    """
    from stratalens.commands import analyze as run
    from stratalens.config import make_config

    return run.analyze(make_config(**options))
