"""Parse command-line arguments into a configuration (flags win over the file of `--config`, the file over defaults)."""

import io
import re
from collections.abc import Callable, Mapping
from contextlib import redirect_stderr, suppress
from dataclasses import asdict, field, make_dataclass
from functools import partial
from itertools import groupby
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from stratalens.config.config_file import ConfigFile, read_config_file
from stratalens.config.options import RunConfig
from stratalens.config.validation import make_config, validated
from stratalens.errors import ConfigError
from stratalens.files.locations import user_path
from stratalens.files.redaction import as_printed, redacted

Parsed = TypeVar("Parsed", bound=BaseModel)

GROUPS: Mapping[str, tuple[str, ...]] = {
    "Model": (
        *("base_model", "sae_model", "sae_pick", "sae_format", "sae_activation", "layers", "sites"),
        *("revision", "sae_revision", "reference_model", "allow_poor_fit", "trust_remote_code"),
    ),
    "Text": (
        *("data", "name", "domain", "domain_data", "general_data", "pair"),
        *("text_column", "domain_text_column", "general_text_column", "id_column", "kind_column", "source_column"),
        *("text_unit", "encoding", "csv_delimiter", "csv_quoting", "unescape_html", "skip_bad_rows"),
        *("keep_near_duplicates", "max_documents", "max_length", "min_length", "seed"),
    ),
    "Ranking": ("rank_by", "top_n", "compare_layers_by", "min_specialization", "top_features_n", "features"),
    "Tests": ("controls", "token_test", "senses", "effect", "no_loss"),
    "Labels": (
        *("labeling_model", "labeling_endpoint", "labeling_max_tokens", "labeling_timeout", "labeling_concurrency"),
        *("lexicon", "prompts", "no_examples"),
    ),
    "Effects": ("ablate", "documents", "control_documents", "control_sets", "ig_steps", "task"),
    "Steering": ("strength", "prompt", "max_new_tokens", "temperature", "export"),
    "Output": ("output_dir", "overwrite", "csv_bom", "config", "allow_fetch", "harvest", "keep_gb", "dry_run", "quiet"),
    "Machine": ("device", "dtype", "load_in", "memory_gb", "batch_tokens", "threads", "workers"),
}
"""Title in the help -> options in the order in which they are listed. The configuration itself is flat."""
PLACEHOLDERS = {
    **dict.fromkeys(("base_model", "sae_model", "reference_model", "labeling_model"), "PATH_OR_ID"),
    **dict.fromkeys(("data", "domain_data", "general_data", "lexicon", "senses", "task"), "PATH [PATH ...]"),
    **dict.fromkeys(("prompts", "features", "output_dir", "config"), "PATH"),
    **dict.fromkeys(("text_column", "domain_text_column", "general_text_column"), "COLUMN [COLUMN ...]"),
    **dict.fromkeys(("id_column", "kind_column", "source_column"), "COLUMN"),
    "pair": "NAME DOMAIN GENERAL",
    "prompt": "TEXT [TEXT ...]",
    "export": "FILE",
    "encoding": "NAME",
    "batch_tokens": "{auto,N}",
    "csv_delimiter": "CHARACTER",
    "layers": "N [N ...]",
    "sites": "SITE [SITE ...]",
    "sae_pick": "GLOB|l0=N [...]",
    "sae_format": "NAME",
    "sae_activation": "KIND[:NUMBER]",
    "labeling_endpoint": "URL",
}
"""Option -> placeholder of its value in the help, where one made from its type would not be clear."""
REPEATABLE = ("pair",)
"""Options that may be given several times."""
CONFIG_HELP = "YAML file with options, or the run.json of an earlier run, which does not decide where text is sent."


def parse(
    words: list[str],
    program: str,
    kind: type[Parsed],
    example: str = "",
    note: Callable[[str], None] = lambda _message: None,
) -> Parsed:
    """Parse arguments into a configuration.

    Args:
        words: the arguments.
        program: the command, as it is named in help and error messages.
        kind: the class of the configuration; that of an analysis takes a `--config` file as well.
        example: a complete command for the help.
        note: called with what the user should know about the file.

    Raises:
        ConfigError: an argument or the file is wrong.
        StratalensError: the file names a source that it may not name.
        SystemExit: help was printed.
    """
    import tyro

    typed = _typed_options(words)
    takes_file = issubclass(kind, RunConfig)
    path = _config_argument(words) if takes_file else None
    file = read_config_file(user_path(path)) if path else None
    loaded = make_config(**file.taken).model_dump() if file else {}
    loaded = {name: value for name, value in loaded.items() if name not in typed.intersection(REPEATABLE)}
    wants_help = "-h" in words or "--help" in words
    parser = partial(
        tyro.cli,
        _grouped(kind, takes_file, loaded),
        prog=program,
        description=_description(kind, example),
        use_underscores=True,
        # Help shows `--quiet` alone; what a file turned on can still be turned off, as by `--no-no_examples`.
        config=(tyro.conf.OmitArgPrefixes, *((tyro.conf.FlagCreatePairsOff,) if wants_help else ())),
    )
    parsed = _parsed(parser, words, program)
    values = {name: value for group in asdict(parsed).values() for name, value in group.items() if name != "config"}
    config = validated(kind, values)
    if file is not None:
        assert isinstance(config, RunConfig)
        _check_file(file, config, typed, note)
    return config


