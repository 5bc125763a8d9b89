"""Whatever is sent from afar: it is used or refused, and what a box keeps to itself stays as it was."""

import json
from contextlib import suppress
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import keys
from agent.layers import ConfigError, Loaded, load
from agent.remote import laid_over
from agent.remote.allowed import _RESERVED

_OWN = (
    "placement: prefer_local\n"
    "cloud: {text_model: m}\n"
    "cameras: {door: {private: true}, gate: {placement: local_only}, yard: {}}\n"
    "sources: {mine: {topic: 'frigate/{camera}/snapshot'}}\n"
)
_KEYS = [keys.dotted(path) for path, _ in keys.fields()]
_VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, True, False, 0, 1, 7, 0.5, "", "local_only", "prefer_cloud", "cpu", "x", "../x", "a/{camera}", [], ["x"], {}]
)
_said = st.dictionaries(
    st.tuples(st.sampled_from(_KEYS), st.sampled_from(["door", "gate", "yard", "new"])), _VALUES, min_size=1, max_size=3
)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("own") / "box.yaml"
    file.write_text(_OWN)
    return file


def _layer(said: dict[tuple[str, str], Any]) -> bytes:
    tree: dict[str, Any] = {}
    for (key, name), value in said.items():
        *above, last = key.replace(keys.ANY, name).split(".")
        inner = tree
        for step in above:
            inner = inner.setdefault(step, {})
            if not isinstance(inner, dict):
                break
        else:
            inner[last] = value
    return json.dumps(tree).encode()


@given(_said)
def test_what_a_box_keeps_to_itself_stays_as_it_was_and_nothing_is_less_private(
    own: Path, said: dict[tuple[str, str], Any]
) -> None:
    def read(*, remote: tuple[str, bytes] | None = None) -> Loaded:
        return load([own], environ={}, remote=remote)

    before = read().settings
    try:
        after = laid_over(read, "afar", _layer(said)).settings
    except ConfigError:
        return
    for key in _RESERVED:
        assert attrgetter(key)(after) == attrgetter(key)(before)
    assert after.placement in (before.placement, "local_only")
    for name, camera in before.cameras.items():
        assert after.cameras[name].private >= camera.private
        assert after.cameras[name].placement in (camera.placement, "local_only")


@given(st.binary(max_size=200) | st.text(alphabet="engin:{}[]&*!|>-# \n\t\"'slots012", max_size=60).map(str.encode))
def test_any_bytes_are_used_or_refused(own: Path, payload: bytes) -> None:
    def read(*, remote: tuple[str, bytes] | None = None) -> Loaded:
        return load([own], environ={}, remote=remote)

    with suppress(ConfigError):
        laid_over(read, "afar", payload)
