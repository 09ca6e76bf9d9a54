"""Tell the answer of a model from its reasoning, whatever marks stand around that."""

import json
import re
from typing import NamedTuple

STEMS = "think|thought|reason|reflect|scratchpad|monolog|ponder|deliberat|rationale"
"""A tag whose name holds one of these is around reasoning: `<think>`, `[THINK]`, `<|begin_of_thought|>`."""
_NAME = rf"(?:[\w:.-]{{0,24}}?(?:{STEMS})[\w:.-]{{0,24}}|analysis|cot)"
_END = r"(?:/|end[_-]?(?:of[_-]?)?)"
_OPENING = (
    rf"<\|?\s?(?!end){_NAME}(?:\s[^<>\n]{{0,80}})?\|?(?<!/)>|\[(?!end){_NAME}\]|◁{_NAME}▷|<\|channel>\s?{_NAME}"
    r"|<\|inner_prefix\|>|\bHere(?: is|'s) my thought process:"
)
_CLOSING = (
    rf"<\|?\s?{_END}{_NAME}\s?\|?>|\[{_END}{_NAME}\]|◁{_END}{_NAME}▷|<channel\|>"
    r"|<\|inner_suffix\|>|\bHere(?: is|'s) my response:"
)
_MARK = re.compile(f"(?P<opening>{_OPENING})|(?P<closing>{_CLOSING})", re.IGNORECASE)
_OPENING_AT_END = re.compile(rf"(?:{_OPENING})\s*\Z", re.IGNORECASE)
MAX_OPENING_CHARACTERS = 200
"""A prompt is searched for an opening mark in so many of its last characters."""
_ANSWER_FOLLOWS = re.compile(r"[ \t]*[\n{`<\[]")
MAX_OBJECT_CHARACTERS = 20_000
"""Of a JSON object in which marks count as text: an answer may name such a tag."""
MAX_OBJECTS = 1000
"""Places in a text, at most, at which such an object is looked for."""

_CHANNELS = re.compile(
    r"\A\s*(?:<\|(?:start|channel|message)\|>|(?:analysis|commentary|final)\s*<\|message\|>)|<\|start\|>\w*<\|channel\|>"
)
"""A text in the channels of gpt-oss, one of which is `final`."""
_CHANNEL = re.compile(
    r"(?:<\|channel\|>\s*|\A\s*)(analysis|commentary|final)(?:(?:(?!<\|channel\|>)[^\n]){0,80}?<\|message\|>)?"
)
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_CHANNEL_WORDS = re.compile(r"\Aanalysis.*assistantfinal|\Aanalysis(?=[A-Z])", re.DOTALL)
"""The same without its special tokens, as some servers send it."""
_CHANNEL_TOKEN = re.compile(r"<\|(?:start|end|channel|message|constrain|return|call)\|>")

_ANSWER_NAME = r"(?:(?:begin_of_|start_)?(?:final_?)?(?:answer|response|solution|output|result|label|box)|final)"
_ANSWER_TAG = re.compile(
    rf"\A\s*(?:<\|?{_ANSWER_NAME}\|?>|\[{_ANSWER_NAME}\])(.*?)"
    rf"(?:<\|?(?:/|end_(?:of_)?){_ANSWER_NAME.replace('begin_of_|start_', '')}\|?>|\[/{_ANSWER_NAME}\]|\Z)",
    re.DOTALL | re.IGNORECASE,
)
"""A tag around the whole answer."""
_LAST_TOKENS = re.compile(r"(?:\s*(?:<[|｜][\w▁]{1,30}[|｜]>|</s>|<eos>|<end_of_turn>))+\s*\Z")


class _Split(NamedTuple):
    answer: str
    unfinished: bool
    """Whether the text ends inside the reasoning."""


def remove_reasoning(text: str, cut_off: bool = False) -> str:
    """Return the answer without the reasoning around it; empty if the text ends inside the reasoning.

    Reasoning stands between marks at the start of a line, which may be nested. Some chat templates open it in the
    prompt; then the text holds only its end. Marks in a JSON object belong to the answer.

    Args:
        text: all that the model wrote.
        cut_off: whether the end of the text is known to be missing.
    """
    return _split(text, cut_off).answer


