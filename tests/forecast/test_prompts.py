import time
from itertools import repeat

import pytest

from agent.contract.events import Usage
from agent.contract.jobs import Detail, Job, Message, Part, PicturePart, TextPart
from agent.forecast.prompts import Prompts
from tests.forecast.jobs import job, shown


def test_before_anything_was_counted_a_token_is_four_bytes_and_a_picture_has_the_most_it_can_have() -> None:
    prompts = Prompts()

    assert prompts.of(job("x" * 400)).prompt == pytest.approx(100, abs=10)
    assert prompts.of(shown("low", "high")).image == 313 + 2509


def test_a_text_counts_by_its_bytes_where_they_are_more_than_its_characters() -> None:
    assert Prompts().of(job("字" * 10_000)).prompt == pytest.approx(Prompts().of(job("x" * 30_000)).prompt)


def test_a_job_of_thousands_of_parts_is_counted_once() -> None:
    parts: list[Part] = [PicturePart(type="picture", index=0), *repeat(TextPart(type="text", text="x"), 9000)]
    prompts, asked = Prompts(), Job(client="c", id="j", messages=(Message(role="user", content=parts),))
    prompts.of(asked)
    begun = time.thread_time()
    for _ in range(100):
        prompts.of(asked)

    assert time.thread_time() - begun < 0.05  # 0.3 ms here; 100 ms, if its parts were looked at each time


def test_what_is_counted_of_a_job_changes_nothing_of_it() -> None:
    counted, other = shown("low", text="字"), shown("low", text="字")
    Prompts().of(counted)

    assert (counted.text_size, counted.details) == ((1, 3), ("low",))
    assert counted == other
    assert counted.dump() == other.dump()
    assert Job.load(counted.dump()) == other


def test_what_the_model_counts_is_what_is_predicted() -> None:
    prompts = Prompts()
    for size in (10, 300, 2000, 50, 900, 4000, 100, 20):
        prompts.counted(job("x" * size), Usage(prompt_tokens=30 + size // 3))

    assert prompts.of(job("x" * 1000)).prompt == pytest.approx(363, rel=0.1)


def test_a_picture_is_what_pictures_of_its_detail_were() -> None:
    prompts = Prompts()
    for _ in range(20):
        prompts.counted(shown("auto", "auto"), Usage(prompt_tokens=1020, image_tokens=1000))

    assert prompts.of(shown("auto")).image == pytest.approx(500, rel=0.01)
    assert prompts.of(shown("low")).image == 313


def test_pictures_of_an_endpoint_that_does_not_count_them_leave_the_text_as_it_was() -> None:
    prompts = Prompts()
    prompts.counted(shown("low"), Usage(prompt_tokens=1000))

    assert prompts.coefficients == Prompts().coefficients


@pytest.mark.parametrize("details", [("low", "high"), ("low",)])
def test_no_picture_becomes_less_than_nothing(details: tuple[Detail, ...]) -> None:
    prompts = Prompts()
    prompts.counted(shown(*details), Usage(prompt_tokens=1, image_tokens=1))

    assert prompts.of(shown(*details)).image > 0


def test_another_goes_on_from_what_was_learned() -> None:
    prompts = Prompts()
    prompts.counted(job("x" * 100), Usage(prompt_tokens=50))
    prompts.counted(shown("low"), Usage(prompt_tokens=150, image_tokens=100))
    other = Prompts(prompts.coefficients, prompts.pictures)

    assert other.of(shown("low", text="x" * 100)) == pytest.approx(prompts.of(shown("low", text="x" * 100)))
