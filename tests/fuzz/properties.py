"""MQTT 5 properties that a client may set, and what it may hope to do with them."""

from random import Random
from typing import Any

NODE = "slm/box1"
# The camera that is asked about in the box's configuration.
CAMERA = "porch"


def one(rng: Random, client: str) -> tuple[str, Any]:
    """Return a property by paho's name for it, and what it says."""
    match rng.randrange(6):
        case 0:
            return "ResponseTopic", _response_topic(rng, client)
        case 1:
            return "CorrelationData", rng.randbytes(rng.choice((0, 1, 16, 255, 256, 257, 65_535)))
        case 2:
            return "UserProperty", _user_properties(rng)
        case 3:
            return "MessageExpiryInterval", rng.choice((0, 3600, 2**32 - 1))
        case 4:
            return "PayloadFormatIndicator", rng.randrange(2)
        case _:
            return "ContentType", rng.choice(("", "application/json", "image/png", "x" * 65_535, "ä/\u202e"))


def _response_topic(rng: Random, client: str) -> str:
    own = rng.choice((f"clients/{client}", f"{NODE}/res/{client}"))
    return rng.choice(
        (
            *(f"{own}/x", f"{own}/x/y z", f"{own}//", f"{own}/", own, f"{own}/../others", f"{own}/ä/\U0001f600"),
            *(f"{own}/" + "/" * rng.randrange(240), f"{own}/" + "x" * rng.randrange(300), f"{own}/\u202e"),
            *("+/x", "#", f"{own}/+", f"{own}/#", "others/secret", "$SYS/broker/load", "x" * 65_000),
            *(
                f"{NODE}/status",
                f"{NODE}/req/{client}/text",
                f"{NODE}/res/c0/j/final",
                f"{NODE}/config/camera/{CAMERA}",
            ),
        )
    )


def _user_properties(rng: Random) -> list[tuple[str, str]]:
    few = (
        *(
            ("prompt", ""),
            ("model", "m" * 10_000),
            ("max_tokens", "9" * 60_000),
            ("max_tokens", "-1"),
            ("stream", "maybe"),
        ),
        *(
            ("priority", "urgent"),
            ("placement", ""),
            ("detail", "\u202e"),
            ("", ""),
            ("id", "other"),
            ("max_tokens", "\u0661"),
        ),
    )
    if rng.random() < 0.3:
        return [(f"n{rng.randrange(50)}", "v" * rng.randrange(100)) for _ in range(300)]
    return rng.choices(few, k=rng.randint(1, 4))
