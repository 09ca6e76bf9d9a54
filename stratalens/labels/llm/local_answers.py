"""What a local labelling model answers: requests as tokens, several answered together, and their texts."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from stratalens.errors import LabelingError
from stratalens.labels.llm.chat import SHORTER_PROMPT, Message, NoReply, Reply, usable_text
from stratalens.labels.llm.chat_template import MAX_TEMPLATE_SECONDS, ChatTemplate
from stratalens.labels.llm.deadline import within
from stratalens.labels.llm.padded import TokenPrompt, fit_context, greedy_answers
from stratalens.labels.llm.reasoning import is_mark, opening_of
from stratalens.models.hub import hub_errors
from stratalens.models.memory import out_of_memory, release_device_memory


class LoadedChat(NamedTuple):
    """A language model with what it needs to answer."""

    source: str
    model: Any
    tokenizer: Any
    template: ChatTemplate | None
    end_ids: list[int]
    """Tokens that end an answer."""
    context: int | None
    """Limit on the tokens of prompt and answer together; None if the model has none."""


class TokenQuestion(NamedTuple):
    """A request as tokens."""

    prompt: str
    tokens: TokenPrompt


def question_of(loaded: LoadedChat, messages: Sequence[Message], max_tokens: int) -> TokenQuestion:
    """Turn a request into tokens; a prompt that is too long is refused, not cut."""
    prompt, options = _prompt(loaded, messages)
    token_ids = _encode(loaded, prompt, options)
    room = max_tokens if loaded.context is None else min(max_tokens, loaded.context - len(token_ids))
    if room < 1:
        raise NoReply("prompt longer than the model's context", SHORTER_PROMPT)
    return TokenQuestion(prompt, TokenPrompt(token_ids, room))


def answers_to(loaded: LoadedChat, questions: Sequence[TokenQuestion]) -> list[Reply | Exception]:
    """Answer questions together; the error of one is returned in its place."""
    length_and_ids = [(len(one.tokens.token_ids), one.tokens.token_ids) for one in questions]
    order = sorted(range(len(questions)), key=length_and_ids.__getitem__)
    found = dict(zip(order, _in_halves(loaded, [questions[at] for at in order]), strict=True))
    return [found[at] for at in range(len(questions))]


def _in_halves(loaded: LoadedChat, questions: Sequence[TokenQuestion]) -> list[Reply | Exception]:
    """Answer questions together or, where memory or the context does not suffice, in two halves."""
    prompts = [one.tokens for one in questions]
    if len(questions) == 1 or fit_context(prompts, loaded.context):
        answers = _attempt(loaded, prompts)
        if not isinstance(answers, Exception):
            return [_reply(loaded, *pair) for pair in zip(questions, answers, strict=True)]
        if len(questions) == 1:
            return [answers]
    middle = (len(questions) + 1) // 2
    return [*_in_halves(loaded, questions[:middle]), *_in_halves(loaded, questions[middle:])]


def _attempt(loaded: LoadedChat, prompts: Sequence[TokenPrompt]) -> list[list[int]] | Exception:
    """The tokens of the answers, or why there are none."""
    failed: Exception
    try:
        with hub_errors(loaded.source, LabelingError):
            try:
                return greedy_answers(loaded.model, prompts, loaded.end_ids)
            except Exception as problem:
                if not out_of_memory(problem):
                    raise
                failed = NoReply("out of memory", "use a smaller labelling model, or another --device")
    except Exception as problem:
        return problem
    # Outside the except clause, because the tensors of the failed attempt are freed only when that clause ends.
    release_device_memory()
    return failed


def _reply(loaded: LoadedChat, question: TokenQuestion, answer_ids: list[int]) -> Reply | Exception:
    cut_off = len(answer_ids) >= question.tokens.max_new_tokens and answer_ids[-1] not in loaded.end_ids
    try:
        text = usable_text(opening_of(question.prompt) + decode(loaded.tokenizer, answer_ids), cut_off)
    except NoReply as problem:
        return problem
    return Reply(text, len(question.tokens.token_ids), len(answer_ids), cut_off)


def decode(tokenizer: Any, answer_ids: list[int]) -> str:
    """Return the text of an answer, with those special tokens alone that stand around reasoning."""
    special = set(tokenizer.all_special_ids).intersection(answer_ids)
    left_out = {token_id for token_id in special if not is_mark(tokenizer.decode([token_id]).strip())}
    return tokenizer.decode([one for one in answer_ids if one not in left_out], skip_special_tokens=left_out == special)


def _prompt(loaded: LoadedChat, messages: Sequence[Message]) -> tuple[str, dict[str, bool]]:
    """Return the prompt by the model's template, else the plain texts in order; and how it becomes tokens."""
    if loaded.template is None:
        return "\n\n".join(message["content"] for message in messages), {}
    return loaded.template.prompt(messages), {"add_special_tokens": False}


def _encode(loaded: LoadedChat, prompt: str, options: Mapping[str, bool]) -> list[int]:
    """Return the token ids of a prompt."""
    try:
        return within(MAX_TEMPLATE_SECONDS, lambda: loaded.tokenizer(prompt, **options)["input_ids"])
    except TimeoutError:
        raise LabelingError(
            f"{loaded.source}: its tokenizer did not end within {MAX_TEMPLATE_SECONDS:g} s; "
            "choose another model with --labeling_model"
        ) from None
