"""Keys and tokens from the environment are sent to their own service and appear nowhere else."""

import json
from pathlib import Path

import pytest
from chat_servers import MisbehavingServer, Request, completion
from finished_result import all_text
from huggingface_hub import HfApi
from refusal import output_of
from threads import one_thread

from stratalens.cli.main import main
from stratalens.errors import ModelError
from stratalens.models.hub import hub_errors

SECRETS = {
    "STRATALENS_API_KEY": "sk-first-0123456789abcdef",
    "OPENAI_API_KEY": "sk-other-fedcba9876543210",
    "HF_TOKEN": "hf_AbCdEfGhIjKlMnOpQrStUvWxYz",
}


def chatty(request: Request) -> None:
    """Answers requests for a label, and sometimes fails with an error that repeats everything it received."""
    headers = dict(request.handler.headers)
    if len(json.dumps(request.body)) % 3 == 0:
        return request.answer(400, {"error": {"message": f"cannot: {headers}"}})
    request.answer(200, completion(json.dumps({"label": "loans and banks", "ratings": [5]})))


@pytest.mark.parametrize("more", [[], ["--no_examples"]], ids=["", "without examples"])
def test_a_whole_run_leaves_no_secret_in_files_cache_or_output(monkeypatch, capfd, tmp_path, tiny_arguments, more):
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    monkeypatch.setenv("STRATALENS_CACHE", str(tmp_path / "cache"))
    with MisbehavingServer(chatty) as server, one_thread():
        assert main(["analyze", *tiny_arguments, *more, "--top_n", "4", "--labeling_endpoint", server.url]) == 0
        sent = json.dumps(server.bodies)
        assert set(server.keys) == {f"Bearer {SECRETS['STRATALENS_API_KEY']}"}
    printed = capfd.readouterr()
    directories = [output_of(tiny_arguments), tmp_path / "cache"]
    texts = [printed.out, printed.err, sent, *(all_text(path) for path in directories), *raw_bytes(directories)]
    assert len(texts) > 20
    for secret in SECRETS.values():
        for text in texts:
            assert secret not in text
            assert secret[3:] not in text


def raw_bytes(directories: list[Path]) -> list[str]:
    return [
        path.read_bytes().decode("latin1")
        for directory in directories
        for path in directory.rglob("*")
        if path.is_file()
    ]


@pytest.mark.parametrize("character", ["é", "\x01", " "])
def test_a_token_that_cannot_be_sent_is_not_repeated(monkeypatch, documented, character):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", f"hf_AbCd{character}EfGhIjKlMn")
    with pytest.raises(ModelError) as error, hub_errors("someone/model", ModelError):
        HfApi(endpoint="http://127.0.0.1:9").model_info("someone/model")
    assert "EfGhIjKlMn" not in str(error.value)
    if character == "é":
        assert "the Hub token contains an invalid character" in str(error.value)
        documented("The Hub", "a token that cannot be sent", str(error.value))
