"""Task items: a prompt with a correct and a wrong continuation, of which a model that solves it prefers the former."""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, TypeGuard

from stratalens.errors import ConfigError, counted
from stratalens.files.hashing import hash64
from stratalens.files.locations import DATA_DIRECTORY, user_path
from stratalens.files.plain_yaml import read_text

DOMAINS_WITH_TASKS = ("financial",)
"""Built-in domains for which items ship; the others have none."""
MIN_SOLVED_ITEMS = 10
"""Of fewer items that are solved before anything is removed, nothing is reported."""
MAX_TASK_BYTES = 16 * 2**20
MAX_TASK_ITEMS = 4096
"""Of all files together."""
MAX_PROMPT_CHARACTERS, MAX_CONTINUATION_CHARACTERS, MAX_NAME_CHARACTERS = 8000, 1000, 60
NO_KIND = "task"
"""The kind of items that name none."""
ALL_KINDS = "all"
"""Stands for the items of all kinds together, and is therefore no kind."""
_SIDES = {"domain": True, "general": False}
CONTINUATIONS = ("correct", "wrong")
"""The fields of both, in the order in which they are read."""
_FIELDS = {
    **{"prompt": MAX_PROMPT_CHARACTERS, **dict.fromkeys(CONTINUATIONS, MAX_CONTINUATION_CHARACTERS)},
    **dict.fromkeys(("kind", "side", "id"), MAX_NAME_CHARACTERS),
}
"""Most characters of each field."""
_NO_TEXT = ("Cc", "Cs")
"""Unicode categories of control characters and halves of characters."""
_ALLOWED = "\n\t"
_EXPECTED = 'lines such as {"prompt": "When demand grows, prices usually", "correct": " rise", "wrong": " fall"}'


class TaskItem(NamedTuple):
    """A prompt and two continuations."""

    where: str
    """File and line, for messages."""
    id: str
    """Names it among all items; made of a hash of its text if the file gives none."""
    domain: bool
    """Whether it is of the domain, and not general."""
    kind: str
    prompt: str
    correct: str
    wrong: str


def load_task_items(domain: str, user_files: Iterable[str] = ()) -> list[TaskItem]:
    """Load task items, in the order of the files.

    Args:
        domain: one of `DOMAINS_WITH_TASKS` has items of its own.
        user_files: paths of the user's files, which replace them. Where these have no general item, the general items
            that ship are added.

    Returns:
        An empty list for a domain without items and without files.

    Raises:
        ConfigError: a file cannot be read, a line of it is no item, an item or its id is there twice, or there are too
            many or too few.
    """
    paths = [user_path(name) for name in user_files]
    if not paths and domain in DOMAINS_WITH_TASKS:
        paths = [shipped_tasks(domain), shipped_tasks("general")]
    items = _distinct(item for path in paths for item in _items_of(path))
    if items and all(item.domain for item in items):
        items = _distinct((*items, *_items_of(shipped_tasks("general"))))
    own = sum(item.domain for item in items)
    if items and own < MIN_SOLVED_ITEMS:
        raise ConfigError(
            f"{', '.join(map(str, paths))}: {counted(own, 'item')} of the side `domain`; at least {MIN_SOLVED_ITEMS} "
            "are needed, and those that the model does not solve are left out"
        )
    return items


def shipped_tasks(name: str) -> Path:
    """Path of the jsonl file with the items of one of `DOMAINS_WITH_TASKS`, or of `general`."""
    return DATA_DIRECTORY / "tasks" / f"{name}.jsonl"


def kinds_of(items: Sequence[TaskItem]) -> list[str]:
    """The kinds with at least `MIN_SOLVED_ITEMS` items of the domain, those of most items first, then by name."""
    counts = Counter(item.kind for item in items if item.domain)
    enough = [kind for kind, items_of_kind in counts.items() if items_of_kind >= MIN_SOLVED_ITEMS]
    return sorted(enough, key=lambda kind: (-counts[kind], kind))


def _items_of(path: Path) -> Iterator[TaskItem]:
    lines = read_text(path, MAX_TASK_BYTES).split("\n")
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise ConfigError(f"{path}: no task item in this file; expected {_EXPECTED}")
    for number, line in numbered:
        yield _item(f"{path}, line {number}", line)


def _distinct(items: Iterable[TaskItem]) -> list[TaskItem]:
    """All items.

    Raises:
        ConfigError: two are the same or have the same id, or there are too many.
    """
    kept, known = list[TaskItem](), dict[tuple[str, ...], str]()
    for item in items:
        for what, key in (("id", (item.id,)), ("item", (item.prompt, *sorted((item.correct, item.wrong))))):
            if key in known:
                raise ConfigError(f"{item.where}: the same {what} as in {known[key]}")
            known[key] = item.where
        if len(kept) == MAX_TASK_ITEMS:
            raise ConfigError(f"{item.where}: more than {MAX_TASK_ITEMS:,} task items; leave some out")
        kept.append(item)
    return kept


def _item(where: str, line: str) -> TaskItem:
    found = _fields(where, line)
    side, kind = found.get("side", "domain"), found.get("kind", NO_KIND)
    if side not in _SIDES:
        raise ConfigError(f"{where}: `side` is `{side}`; expected {' or '.join(_SIDES)}")
    if kind == ALL_KINDS:
        raise ConfigError(f"{where}: `kind` is `{ALL_KINDS}`, which stands for all kinds together; name it otherwise")
    prompt, correct, wrong = (found[name] for name in ("prompt", *CONTINUATIONS))
    if correct == wrong:
        raise ConfigError(f"{where}: `correct` and `wrong` are the same")
    if prompt != prompt.rstrip():
        raise ConfigError(f"{where}: `prompt` ends in white space; let `correct` and `wrong` begin with it instead")
    if correct[0].isspace() != wrong[0].isspace():
        raise ConfigError(f"{where}: of `correct` and `wrong`, only one begins with a space; both or none should")
    name = found.get("id") or f"{hash64('task item', prompt, correct, wrong):016x}"
    return TaskItem(where, name, _SIDES[side], kind, prompt, correct, wrong)


def _fields(where: str, line: str) -> Mapping[str, str]:
    """Field -> its text, of one line.

    Raises:
        ConfigError: it is not JSON, lacks a field or has an unknown one, or a field is no text or is too long.
    """
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        raise ConfigError(f"{where}: not JSON; expected {_EXPECTED}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{where}: no item; expected {_EXPECTED}")
    if missing := [name for name in ("prompt", *CONTINUATIONS) if name not in found]:
        raise ConfigError(f"{where}: `{missing[0]}` is missing; expected {_EXPECTED}")
    if unknown := [name for name in found if name not in _FIELDS]:
        raise ConfigError(f"{where}: `{unknown[0][:40]}` is unknown; the fields are {', '.join(_FIELDS)}")
    for name, value in found.items():
        if not _is_text(f"{where}: `{name}`", value, _FIELDS[name]):
            raise ConfigError(f"{where}: `{name}` is {'empty' if isinstance(value, str) else 'no text'}")
    return found


def _is_text(what: str, value: object, most: int) -> TypeGuard[str]:
    """Whether a value is text that is not blank.

    Raises:
        ConfigError: it is too long, or holds what is no text.
    """
    if not isinstance(value, str) or not value.strip():
        return False
    if len(value) > most:
        raise ConfigError(f"{what} has {len(value):,} characters; at most {most:,} are accepted")
    if any(unicodedata.category(one) in _NO_TEXT and one not in _ALLOWED for one in value):
        raise ConfigError(f"{what} holds a control character or half a character; remove it")
    return True
