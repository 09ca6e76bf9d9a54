"""Commands that need no network use none, whatever a result names."""

import json
import socket
from pathlib import Path

import pytest

from stratalens.cli.main import main


@pytest.fixture
def no_network(monkeypatch) -> None:
    def refuse(*arguments: object, **_options: object) -> None:
        pytest.fail(f"the network was used: {arguments}")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket.socket, "sendto", refuse)


def test_the_fixture_sees_a_connection(no_network):
    with pytest.raises(pytest.fail.Exception, match="the network was used"):
        socket.create_connection(("localhost", 9))


def test_show_report_and_rank_use_no_network(tiny_arguments, tmp_path, no_network, capsys):
    output = tmp_path / "out"
    assert main(["analyze", *tiny_arguments, "--quiet"]) == 0
    path = output / "run.json"
    record = json.loads(path.read_text())
    record["settings"] |= {
        "domain_data": ["https://192.0.2.1/a.jsonl"],
        "base_model": "someone/model",
        "labeling_endpoint": "http://192.0.2.1:8000/v1",
    }
    path.write_text(json.dumps(record))
    feature = first_feature(output)
    assert main(["show", str(output), "2", feature]) == 0
    assert f"Feature {feature} of layer 2" in capsys.readouterr().out
    assert main(["report", str(output), "--quiet"]) == 0
    assert main(["rank", str(output), "--top_n", "3", "--quiet"]) == 0
    assert main(["label", str(output), "--quiet"]) == 0


def first_feature(output: Path) -> str:
    return (output / "layer_2" / "top_30_features_analysis.csv").read_text().splitlines()[1].split(",")[0]
