"""What a file may name as text, model and SAEs: plain addresses; and a record nothing to fetch without permission."""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from stratalens.config.options import RunConfig
from stratalens.corpus.addresses import PLAIN_PROTOCOLS, is_local, is_plain, is_url, require_complete
from stratalens.corpus.hub_datasets import is_dataset
from stratalens.errors import CheckpointError, ConfigError, ModelError, counted
from stratalens.files.redaction import redacted
from stratalens.models.hub import is_on_this_machine
from stratalens.saes.places import parse_place

SOURCES = ("domain_data", "general_data", "pair", "base_model", "revision", "sae_model", "sae_revision")
"""Options that name what a run reads, whether it is here or elsewhere."""
MODEL_SOURCES = ("base_model", "revision", "sae_model", "sae_revision")
"""Those that name model and SAEs."""
MAX_SOURCES_SHOWN = 5
MAX_SOURCE_CHARACTERS = 200


def require_allowed_sources(file: Path, config: RunConfig, named: Collection[str], *, is_record: bool) -> None:
    """Check the sources that a file names, before any of them is read.

    Args:
        file: where options were read from.
        config: all options, with the sources.
        named: names of the options that come from the file.
        is_record: whether the file is the record of a run, which may come from someone else.

    Raises:
        ConfigError: an address is not a plain one; or, of a record, something would be fetched from elsewhere and
            `allow_fetch` is not set.
        StratalensError: of a record, a source is malformed.
    """
    for option, text in _texts(config, named):
        if is_url(text) and not is_plain(text):
            raise ConfigError(
                f"{file}: {option} {_shown(text)}: a file may name only addresses of {', '.join(PLAIN_PROTOCOLS)}, not "
                f"nested in one another; if you trust this one, type it after --{option} of analyze"
            )
    if not is_record:
        return
    fetched = [*_fetched_texts(config, named), *_fetched_models(config, named)]
    if fetched and not config.allow_fetch:
        raise ConfigError(
            f"{file}: it names what is not on this machine: {_first(fetched)}; if you trust these, add --allow_fetch"
        )


def local_texts(config: RunConfig, named: Collection[str]) -> str:
    """Name the texts on this machine that a file names, the first few of many; empty where there are none.

    Args:
        config: all options, with the texts.
        named: names of the options that come from the file.
    """
    texts = _texts(config, named)
    return _first(
        [f"{option} {_shown(text)}" for option, text in texts if not (is_dataset(text) or _is_elsewhere(text))]
    )


def _first(sources: Sequence[str]) -> str:
    others = f" and {counted(len(sources) - MAX_SOURCES_SHOWN, 'other')}" if len(sources) > MAX_SOURCES_SHOWN else ""
    return ", ".join(sources[:MAX_SOURCES_SHOWN]) + others


def _texts(config: RunConfig, named: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield (option, path or address) of the texts that the file names."""
    texts = {
        "domain_data": config.domain_data,
        "general_data": config.general_data,
        "pair": [text for _, *both in config.pair for text in both],
    }
    for option in texts:
        if option in named:
            yield from ((option, text) for text in texts[option])


def _fetched_texts(config: RunConfig, named: Collection[str]) -> Iterator[str]:
    """Name the texts that are elsewhere. A dataset always counts as such, as its card may name addresses."""
    for option, text in _texts(config, named):
        if is_dataset(text):
            yield f"{option} {_shown(text)}"
        elif _is_elsewhere(text):
            require_complete(text)
            yield f"{option} {_shown(text)}"


def _is_elsewhere(text: str) -> bool:
    return is_url(text) and not is_local(text)


def _fetched_models(config: RunConfig, named: Collection[str]) -> Iterator[str]:
    """Name the models that would be downloaded from the Hub; a revision alone may decide what that is."""
    model, saes = config.base_model, config.sae_model
    decides_model = bool({"base_model", "revision"}.intersection(named))
    if decides_model and model is not None and not is_on_this_machine(model, config.revision, ModelError):
        revision = f" (revision {_shown(config.revision)})" if config.revision else ""
        yield f"base_model {_shown(model)}{revision} from the Hugging Face Hub"
    decides_saes = bool({"sae_model", "sae_revision"}.intersection(named))
    if decides_saes and saes is not None and not _has_saes(saes, config.sae_revision):
        revision = f" (revision {_shown(config.sae_revision)})" if config.sae_revision else ""
        yield f"sae_model {_shown(saes)}{revision} from the Hugging Face Hub"


def _has_saes(name: str, revision: str | None) -> bool:
    place = parse_place(name)
    return place.is_local or is_on_this_machine(place.location, revision, CheckpointError)


def _shown(source: str) -> str:
    return redacted(source)[:MAX_SOURCE_CHARACTERS]
