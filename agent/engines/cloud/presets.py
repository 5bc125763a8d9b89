"""Whose endpoint it is: where each kind is found, what it takes, and what it does in a way of its own.

All speak OpenAI's chat completions. What differs is from their documentation, and is told in docs/cloud.md.
"""

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from agent.settings import Cloud

# What no endpoint here is without: messages, model, max_tokens, temperature, top_p, stop, seed, stream. The rest is
# what `Preset.takes` may name.
TOP_K = "top_k"
RESPONSE_FORMAT = "response_format"

_NVIDIA = "integrate.api.nvidia.com"
# NVIDIA's gateway takes the requests at one host, and tells what became of those it put off at another.
_NVIDIA_PUT_OFF = "api.nvcf.nvidia.com"


@dataclass(frozen=True, slots=True)
class Preset:
    """A kind of endpoint.

    Attributes:
        base_url: where it is found by default; None for one that everybody has at an address of his own.
        key: whether it is of no use without a key, where it is not a server of one's own.
        key_header: where the key goes; ``Authorization`` takes it as a bearer token.
        takes: which optional fields of a job it knows.
        detail: whether it knows how closely a picture shall be looked at.
        pictures_first: whether pictures have to stand before the text of their message.
        health: the path that says by a status of 500 and more that a server of one's own is not ready; None where there
            are none.

    """

    base_url: str | None
    key: bool = False
    key_header: str = "Authorization"
    takes: frozenset[str] = frozenset()
    detail: bool = False
    pictures_first: bool = False
    health: str | None = None


_PRESETS = {
    "nim": Preset(f"https://{_NVIDIA}/v1", key=True, pictures_first=True, health="/v1/health/ready"),
    "github": Preset("https://models.github.ai/inference", key=True, takes=frozenset({RESPONSE_FORMAT}), detail=True),
    "azure": Preset(None, key=True, key_header="api-key", takes=frozenset({RESPONSE_FORMAT}), detail=True),
    "ollama": Preset("http://127.0.0.1:11434/v1", takes=frozenset({RESPONSE_FORMAT}), health="/api/version"),
    "llamacpp": Preset("http://127.0.0.1:8080/v1", takes=frozenset({RESPONSE_FORMAT, TOP_K}), health="/health"),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as it is configured.

    Attributes:
        preset: its kind.
        name: the kind's name.
        chat: URL of the chat completions.
        put_off: URL of what became of a request that was put off (status 202), before its id.
        health: URL to ask for readiness; None where there is none.
        needs_key: whether it is of no use without a key.

    """

    preset: Preset
    name: str
    chat: str
    put_off: str
    health: str | None
    needs_key: bool

    def credentials(self, key: str | None) -> dict[str, str]:
        """Return the header that shows the key, if there is one."""
        if key is None:
            return {}
        return {self.preset.key_header: f"Bearer {key}" if self.preset.key_header == "Authorization" else key}


def endpoint(settings: Cloud) -> Endpoint:
    """Find the endpoint that is configured.

    Its URL's query goes along with each request: Azure wants an ``api-version`` there.

    Raises:
        ValueError: there is no such address; one sentence that says what to do.

    """
    preset = _PRESETS[settings.preset]
    base_url = settings.base_url or preset.base_url
    if base_url is None:
        raise ValueError(f"cloud.base_url is needed: with the preset {settings.preset} everybody has one of his own")
    parts = _split(base_url)
    path = parts.path.rstrip("/")
    root = parts._replace(path="", query="")
    hosted = preset.health is None or parts.hostname == _NVIDIA
    # A server of one's own may stand behind a path: its health is found beside its /v1.
    health = None if hosted else root._replace(path=f"{path.removesuffix('/v1')}{preset.health}").geturl()
    put_off = root._replace(netloc=_NVIDIA_PUT_OFF) if parts.hostname == _NVIDIA else root
    return Endpoint(
        preset,
        settings.preset,
        chat=parts._replace(path=path + "/chat/completions").geturl(),
        put_off=put_off._replace(path="/v2/nvcf/pexec/status/").geturl(),
        health=health,
        needs_key=preset.key and hosted,
    )


def _split(base_url: str) -> SplitResult:
    parts = urlsplit(base_url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("cloud.base_url has to begin with https:// or http:// and a host, as in https://host/v1")
    if parts.username is not None or parts.password is not None:
        raise ValueError("cloud.base_url may hold no login: put the key into cloud.api_key_file")
    if parts.fragment:
        raise ValueError("cloud.base_url may have no part after a #")
    return parts
