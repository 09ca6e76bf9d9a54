"""The names of everything that a run writes into its output directory; nothing else is ever removed or replaced."""

import re

from stratalens.hookpoint import NAME_PATTERN as HOOKPOINT_NAME

RECORD_FILE = "run.json"
STATE_SUFFIX = ".state"
"""File name suffix of what a run has read of its text."""
LOCK_FILE = ".stratalens.lock"
WORK_FOLDER = ".unfinished"
SHARDS_FOLDER = "shards"
STAGING_FOLDER = "staging"
COMPLETE_FOLDER = "complete"
EVIDENCE_FOLDER = "evidence"
"""Folder of passages and activations from which features can be labelled again; absent after `--no_examples`."""
RANDOM_FOLDER = "random_directions"
"""Folder of what a run has read with SAEs of random directions."""
VALIDATION_NAME = "[a-z0-9][a-z0-9_-]{0,39}"
"""Pattern of the name of a validation; without capitals, which some disks ignore."""

_ANY_DOMAIN = "[A-Za-z][A-Za-z0-9_-]{0,63}"
_ANY_NUMBER = "[1-9][0-9]*"
_LAYER = f"layer_{HOOKPOINT_NAME}"
_VALIDATION = f"validation_{VALIDATION_NAME}"
_OTHER_TEXT = f"(?:_{VALIDATION_NAME})?"
"""Of effects on other text than the run's own."""
_FOLDER = f"(?:{_LAYER}|{EVIDENCE_FOLDER}|harvest|token_test|{RANDOM_FOLDER}|{_VALIDATION})"
_BEING_WRITTEN = r"[^/]+\.tmp"


def result_names(
    domain: str | None = None, top_n: int | None = None, top_features_n: int | None = None
) -> re.Pattern[str]:
    """Pattern of the names of all files of a result, relative to the output directory and with `/` between folders.

    Args:
        domain: only names of results of this domain; None for any.
        top_n: only names of results with so many features a layer; None for any.
        top_features_n: only names of results with so many best features; None for any.
    """
    of_domain = _ANY_DOMAIN if domain is None else re.escape(domain)
    top = _ANY_NUMBER if top_n is None else str(top_n)
    best = _ANY_NUMBER if top_features_n is None else str(top_features_n)
    in_layer = [
        rf"top_{top}_features_analysis\.(?:csv|json)",
        rf"opposed_{top}_features\.csv",
        rf"feature_labels_(?:clean|detailed)_{of_domain}\.csv",
        rf"{of_domain}_features\.(?:png|svg)",
        r"evidence\.json",
        r"all_features\.parquet",
        rf"latent_attributions{_OTHER_TEXT}\.parquet",
    ]
    names = [
        re.escape(RECORD_FILE),
        r"report\.html",
        r"features\.parquet",
        r"documents\.parquet",
        r"consolidated_top_features_all_layers\.csv",
        r"layer_comparison_report\.csv",
        rf"top_{best}_{of_domain}_features\.csv",
        rf"{of_domain}_feature_summary\.json",
        rf"{of_domain}_feature_analysis\.(?:png|svg)",
        rf"{_LAYER}/(?:{'|'.join(in_layer)})",
        rf"{EVIDENCE_FOLDER}/(?:passages\.parquet|{_LAYER}\.npz|codes_{_LAYER}\.parquet)",
        rf"(?:harvest|token_test|{RANDOM_FOLDER}|{_VALIDATION})/{_LAYER}{re.escape(STATE_SUFFIX)}",
        rf"{_VALIDATION}\.csv",
        r"token_test\.csv",
        rf"(?:layer|feature|task)_effects{_OTHER_TEXT}\.csv",
        rf"layer_effects{_OTHER_TEXT}\.(?:png|svg)",
    ]
    return re.compile("|".join(f"(?:{name})" for name in names))


ANY_RESULT_NAME = result_names()
RESULT_FOLDERS = re.compile(_FOLDER)
"""Folders of a result."""
WORK_FOLDERS = re.compile(rf"{SHARDS_FOLDER}(?:/{_LAYER})?|(?:{STAGING_FOLDER}|{COMPLETE_FOLDER})(?:/{_FOLDER})?")
"""Folders below `WORK_FOLDER`."""
WORK_FILES = re.compile(
    rf"{SHARDS_FOLDER}/(?:context(?:_[a-z0-9_-]+)?\.json|{_LAYER}/[0-9a-f]{{32}}{re.escape(STATE_SUFFIX)}|(?:{_LAYER}/)?{_BEING_WRITTEN})"
    rf"|{STAGING_FOLDER}/(?:{_FOLDER}/)?{_BEING_WRITTEN}"
    rf"|(?:{STAGING_FOLDER}|{COMPLETE_FOLDER})/(?:{ANY_RESULT_NAME.pattern})"
)
"""Files below `WORK_FOLDER`."""
