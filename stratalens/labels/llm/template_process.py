"""Fill in chat templates. `chat_template.py` runs this file in a process of its own; it imports nothing of the package.

Each line of its input is a request, each line of its output an answer, as JSON. A template is a program that comes with
a model: it may not end, and may fill the memory in one step that nothing can interrupt but the end of its process.
"""

import contextlib
import json
import resource
import sys
import time


def main() -> None:
    """Answer requests until there are no more."""
    memory_bytes, seconds, max_characters = map(int, sys.argv[1:])
    with contextlib.suppress(ValueError, OSError):  # not every system limits memory
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    from transformers.utils.chat_template_utils import render_jinja_template

    for line in sys.stdin.buffer:
        last_second = int(time.process_time()) + seconds + 1
        resource.setrlimit(resource.RLIMIT_CPU, (last_second, resource.RLIM_INFINITY))  # if nobody waits any more
        request = json.loads(line)
        try:
            (text,), _ = render_jinja_template(
                [request["turns"]], chat_template=request["template"], add_generation_prompt=True, **request["tokens"]
            )
            answer = {"text": text} if len(text) <= max_characters else {"failed": "a prompt without end"}
            shown = json.dumps(answer)
        except Exception as error:
            shown = json.dumps({"failed": f"{type(error).__name__} {str(error)[:200]}"})
        sys.stdout.write(shown + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
