"""Whether models fit into a box: decided on numbers alone, and told in numbers."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.models import Footprint, ModelError, catalogue, footprint, preflight
from agent.models.memory import RESERVE
from tests.models.test_store import make_model

if TYPE_CHECKING:
    from pathlib import Path

GB = 10**9
# Phi-3.5-mini and -vision, as their files on CPU are.
MINI = Footprint(loaded=4 * GB, cache=int(0.8 * GB), slots=4)
VISION = Footprint(loaded=int(4.6 * GB), cache=int(1.4 * GB), slots=1, pictures=int(0.3 * GB))
PHI = {"num_hidden_layers": 32, "num_key_value_heads": 32, "head_size": 96}


def told(needs: dict[str, Footprint], total: float, available: float | None = None) -> str | None:
    free = None if available is None else int(available * GB)
    return preflight(needs, total=int(total * GB) + RESERVE, available=free, known=catalogue())


def test_a_models_memory_is_its_packed_weights_and_a_cache_for_each_job(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine", decoder={"filename": "model.onnx", **PHI}, context_length=131072)
    (folder / "model.onnx.data").write_bytes(bytes(1_000_000))
    found = footprint(folder, slots=3, answer_tokens=512)
    # 2 x 32 layers x 32 heads x 96 x 4 bytes are 786,432 for each of 1,024 tokens.
    assert found == Footprint(loaded=(80 << 20) + int(1.4 * 1_000_005), cache=786_432 * 1024, slots=3)
    assert found.total == found.loaded + 3 * found.cache


def test_no_job_is_reckoned_with_more_than_the_window(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine", decoder=PHI, context_length=600)
    assert footprint(folder, slots=1, answer_tokens=512).cache == 786_432 * 600


def test_a_model_that_sees_is_reckoned_with_a_picture(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "mine", decoder=PHI, context_length=131072, vision={})
    found = footprint(folder, slots=1, answer_tokens=512)
    assert (found.cache, found.pictures > 0) == (786_432 * (1024 + 757), True)


@pytest.mark.parametrize("model", [{"context_length": "many"}, {"decoder": {"head_size": "x"}}, {"decoder": []}])
def test_a_configuration_that_makes_no_sense_is_told(tmp_path: Path, model: dict[str, object]) -> None:
    folder = make_model(tmp_path / "mine")
    config = {"model": {"type": "phi3", "context_length": 4096, **model}}
    (folder / "genai_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="fetch or build it again"):
        footprint(folder, slots=1, answer_tokens=512)


def test_models_that_fit_are_not_complained_of() -> None:
    assert told({"models.text": MINI}, 7.2, 4.0) is None


def test_fewer_jobs_at_a_time_are_advised_where_that_is_enough() -> None:
    assert told({"models.text": MINI}, 5.9) == (
        "the models need 7.2 GB of memory and this box can give them 5.9 GB (models.text 4.0 GB, caches of 4 jobs "
        "3.2 GB): set engine.slots to 2"
    )


def test_where_not_even_one_job_fits_a_model_that_does_is_named() -> None:
    assert told({"models.text": MINI}, 3.7) == (
        "the models need 7.2 GB of memory and this box can give them 3.7 GB (models.text 4.0 GB, caches of 4 jobs "
        "3.2 GB): set models.text to a model that fits: smollm2-135m"
    )


def test_vision_on_a_small_box_is_told_what_would_fit() -> None:
    complaint = told({"models.vision": VISION}, 3.7)
    assert complaint
    assert complaint.endswith(
        ": no model of the catalogue that sees fits: name a text model instead, and send pictures to the cloud, or "
        "take a box with more memory"
    )


def test_a_model_for_tests_is_not_advised_but_another_that_sees_is() -> None:
    small = replace(catalogue()["shapes-vision"], name="small", test=False)
    complaint = preflight(
        {"models.vision": VISION}, total=int(3.7 * GB), available=None, known={**catalogue(), "small": small}
    )
    assert complaint
    assert complaint.endswith(": set models.vision to a model that fits: small")


def test_two_models_are_judged_together_and_the_vision_model_may_serve_both() -> None:
    complaint = told({"models.text": MINI, "models.vision": VISION}, 7.9)
    assert complaint
    assert complaint.startswith(
        "the models need 13.5 GB of memory and this box can give them 7.9 GB (models.text 4.0 GB"
    )
    assert complaint.endswith(
        ": set models.text to a model that fits: smollm2-135m, or set models.text to null, if the vision model is to "
        "answer text, too"
    )


@pytest.mark.parametrize(
    ("text", "vision", "advice"),
    [
        (VISION, MINI, "set models.text to null, or take a box with more memory"),
        (MINI, VISION, "set models.vision to null, and send pictures to the cloud, or take a box with more memory"),
    ],
)
def test_where_nothing_fits_beside_it_the_larger_of_two_models_is_to_go(
    text: Footprint, vision: Footprint, advice: str
) -> None:
    needs = {"models.text": replace(text, cache=0, slots=1), "models.vision": replace(vision, cache=0, slots=1)}
    assert str(told(needs, 0.2)).endswith(f" fits: {advice}")


def test_a_box_for_which_there_is_nothing_is_told_so() -> None:
    complaint = told({"models.text": MINI}, 0.1)
    assert complaint
    assert complaint.endswith(": no model of the catalogue that is smaller fits: take a box with more memory")


def test_memory_that_others_have_now_is_told_as_such() -> None:
    assert told({"models.text": MINI}, 15.7, 3.9) == (
        "the models take 4.0 GB of memory to load, and of the box's 16.0 GB only 3.9 GB are free now: end what has the "
        "rest, or name smaller models"
    )


def test_of_what_is_free_now_only_the_load_is_asked() -> None:
    assert told({"models.text": MINI}, 15.7, 4.0) is None
