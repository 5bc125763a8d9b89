"""The names of a box that shares work with others."""

import pytest

from agent.contract.topics import Kind, Route, Topics

ALONE, MEMBER = Topics("slm", "box1"), Topics("slm", "box1", "lab")


def test_a_member_subscribes_to_its_share_of_the_pools_requests_and_to_all_its_cancels() -> None:
    assert set(MEMBER.requests) - set(ALONE.requests) == {
        "$share/lab/slm/lab/req/+/text",
        "$share/lab/slm/lab/req/+/image/+",
        "slm/lab/req/+/cancel",
    }


@pytest.mark.parametrize(
    ("topic", "route"),
    [
        ("slm/lab/req/dev7/text", Route(Kind.TEXT, "dev7", pool="lab")),
        ("slm/lab/req/dev7/cancel", Route(Kind.CANCEL, "dev7", pool="lab")),
        ("slm/lab/req/dev7/image/door", Route(Kind.IMAGE, "dev7", "door", "lab")),
        ("slm/box1/req/dev7/text", Route(Kind.TEXT, "dev7")),
        ("slm/other/req/dev7/text", None),
        ("slm/lab/req/de/v7/text", None),
        ("slm/lab/res/dev7/text", None),
        ("slm/la+b/req/dev7/text", None),
    ],
)
def test_a_request_is_read_with_the_name_that_was_asked(topic: str, route: Route | None) -> None:
    assert MEMBER.read(topic) == route


def test_a_box_that_is_in_no_pool_reads_its_own_requests_alone() -> None:
    assert ALONE.read("slm/lab/req/dev7/text") is None
    assert ALONE.read_any("slm/lab/req/dev7/text") == Route(Kind.TEXT, "dev7", pool="lab")


@pytest.mark.parametrize(
    ("topic", "usual"),
    [
        ("slm/box1/res/dev7/j1/final", True),
        ("slm/lab/res/dev7/j1/final", True),
        ("slm/box1/res/dev7/mine", False),
        ("slm/box1/res/dev7/x/res/dev7/j1/final", False),
        ("clients/dev7/res/dev7/j1/final", False),
        ("other/box1/res/dev7/j1/final", False),
    ],
)
def test_a_final_is_told_from_one_on_a_response_topic(topic: str, usual: bool) -> None:
    assert MEMBER.is_final(topic, "dev7", "j1") == usual
