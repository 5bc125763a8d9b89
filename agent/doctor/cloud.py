"""The cloud endpoint: whether it is there, and takes the key. Nothing of a job is sent."""

import http.client
import json
import ssl
from collections.abc import Iterator, Mapping
from contextlib import closing
from urllib.parse import urlsplit

from agent import __version__
from agent.credentials import secret
from agent.doctor.addresses import look_up
from agent.doctor.finding import Finding
from agent.engines.cloud.presets import Endpoint, endpoint
from agent.errors import UserError
from agent.settings import Cloud
from agent.threads import begun

# Of a name look-up and a connection, and of each answer.
_ANSWER_S = 2.0
# All that comes after the look-up takes no longer than so many of these.
_ANSWERS = 2.25
# NVIDIA's list of 150 models has 20 KB.
_MOST_BYTES = 1 << 20
_REFUSED = (401, 403)
_SERVER_ERROR = 500


def cloud(settings: Cloud, answer_s: float = _ANSWER_S) -> Iterator[Finding]:
    """Yield whether the endpoint lists its models, and takes the key.

    The key is tried by asking with and without it: some, NVIDIA's among them, list their models to anybody.
    """
    if not settings.enabled:
        yield Finding("cloud", "told", "not enabled: nothing leaves the box")
        return
    try:
        there = endpoint(settings)
        key = secret("cloud.api_key_file", settings.api_key, settings.api_key_file)
    except (UserError, ValueError) as error:
        yield Finding("cloud", "wrong", str(error), stops=True)
        return
    if there.needs_key and not (key and key.strip()):
        yield Finding("cloud", "wrong", "it needs a key: put one into the file that cloud.api_key_file names")
        return
    host = urlsplit(there.chat).hostname
    try:
        look_up(host or "", answer_s)
        credentials = there.credentials(key.strip() if key else None)
        asking = begun(lambda: (_asked(there, credentials, answer_s), key and _asked(there, {}, answer_s)[0]))
        # A name may have several addresses, of which each would have its time.
        (status, body), unknown = asking.result(_ANSWERS * answer_s)
        open_to_all = unknown not in _REFUSED
    except ssl.SSLError as error:
        yield Finding(
            "cloud", "wrong", f"{host} cannot be trusted ({error.reason}): check cloud.base_url and the clock"
        )
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        yield Finding("cloud", "wrong", f"{host} cannot be reached ({reason}): check cloud.base_url and the network")
    else:
        yield _judged(settings, f"{host}", status, body, open_to_all=open_to_all)


def _judged(settings: Cloud, host: str, status: int, body: bytes, *, open_to_all: bool) -> Finding:
    if status in _REFUSED:
        return Finding("cloud", "wrong", f"{host} refuses the key ({status}): put another into cloud.api_key_file")
    if status >= _SERVER_ERROR:
        return Finding("cloud", "wrong", f"{host} is not well ({status}): try again later")
    listed = _names(body) if settings.preset == "nim" else frozenset()
    for name in (settings.text_model, settings.vision_model):
        if listed and name is not None and name not in listed:
            return Finding("cloud", "wrong", f"{host} does not offer {name}: configure a model that it lists")
    taken = "its list of models is open to all, so that only a job tells whether it takes the key"
    return Finding("cloud", "well", f"{host} is reached; {taken if open_to_all else 'it takes the key'}")


def _asked(there: Endpoint, credentials: Mapping[str, str], answer_s: float) -> tuple[int, bytes]:
    """Ask for the list of models; return the status and what came with it.

    By the standard library, which follows no redirect with the key and asks no proxy.
    """
    parts = urlsplit(there.chat)
    path = parts._replace(scheme="", netloc="", path=parts.path.removesuffix("/chat/completions") + "/models").geturl()
    connect = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    with closing(connect(parts.hostname or "", parts.port, timeout=answer_s)) as connection:
        connection.request("GET", path, headers={"User-Agent": f"edge-slm-agent/{__version__}", **credentials})
        response = connection.getresponse()
        return response.status, response.read(_MOST_BYTES)


def _names(body: bytes) -> frozenset[str]:
    """Return the models of an answer; none where it is something else."""
    try:
        return frozenset(str(model["id"]) for model in json.loads(body)["data"])
    except (ValueError, KeyError, TypeError):
        return frozenset()
