"""Command-line arguments to configuration: defaults, then the file of `--config`, then flags; and their help."""

import io
import re
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import asdict, field, make_dataclass
from itertools import groupby
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stratalens.config.config_file import read_config_file
from stratalens.config.validation import make_config, validated
from stratalens.errors import ConfigError

Parsed = TypeVar("Parsed", bound=BaseModel)

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Model": ("base_model", "sae_model", "layers", "revision", "allow_poor_fit", "trust_remote_code"),
    "Text": (
        *("domain", "domain_data", "general_data", "text_column", "text_unit", "max_documents", "max_length"),
        *("min_length", "seed"),
    ),
    "Ranking": ("rank_by", "top_n", "compare_layers_by", "min_specialization", "top_features_n", "features"),
    "Labels": (
        *("labeling_model", "labeling_endpoint", "labeling_concurrency", "labeling_timeout", "lexicon", "prompts"),
        "no_examples",
    ),
    "Output": ("output_dir", "config", "harvest", "dry_run", "quiet"),
    "Machine": ("device", "dtype", "load_in", "memory_gb", "batch_tokens", "threads", "workers"),
}
"""Titles of the help -> options, in the order in which a user thinks of them. Configuration itself is flat."""
PLACEHOLDERS = {
    **dict.fromkeys(("base_model", "sae_model", "labeling_model"), "PATH_OR_ID"),
    **dict.fromkeys(("domain_data", "general_data", "lexicon"), "PATH [PATH ...]"),
    **dict.fromkeys(("prompts", "features", "output_dir", "config"), "PATH"),
    "layers": "N [N ...]",
    "labeling_endpoint": "URL",
}
"""What stands for the value of an option in the help, where its type does not say it well."""
CONFIG_HELP = "YAML file with options, or the run.json of an earlier run."


def parse(words: list[str], program: str, kind: type[Parsed], example: str = "") -> Parsed:
    """Configuration from arguments.

    Args:
        words: the arguments.
        program: as named in help and complaints.
        kind: the configuration; the one of an analysis takes a `--config` file as well.
        example: a command that shows the use, for the help.

    Raises:
        ConfigError: an argument or the file is wrong.
    """
    import tyro

    _refuse_repeated(words)
    takes_file = "output_dir" in kind.model_fields
    file = _config_argument(words) if takes_file else None
    loaded = make_config(**read_config_file(Path(file).expanduser())).model_dump() if file else {}
    wants_help = "-h" in words or "--help" in words
    complaints = io.StringIO()
    try:
        with redirect_stderr(complaints):
            parsed = tyro.cli(
                _grouped(kind, takes_file, loaded),
                prog=program,
                description=_description(kind, example),
                args=words,
                use_underscores=True,
                # Help shows `--quiet` alone; an option that a file turned on can still be turned off by `--no-quiet`.
                config=(tyro.conf.OmitArgPrefixes, *((tyro.conf.FlagCreatePairsOff,) if wants_help else ())),
            )
    except SystemExit as stop:
        if stop.code == 0:
            raise
        raise ConfigError(_one_line(complaints.getvalue(), program)) from None
    given = {name: value for group in asdict(parsed).values() for name, value in group.items() if name != "config"}
    return validated(kind, given)


def _description(kind: type[BaseModel], example: str) -> str:
    """What the command does, a paragraph a line of its docstring, and an example on a line of its own."""
    paragraphs = [line.strip() for line in (kind.__doc__ or "").splitlines() if line.strip()]
    return "\n\n".join([*([f"Example: {example}"] if example else []), *paragraphs])


def _grouped(kind: type[BaseModel], takes_file: bool, loaded: Mapping[str, Any]) -> type:
    """A class with an attribute a group, whose attributes are the options."""
    fields = dict(kind.model_fields)
    if takes_file:
        fields["config"] = FieldInfo(annotation=str | None, default=None, description=CONFIG_HELP)  # pyright: ignore[reportArgumentType]
    groups = {}
    for title, names in GROUPS.items():
        own = [_option(name, fields[name], loaded) for name in names if name in fields]
        if own:
            groups[title] = make_dataclass(title, own)
    return make_dataclass("Options", [(title, group, field(default_factory=group)) for title, group in groups.items()])


def _option(name: str, info: FieldInfo, loaded: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """Name, annotated type and default of one option."""
    import tyro

    default = loaded.get(name, info.default)
    shown = "" if default is None or default == () or isinstance(default, bool) else f"(default: {_shown(default)})"
    described = tyro.conf.arg(
        metavar=PLACEHOLDERS.get(name) or _placeholder(info.annotation),
        help=" ".join((info.description or "").split()),
        help_behavior_hint=shown,
    )
    return name, Annotated[info.annotation, described], field(default=default)


def _shown(value: object) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _placeholder(annotation: Any) -> str | None:
    """What stands for a value of such a type; None for a flag."""
    several = [one for one in get_args(annotation) if one is not NoneType] if NoneType in get_args(annotation) else []
    only = several[0] if len(several) == 1 else annotation
    if get_origin(only) is Literal:
        return "{" + ",".join(map(str, get_args(only))) + "}"
    return {int: "N", float: "X", bool: None}.get(only, "NAME")


def _refuse_repeated(words: list[str]) -> None:
    seen = set()
    for word in words:
        if not word.startswith("--"):
            continue
        name = word.removeprefix("--").split("=")[0].replace("-", "_")
        option = re.sub("^(no_)+", "", name)
        if option in seen:
            raise ConfigError(f"--{name} is given more than once; give it once (several values go behind one flag)")
        seen.add(option)


def _config_argument(words: list[str]) -> str | None:
    for place, word in enumerate(words):
        if word.startswith("--config="):
            return word.removeprefix("--config=")
        if word == "--config":
            if place + 1 == len(words):
                raise ConfigError("--config needs a file")
            return words[place + 1]
    return None


def _one_line(complaint: str, program: str) -> str:
    """The first sentence of a framed complaint, without its frame."""
    lines = [line.strip().strip("│|").strip() for line in complaint.splitlines()[1:]]
    groups = groupby(lines, key=lambda line: any(ch.isalnum() for ch in line))
    message = next((" ".join(group) for has_words, group in groups if has_words), "")
    return f"{message or 'the arguments cannot be read'}; see {program} --help"
