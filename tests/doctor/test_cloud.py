"""The cloud endpoint, as the doctor tries it."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from agent.doctor.cloud import cloud
from agent.doctor.finding import Finding
from agent.settings import Cloud

_KEY = "nvapi-secret"


class _Endpoint:
    """Lists models: to anybody, or to those who show the key; or says what ``status`` is."""

    def __init__(self) -> None:
        self.open, self.status, self.asked = True, 200, list[str]()
        endpoint = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                endpoint.asked.append(self.path)
                refused = not endpoint.open and self.headers["Authorization"] != f"Bearer {_KEY}"
                self.send_response(401 if refused else endpoint.status)
                self.end_headers()
                self.wfile.write(json.dumps({"data": [{"id": "text-model"}]}).encode())

            def log_message(self, *_: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def endpoint() -> Iterator[_Endpoint]:
    running = _Endpoint()
    yield running
    running.stop()


def _found(url: str, **more: object) -> Finding:
    given = {"enabled": True, "base_url": url, "api_key": _KEY, "text_model": "text-model", **more}
    (finding,) = cloud(Cloud.model_validate(given), 2)
    return finding


def test_a_cloud_that_is_not_enabled_is_not_asked(endpoint: _Endpoint) -> None:
    assert _found(endpoint.url, enabled=False).mark == "told"
    assert endpoint.asked == []


def test_a_key_that_makes_the_difference_is_taken(endpoint: _Endpoint) -> None:
    endpoint.open = False
    assert _found(endpoint.url) == Finding("cloud", "well", "127.0.0.1 is reached; it takes the key")
    assert endpoint.asked == ["/v1/models", "/v1/models"]


def test_a_list_that_is_open_to_all_does_not_prove_the_key(endpoint: _Endpoint) -> None:
    assert "only a job tells whether it takes the key" in _found(endpoint.url).text


def test_a_refused_key_is_told_and_never_shown(endpoint: _Endpoint) -> None:
    endpoint.open = False
    found = _found(endpoint.url, api_key="nvapi-other")
    assert found.text == "127.0.0.1 refuses the key (401): put another into cloud.api_key_file"
    assert not found.stops


def test_a_model_that_is_not_listed_is_told(endpoint: _Endpoint) -> None:
    assert "does not offer gone-model" in _found(endpoint.url, text_model="gone-model").text


def test_a_server_that_is_not_well_is_told(endpoint: _Endpoint) -> None:
    endpoint.status = 503
    assert _found(endpoint.url).text == "127.0.0.1 is not well (503): try again later"


def test_an_endpoint_that_is_not_there_is_told() -> None:
    assert "cannot be reached (Connection refused)" in _found("http://127.0.0.1:9/v1").text


def test_a_name_with_many_addresses_behind_a_firewall_is_told_in_time(behind_a_firewall: int) -> None:
    begun = time.monotonic()
    given = {
        "enabled": True,
        "base_url": f"http://cloud.example:{behind_a_firewall}",
        "api_key": _KEY,
        "text_model": "m",
    }
    (found,) = cloud(Cloud.model_validate(given), 0.2)
    assert time.monotonic() - begun < 0.2 * 4
    assert "cannot be reached (no answer)" in found.text


def test_tls_with_a_server_that_speaks_none_is_told(endpoint: _Endpoint) -> None:
    assert "check cloud.base_url" in _found(endpoint.url.replace("http:", "https:")).text


def test_a_key_file_that_cannot_be_read_stops_the_box(tmp_path: Path) -> None:
    found = _found("http://127.0.0.1:9/v1", api_key_file=str(tmp_path / "absent"))
    assert found.text.startswith("cloud.api_key_file: cannot use")
    assert found.stops


def test_a_hosted_endpoint_without_a_key_is_told_before_it_is_asked() -> None:
    given = {"enabled": True, "text_model": "m"}
    (found,) = cloud(Cloud.model_validate(given))
    assert found.text == "it needs a key: put one into the file that cloud.api_key_file names"