def _parsed(parser: Callable[..., Any], words: list[str], program: str) -> Any:
    """Run tyro's parser. Its error messages break long words, so secrets are masked in the words and not afterwards.

    Raises:
        ConfigError: an argument is wrong.
        SystemExit: help was printed.
    """
    message = io.StringIO()
    try:
        with redirect_stderr(message):
            return parser(args=words)
    except SystemExit as stop:
        if stop.code == 0:
            raise
    masked_words = [as_printed(word, [word]) for word in words]
    if masked_words != words:
        message = io.StringIO()
        with redirect_stderr(message), suppress(SystemExit):
            parser(args=masked_words)
    raise ConfigError(_one_line(message.getvalue(), program))


def _check_file(file: ConfigFile, config: RunConfig, typed: set[str], note: Callable[[str], None]) -> None:
    """Tell which options were not taken from a file and which texts it names, and refuse what it may not name."""
    from stratalens.commands.sources import local_texts, require_allowed_sources

    if "output_dir" not in typed:
        file.require_own_output_dir()
    if not_taken := [name for name in file.not_taken if name not in typed]:
        note(f"{file.path}: not taken from this file: {', '.join(not_taken)}; type an option to set it")
    named = file.options.keys() - typed
    require_allowed_sources(file.path, config, named, is_record=file.is_record)
    if file.is_record and (texts := local_texts(config, named)):
        note(f"{file.path}: it names texts on this machine: {texts}")


def _description(kind: type[BaseModel], example: str) -> str:
    """Describe a command for its help: an example, then each line of its docstring as a paragraph."""
    paragraphs = [line.strip() for line in (kind.__doc__ or "").splitlines() if line.strip()]
    return "\n\n".join([*([f"Example: {example}"] if example else []), *paragraphs])


def _grouped(kind: type[BaseModel], takes_file: bool, loaded: Mapping[str, Any]) -> type:
    """Make a class with one attribute per group, whose attributes are the options; tyro shows groups from it."""
    fields = dict(kind.model_fields)
    if takes_file:
        fields["config"] = FieldInfo(annotation=str | None, default=None, description=CONFIG_HELP)  # pyright: ignore[reportArgumentType]
    groups = {}
    for title, names in GROUPS.items():
        options = [_option(name, fields[name], loaded) for name in names if name in fields]
        if options:
            groups[title] = make_dataclass(title, options)
    return make_dataclass("Options", [(title, group, field(default_factory=group)) for title, group in groups.items()])


def _option(name: str, info: FieldInfo, loaded: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """Return name, annotated type and default of one option."""
    import tyro

    default = loaded.get(name, info.default)
    has_hint = default not in (None, (), "") and not isinstance(default, bool)
    described = tyro.conf.arg(
        metavar=PLACEHOLDERS.get(name) or _placeholder(info.annotation),
        help=" ".join((info.description or "").split()),
        help_behavior_hint=f"(default: {_default_text(default)})" if has_hint else "",
    )
    annotation = tyro.conf.UseAppendAction[info.annotation] if name in REPEATABLE else info.annotation
    return name, Annotated[annotation, described], field(default=default)


def _default_text(value: object) -> str:
    return " ".join(redacted(str(item)) for item in (value if isinstance(value, tuple) else (value,)))


def _placeholder(annotation: Any) -> str | None:
    """Make the placeholder for a value of this type; None for a flag."""
    members = get_args(annotation)
    not_none = [member for member in members if member is not NoneType] if NoneType in members else []
    value_type = not_none[0] if len(not_none) == 1 else annotation
    if get_origin(value_type) is Literal:
        return "{" + ",".join(map(str, get_args(value_type))) + "}"
    return {int: "N", float: "X", bool: None}.get(value_type, "NAME")


def _typed_options(words: list[str]) -> set[str]:
    """Names of the options among the arguments, each of which may be given once."""
    seen = set()
    for word in words:
        if not word.startswith("--"):
            continue
        name = word.removeprefix("--").split("=")[0].replace("-", "_")
        option = re.sub("^(no_)+", "", name)
        if option in seen and option not in REPEATABLE:
            raise ConfigError(f"--{name} is given more than once; give it once (several values can follow one flag)")
        seen.add(option)
    return seen


def _config_argument(words: list[str]) -> str | None:
    """Find the value of `--config` among the arguments; it is read before the others are parsed."""
    for position, word in enumerate(words):
        if word.startswith("--config="):
            return word.removeprefix("--config=")
        if word == "--config":
            if position + 1 == len(words):
                raise ConfigError("--config needs a file")
            return words[position + 1]
    return None


def _one_line(error_text: str, program: str) -> str:
    """Return the first paragraph of one of tyro's error messages, without the box drawn around it."""
    lines = [line.strip().strip("│|").strip() for line in error_text.splitlines()[1:]]
    groups = groupby(lines, key=lambda line: any(ch.isalnum() for ch in line))
    message = next((" ".join(group) for has_words, group in groups if has_words), "")
    return f"{message or 'the arguments cannot be read'}; see {program} --help"
