"""Each preset finds its endpoint, and shows its key as that one wants it."""

from typing import Any

import pytest

from agent.engines.cloud.presets import endpoint
from agent.settings import Cloud


@pytest.mark.parametrize(
    ("settings", "chat"),
    [
        ({"preset": "nim"}, "https://integrate.api.nvidia.com/v1/chat/completions"),
        ({"preset": "github"}, "https://models.github.ai/inference/chat/completions"),
        ({"preset": "ollama"}, "http://127.0.0.1:11434/v1/chat/completions"),
        ({"preset": "llamacpp"}, "http://127.0.0.1:8080/v1/chat/completions"),
        ({"base_url": "http://gpu:8000/v1/"}, "http://gpu:8000/v1/chat/completions"),
        (
            {"preset": "azure", "base_url": "https://r.services.ai.azure.com/models?api-version=2024-05-01-preview"},
            "https://r.services.ai.azure.com/models/chat/completions?api-version=2024-05-01-preview",
        ),
        (
            {"preset": "azure", "base_url": "https://r.openai.azure.com/openai/v1"},
            "https://r.openai.azure.com/openai/v1/chat/completions",
        ),
    ],
)
def test_jobs_go_to_the_address_that_is_documented(settings: dict[str, Any], chat: str) -> None:
    assert endpoint(Cloud(**settings)).chat == chat


@pytest.mark.parametrize(
    ("settings", "health"),
    [
        ({"preset": "nim"}, None),
        ({"preset": "nim", "base_url": "http://gpu:8000/v1"}, "http://gpu:8000/v1/health/ready"),
        ({"preset": "nim", "base_url": "http://gpu/nim/v1"}, "http://gpu/nim/v1/health/ready"),
        ({"preset": "github"}, None),
        ({"preset": "azure", "base_url": "https://r.openai.azure.com/openai/v1"}, None),
        ({"preset": "ollama"}, "http://127.0.0.1:11434/api/version"),
        ({"preset": "llamacpp"}, "http://127.0.0.1:8080/health"),
    ],
)
def test_only_a_server_of_ones_own_is_asked_whether_it_is_ready(settings: dict[str, Any], health: str | None) -> None:
    assert endpoint(Cloud(**settings)).health == health


@pytest.mark.parametrize(
    ("base_url", "put_off"),
    [
        (None, "https://api.nvcf.nvidia.com/v2/nvcf/pexec/status/"),
        ("http://gpu:8000/v1", "http://gpu:8000/v2/nvcf/pexec/status/"),
    ],
)
def test_what_was_put_off_is_looked_for_where_it_is_kept(base_url: str | None, put_off: str) -> None:
    assert endpoint(Cloud(base_url=base_url)).put_off == put_off


@pytest.mark.parametrize(
    ("settings", "needs_key"),
    [
        ({"preset": "nim"}, True),
        ({"preset": "nim", "base_url": "http://gpu:8000/v1"}, False),
        ({"preset": "github"}, True),
        ({"preset": "github", "base_url": "https://models.github.ai/orgs/us/inference"}, True),
        ({"preset": "azure", "base_url": "https://r.openai.azure.com/openai/v1"}, True),
        ({"preset": "ollama"}, False),
        ({"preset": "llamacpp"}, False),
    ],
)
def test_what_is_hosted_by_others_needs_a_key(settings: dict[str, Any], needs_key: bool) -> None:
    assert endpoint(Cloud(**settings)).needs_key == needs_key


@pytest.mark.parametrize(
    ("settings", "key", "header"),
    [
        ({"preset": "nim"}, "nvapi-1", {"Authorization": "Bearer nvapi-1"}),
        ({"preset": "azure", "base_url": "https://r.openai.azure.com/openai/v1"}, "k", {"api-key": "k"}),
        ({"preset": "ollama"}, None, {}),
    ],
)
def test_the_key_is_shown_as_the_endpoint_wants_it(
    settings: dict[str, Any], key: str | None, header: dict[str, str]
) -> None:
    assert endpoint(Cloud(**settings)).credentials(key) == header


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"preset": "azure"}, "cloud.base_url is needed"),
        ({"base_url": "gpu:8000/v1"}, "begin with https://"),
        ({"base_url": "file:///v1"}, "begin with https://"),
        ({"base_url": "https://me:secret@gpu/v1"}, "no login"),
        ({"base_url": "https://gpu/v1#x"}, "after a #"),
    ],
)
def test_an_address_that_is_none_is_refused_in_a_sentence(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says) as refused:
        endpoint(Cloud(**settings))
    assert "secret" not in str(refused.value)
