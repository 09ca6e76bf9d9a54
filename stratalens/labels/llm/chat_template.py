"""The chat template of a local labelling model, filled in by a process that has little time and memory."""

import contextlib
import json
import os
import subprocess
import sys
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path

from stratalens.errors import LabelingError, printable
from stratalens.labels.llm import template_process
from stratalens.labels.llm.chat import Message
from stratalens.labels.llm.deadline import within
from stratalens.labels.prompts import MAX_PROMPT_CHARACTERS

MAX_TEMPLATE_SECONDS = 60.0
"""For a model's chat template, a small program that comes with the model, and for the tokens of what it makes."""
MAX_TEMPLATE_MEMORY_BYTES = 2**30
"""Address space of the process that fills it in; without work it takes 150 MB."""
KEPT_VARIABLES = ("PATH", "HOME", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Environment of that process, which thus knows no key and no token."""
SET_VARIABLES = {"USE_TORCH": "0", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class ChatTemplate:
    """Makes prompts from chats. Not for several threads at the same time.

    Args:
        source: the model, for messages.
        template: in the language of Jinja.
        tokens: the model's special tokens, name -> text, which a template may use.
    """

    def __init__(self, source: str, template: str, tokens: Mapping[str, str]):
        self._source = source
        self._template = template
        self._tokens = dict(tokens)
        self._process: subprocess.Popen[bytes] | None = None

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the prompt for a chat, up to the answer; of its texts in one turn where the template takes no other.

        Raises:
            LabelingError: the template fails, takes too long or makes no prompt.
        """
        one_turn = [Message(role="user", content="\n\n".join(message["content"] for message in messages))]
        failed = ""
        for turns in (list(messages), one_turn):  # some reject a system turn, or two turns of the same role
            answer = self._answer(turns)
            if text := answer.get("text"):
                return text
            failed = answer.get("failed", "no prompt")
        raise self._unusable(f"fails ({printable(' '.join(failed.split()))})")

    def _answer(self, turns: list[Message]) -> dict[str, str]:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        request = {"turns": turns, "template": self._template, "tokens": self._tokens}
        try:
            process.stdin.write(json.dumps(request).encode() + b"\n")
            process.stdin.flush()
            line = within(MAX_TEMPLATE_SECONDS, process.stdout.readline)
        except TimeoutError:
            self._stop()
            raise self._unusable(f"did not end within {MAX_TEMPLATE_SECONDS:g} s") from None
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            self._stop()
            raise self._unusable("ended its process, perhaps for want of memory")
        return json.loads(line)

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            limits = (MAX_TEMPLATE_MEMORY_BYTES, int(MAX_TEMPLATE_SECONDS), MAX_PROMPT_CHARACTERS)
            kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(Path(template_process.__file__)), *map(str, limits)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=kept | SET_VARIABLES,
            )
            self._finalizer = weakref.finalize(self, _end, self._process)
        return self._process

    def _stop(self) -> None:
        self._finalizer()
        self._process = None

    def _unusable(self, what: str) -> LabelingError:
        return LabelingError(f"{self._source}: its chat template {what}; choose another model with --labeling_model")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
