import pytest

from agent.contract.errors import Code, JobError
from agent.engines.worker.limits import RESERVE, answer_tokens, available_bytes, capacity, out_of_memory, window


def test_an_answer_has_as_many_tokens_as_were_asked_for() -> None:
    assert answer_tokens(100, 50, 512, 8192) == 50


def test_a_job_that_does_not_say_gets_the_default_or_what_is_left_of_the_window() -> None:
    assert answer_tokens(100, None, 512, 8192) == 512
    assert answer_tokens(8000, None, 512, 8192) == 192


def test_what_exceeds_the_window_is_refused_in_numbers() -> None:
    with pytest.raises(JobError) as refused:
        answer_tokens(9012, 512, 100, 8192)

    assert refused.value.code == Code.TOO_LARGE
    assert refused.value.message == (
        "the prompt has 9,012 tokens and the answer may have 512: together 9,524, and the model's window here is 8,192"
    )


def test_of_pictures_that_exceed_the_window_it_is_told_what_to_do() -> None:
    with pytest.raises(JobError) as refused:
        answer_tokens(4094, 10, 100, 4096, image=3842)

    assert refused.value.message == (
        "the prompt has 4,094 tokens, 3,842 of them its pictures', and the answer may have 10: together 4,104, and "
        "the model's window here is 4,096: lower the pictures' detail, or send fewer"
    )


@pytest.mark.parametrize("asked", [1, None])
def test_a_prompt_that_fills_the_window_is_refused(asked: int | None) -> None:
    with pytest.raises(JobError):
        answer_tokens(8192, asked, 512, 8192)


@pytest.mark.parametrize(("need", "size"), [(1, 256), (800, 1024), (1000, 1280), (8000, 8192), (8192, 8192)])
def test_a_cache_has_room_to_grow_within_the_window(need: int, size: int) -> None:
    assert capacity(need, 8192) == size


@pytest.mark.parametrize(
    ("token_bytes", "memory", "tokens"), [(768 << 10, 5 << 30, 6485), (768 << 10, 1 << 40, 131_072), (0, 0, 131_072)]
)
def test_a_window_is_no_larger_than_what_the_memory_could_ever_hold(token_bytes: int, memory: int, tokens: int) -> None:
    assert window(131_072, token_bytes, memory) == tokens


def test_what_exceeds_the_memory_is_refused_in_numbers() -> None:
    error = out_of_memory(2 << 30, RESERVE + (100 << 20))

    assert error.code == Code.OUT_OF_MEMORY
    assert "needs 2,048 MiB and the box has 100 MiB to spare" in error.message


def test_the_kernel_tells_how_much_memory_there_is() -> None:
    assert available_bytes() > 1 << 20
