"""`check.json`: all numbers of a check."""

import os
import secrets
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from stratalens.commands.check import Checked, CheckedSae
from stratalens.errors import OutputError
from stratalens.files.json_files import json_object
from stratalens.files.redaction import redacted
from stratalens.report.fit_record import fit_record, hookpoint_record
from stratalens.report.formats import write_json

CHECK_FILE = "check.json"
FORMAT_KEY = "stratalens_check"
"""By which a file that an earlier check wrote is known."""
FORMAT = 1


def prepare_check_file(directory: Path) -> Path:
    """Make the directory of a check, before the work, and return the path of its file.

    Raises:
        OutputError: it is no directory, or has a file of that name which no check wrote.
        OSError: it cannot be made.
    """
    path = directory / CHECK_FILE
    if directory.exists() and not directory.is_dir():
        raise OutputError(f"{directory}: is a file; choose another --output_dir")
    if (path.exists() or path.is_symlink()) and FORMAT_KEY not in json_object(path):
        raise OutputError(f"{path}: was not written by stratalens; move it, or choose another --output_dir")
    directory.mkdir(parents=True, exist_ok=True)
    return path


def write_check_file(checked: Checked, path: Path) -> None:
    """Write the numbers of a check; the file appears complete.

    Raises:
        OSError: it cannot be written.
    """
    unfinished = path.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        write_json(check_record(checked), unfinished)
        os.replace(unfinished, path)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def check_record(checked: Checked) -> dict[str, object]:
    """The numbers of a check."""
    source, reference = checked.source, checked.reference
    return {
        FORMAT_KEY: FORMAT,
        "stratalens": version("stratalens"),
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "fits": not checked.misfits,
        "model": {"name": redacted(source.name), "digest": source.digest, "layers": source.num_layers},
        "reference_model": None
        if reference is None
        else {"name": redacted(reference.name), "digest": reference.digest},
        "device": str(checked.device),
        "dtype": str(checked.dtype).removeprefix("torch."),
        "text": {
            "source": redacted(checked.text.source),
            "passages": len(checked.text.sequences),
            "tokens": checked.text.tokens,
        },
        "hookpoints": {str(place): _sae_record(own) for place, own in checked.saes.items()},
    }


def _sae_record(own: CheckedSae) -> dict[str, object]:
    loss = own.loss.loss
    return {
        "module": own.file.module,
        "activation": own.file.activation,
        "k": own.file.k,
        "latents": own.file.num_latents,
        "sha256": own.file.digest,
        "fits": not own.fit.problem,
        **fit_record(own.fit),
        "loss": None
        if loss is None
        else {
            **asdict(loss),
            "recovered_of_zero": loss.recovered_of_zero,
            "recovered_of_mean": loss.recovered_of_mean,
        },
        "loss_left_out": own.loss.left_out,
        "reference": None if own.reference is None else hookpoint_record(own.reference),
    }
