"""A stub of a labelling model that answers by a script, as no small real model gives the right answers."""

import json
import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence

from stratalens.labels.llm.chat import Message, Reply

Answer = Callable[[str], str]
LISTED = re.compile(r"^\d+\. (\".*\")$", re.MULTILINE)


class Script:
    """A stub of a `ChatModel`: it answers by a function of the last message, and records all that it was asked."""

    def __init__(self, answer: Answer, concurrency: int = 1, seconds: float = 0.0):
        self._answer, self.concurrency, self._seconds = answer, concurrency, seconds
        self._lock = threading.Lock()
        self._under_way = self.most_at_once = 0
        self.asked: list[Sequence[Message]] = []

    @property
    def name(self) -> str:
        return "script"

    @property
    def questions(self) -> list[str]:
        return [messages[-1]["content"] for messages in self.asked]

    def reply(
        self, messages: Sequence[Message], *, max_tokens: int, schema: Mapping[str, object] | None = None
    ) -> Reply:
        assert max_tokens > 0
        assert schema is not None
        with self._lock:
            self.asked.append(messages)
            self._under_way += 1
            self.most_at_once = max(self.most_at_once, self._under_way)
        try:
            time.sleep(self._seconds)
            return Reply(self._answer(messages[-1]["content"]), 1, 1)
        finally:
            with self._lock:
                self._under_way -= 1


def kind_of(question: str) -> str:
    if "Answer again" in question:
        return "repair"
    if "stand between" in question and "ratings" in question:
        return "fuzzing"
    if "ratings" in question:
        return "detection"
    return "label" if "passages below" in question else "label_tokens"


def rated(question: str, rate: Callable[[str], int]) -> str:
    return json.dumps({"ratings": [rate(json.loads(text)) for text in LISTED.findall(question)]})


def label_in(question: str) -> str:
    return json.loads(question.splitlines()[0].split(": ", 1)[1])
