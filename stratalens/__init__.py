"""stratalens finds which features of a language model belong to a domain, layer by layer, and shows the evidence.

    result = stratalens.analyze(layers=[4, 10], top_n=20, output_dir="results")
    result.top_features  # pandas DataFrame, best first across layers

Importing this package loads neither torch nor pandas; names that need them are imported when they are first used.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stratalens.errors import (
    CapacityError,
    CheckpointError,
    ConfigError,
    CorpusError,
    LabelingError,
    MismatchError,
    ModelError,
    OutputError,
    StratalensError,
)

if TYPE_CHECKING:
    from stratalens.report.saved import Result, load_result

__all__ = [
    "CapacityError",
    "CheckpointError",
    "ConfigError",
    "CorpusError",
    "LabelingError",
    "MismatchError",
    "ModelError",
    "OutputError",
    "Result",
    "StratalensError",
    "analyze",
    "label",
    "load_result",
    "rank",
]
_LAZY_NAMES = {"Result": "stratalens.report.saved", "load_result": "stratalens.report.saved"}
"""Name -> the module that defines it, imported when the name is first used."""


def __getattr__(name: str) -> object:
    """Import a name of `_LAZY_NAMES`, whose module is slow to load."""
    if name not in _LAZY_NAMES:
        raise AttributeError(f"the package stratalens has no attribute `{name}`")
    return getattr(import_module(_LAZY_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def analyze(**options: object) -> "Result":
    """Run the complete analysis and write its results to `output_dir`.

    Args:
        options: the options of `stratalens analyze`, such as `layers=[4, 10]`, `top_n=20` or `output_dir="results"`.

    Raises:
        StratalensError: the input is not usable; the message says what to do.
    """
    from stratalens.commands.analyze import analyze as run
    from stratalens.config.options import RunConfig
    from stratalens.config.validation import validated
    from stratalens.files.redaction import without_secrets_in_errors

    with without_secrets_in_errors(options.values()):
        return run(validated(RunConfig, options))


def rank(result_dir: str | Path, **options: object) -> "Result":
    """Rank the features of a finished result again, without model and text, and rewrite its tables.

    Args:
        result_dir: the `output_dir` of a run.
        options: the options of `stratalens rank`, such as `rank_by="auroc"`; omitted ones keep their values.

    Raises:
        StratalensError: there is no such result, or an option is wrong.
    """
    from stratalens.commands.rank import rank as run
    from stratalens.config.result_options import RankConfig
    from stratalens.config.validation import validated
    from stratalens.files.redaction import without_secrets_in_errors

    with without_secrets_in_errors([result_dir, *options.values()]):
        return run(Path(result_dir), validated(RankConfig, options))


def label(result_dir: str | Path, **options: object) -> "Result":
    """Label the features of a finished result again and rewrite its tables.

    Args:
        result_dir: the `output_dir` of a run.
        options: the options of `stratalens label`, such as `lexicon="my_concepts.yaml"`.

    Raises:
        StratalensError: there is no such result, or an option or the labelling model is not usable.
    """
    from stratalens.commands.label import label as run
    from stratalens.config.result_options import LabelConfig
    from stratalens.config.validation import validated
    from stratalens.files.redaction import without_secrets_in_errors

    with without_secrets_in_errors([result_dir, *options.values()]):
        return run(Path(result_dir), validated(LabelConfig, options))