def ends_in_reasoning(text: str, cut_off: bool = False) -> bool:
    """Whether a text ends before the answer begins; the arguments are those of `remove_reasoning`."""
    return _split(text, cut_off).unfinished


def opening_of(prompt: str) -> str:
    """Return the mark at the end of a prompt that opens the reasoning; empty if there is none."""
    found = _OPENING_AT_END.search(prompt[-MAX_OPENING_CHARACTERS:])
    return found[0] if found else ""


def is_mark(token: str) -> bool:
    """Whether a special token of a model is one of the marks around reasoning."""
    return bool(_MARK.fullmatch(token) or _CHANNEL_TOKEN.fullmatch(token) or token in ("<|channel>", "<channel|>"))


def _split(text: str, cut_off: bool) -> _Split:
    if _CHANNELS.search(text):
        split = _split_channels(text)
    elif words := _CHANNEL_WORDS.match(text.lstrip()):
        split = _Split(text.lstrip()[words.end() :], unfinished=not words[0].endswith("final"))
    else:
        split = _split_tags(text, cut_off)
    if split.unfinished:
        return _Split("", unfinished=True)
    answer = _LAST_TOKENS.sub("", split.answer)
    if tagged := _ANSWER_TAG.match(answer):
        answer = tagged[1]
    return _Split(answer.strip(), unfinished=False)


def _split_channels(text: str) -> _Split:
    channels = list(_CHANNEL.finditer(text))
    answers = [channel for channel in channels if channel[1] == "final"]
    if not answers:
        message = text.rpartition("<|message|>")[2] if not channels else ""
        return _Split(_CHANNEL_END.split(message)[0], unfinished=bool(channels) or not message)
    return _Split(_CHANNEL_END.split(text[answers[-1].end() :])[0], unfinished=False)


def _split_tags(text: str, cut_off: bool) -> _Split:
    """Leave out what stands between marks, and all that stands before a closing mark whose opening is not there."""
    objects = _JsonObjects(text)
    kept: list[str] = []
    start = depth = mentions = last_closing = 0
    for mark in _MARK.finditer(text):
        if not depth and objects.hold(mark.start(), start):
            continue
        if mark["opening"]:
            if not depth and not _begins_line(text, start, mark.start()):
                mentions += 1
                continue
            if not depth:
                kept.append(text[start : mark.start()])
                last_closing = 0
            depth += 1
        elif depth:
            depth, last_closing = depth - 1, mark.end()
            start = start if depth else mark.end()
        elif mentions and not _ANSWER_FOLLOWS.match(text, mark.end()):
            mentions -= 1
        else:
            kept, start, mentions = [], mark.end(), 0
    if depth and (cut_off or not last_closing):
        return _Split("", unfinished=True)
    return _Split("".join([*kept, text[last_closing if depth else start :]]), unfinished=False)


def _begins_line(text: str, start: int, at: int) -> bool:
    return not text[max(start, text.rfind("\n", start, at) + 1) : at].strip()


class _JsonObjects:
    """The JSON objects of a text, found from left to right as places are asked for in rising order."""

    def __init__(self, text: str):
        self._text = text
        self._next = self._end = self._tried = 0

    def hold(self, place: int, start: int) -> bool:
        """Whether a place lies in an object that begins at `start` or later."""
        while self._end <= place:
            begin = self._text.find("{", max(self._next, self._end, start), place)
            if begin < 0 or self._tried == MAX_OBJECTS:
                self._next = max(self._next, place)
                return False
            self._next, self._tried = begin + 1, self._tried + 1
            self._end = max(self._end, self._end_of(begin))
        return True

    def _end_of(self, begin: int) -> int:
        try:
            return begin + json.JSONDecoder().raw_decode(self._text[begin : begin + MAX_OBJECT_CHARACTERS])[1]
        except (ValueError, RecursionError):
            return 0
