"""Jobs of which forecasts are made."""

from agent.contract.jobs import Detail, Job, Message, Part, PicturePart, Sampling, TextPart


def job(text: str = "x", *, client: str = "c", camera: str | None = None, most: int | None = None) -> Job:
    return Job(
        client=client,
        id="j",
        camera=camera,
        messages=(Message(role="user", content=text),),
        sampling=Sampling(max_tokens=most),
    )


def shown(*details: Detail, text: str = "x", client: str = "c", camera: str | None = None) -> Job:
    """Make a job of pictures, each to be looked at as closely as its detail says."""
    parts: list[Part] = [PicturePart(type="picture", index=at, detail=detail) for at, detail in enumerate(details)]
    message = Message(role="user", content=[*parts, TextPart(type="text", text=text)])
    return Job(client=client, id="j", camera=camera, messages=(message,), pictures=(b"picture",) * len(details))
