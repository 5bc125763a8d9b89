"""Pictures through a real worker and a real model."""

import asyncio
import json
import random
from contextlib import aclosing
from io import BytesIO
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image

from agent.contract.errors import Code, JobError
from agent.contract.jobs import Detail, ResponseFormat
from agent.engines.base import SimilarFrame, Started
from agent.engines.local import LocalEngine
from agent.models.shapes import draw
from tests.engines.running import PHOTOGRAPH, PHOTOGRAPHS, answer, job, python, shown

pytestmark = pytest.mark.asyncio(loop_scope="module")

WHAT = "What is it?"
ROCKET = next(path.read_bytes() for path in PHOTOGRAPHS if path.stem == "rocket")
# The library's tensors of files, less ours: the largest and the mean difference of each.
DIFFERENCES = """
import json, sys
from pathlib import Path
import numpy as np, onnxruntime_genai as og
from agent.engines.worker.crops import cut
from agent.engines.worker.pictures import Picture
processor = og.Model(sys.argv[1]).create_multimodal_processor()
results = []
for path in map(Path, json.load(sys.stdin)):
    theirs = processor("<|image_1|>", images=og.Images.open_bytes(path.read_bytes()))
    picture = Picture(path.read_bytes(), 16)
    ours = cut(picture.decode(), picture.resized)
    assert theirs["image_sizes"].as_numpy().tolist() == [[ours.height, ours.width]]
    assert theirs["num_image_tokens"].as_numpy().tolist() == [[ours.tokens]]
    difference = np.abs(theirs["pixel_values"].as_numpy()[0, : len(ours.pixels)] - ours.pixels)
    results.append([float(difference.max()), float(difference.mean())])
json.dump(results, sys.stdout)
"""
# Prompts' tokens, the library's and ours. The picture is 757 tokens to it, whatever its own processor would make of it.
PROMPTS = """
import json, sys
from io import BytesIO
from pathlib import Path
import onnxruntime_genai as og
from PIL import Image
from agent.engines.worker.crops import prepare
from agent.engines.worker.model import Model
Image.new("RGB", (336, 336)).save(file := BytesIO(), "PNG")
count = prepare(Image.new("RGB", (336, 336)), 16).tokens
library = og.Model(sys.argv[1])
processor, tokenizer = library.create_multimodal_processor(), og.Tokenizer(library)
model = Model(Path(sys.argv[1]), None)
results = []
for ours, theirs, pictures in json.load(sys.stdin):
    text = tokenizer.apply_chat_template(json.dumps(theirs), add_generation_prompt=True)
    images = og.Images.open_bytes(*[file.getvalue()] * pictures) if pictures else None
    tokens = processor(text, images=images)["input_ids"].as_numpy()[0].tolist()
    results.append([model.prompt(json.dumps(ours).encode(), [count] * pictures), tokens])
json.dump(results, sys.stdout)
"""
# What the library itself makes of pictures, from their files to its words.
LIBRARY = """
import sys
from pathlib import Path
import onnxruntime_genai as og
model = og.Model(sys.argv[1])
processor = model.create_multimodal_processor()
tensors = processor(sys.stdin.read(), images=og.Images.open_bytes(*[Path(file).read_bytes() for file in sys.argv[2:]]))
params = og.GeneratorParams(model)
params.set_search_options(max_length=tensors["input_ids"].as_numpy().size + 32, do_sample=False)
generator = og.Generator(model, params)
generator.set_inputs(tensors)
tokens = []
while not generator.is_done():
    generator.generate_next_token()
    tokens.append(int(generator.get_next_tokens()[0]))
sys.stdout.write(og.Tokenizer(model).decode(generator.get_sequence(0)[-len(tokens):]))
"""


async def refused(engine: LocalEngine, asked: Any) -> JobError:
    with pytest.raises(JobError) as error:
        await answer(engine, asked)
    return error.value


async def differences(folder: Path, paths: list[Path]) -> list[tuple[float, float]]:
    found = await python("-c", DIFFERENCES, str(folder), given=json.dumps([*map(str, paths)]))
    return [tuple(each) for each in json.loads(found)]


def as_png(path: Path, folder: Path) -> Path:
    with Image.open(path) as file:
        file.save(png := folder / f"{path.stem}.png", compress_level=1)
    return png


async def test_at_16_crops_the_tensors_are_the_librarys_to_the_last_bit(vision_folder: Path, tmp_path: Path) -> None:
    files = [as_png(path, tmp_path) for path in PHOTOGRAPHS]

    assert await differences(vision_folder, files) == [(0.0, 0.0)] * len(files)


async def test_of_a_jpeg_they_differ_as_the_decoders_do(vision_folder: Path) -> None:
    """One of 255 levels is about 0.015 here.

    The inverse cosine transform rounds differently in one pixel of 100,000. Where colour has half the resolution
    (4:2:0), each decoder fills it up in its own way: at coloured edges that is up to 35 levels.
    """
    found = await differences(vision_folder, PHOTOGRAPHS)
    largest = {path.stem: round(most, 3) for path, (most, _) in zip(PHOTOGRAPHS, found, strict=True)}
    mean = {path.stem: round(mean, 3) for path, (_, mean) in zip(PHOTOGRAPHS, found, strict=True)}

    assert largest["rocket"] == 0.015
    assert mean == {"rocket": 0.0, "astronaut": 0.006, "coffee": 0.006}


async def test_the_prompts_tokens_are_the_librarys(vision_folder: Path) -> None:
    user, assistant = "user", "assistant"
    cases: list[tuple[list[tuple[str, Any]], list[str]]] = [
        ([(user, [None, WHAT])], ["<|image_1|>\nWhat is it?"]),
        ([(user, [WHAT, None])], ["What is it?\n<|image_1|>\n"]),
        ([(user, ["  Grüße, 日本  ", None, "and", None, "\nDiffer?"])],
         ["  Grüße, 日本  \n<|image_1|>\nand\n<|image_2|>\n\nDiffer?"]),
        ([("system", "Be brief."), (user, [None, None, "Which?"]), (assistant, "It."), (user, [None])],
         ["Be brief.", "<|image_1|>\n<|image_2|>\nWhich?", "It.", "<|image_3|>\n"]),
        ([(user, WHAT)], [WHAT]),
    ]  # fmt: skip
    asked = []
    for turns, texts in cases:
        ours = [{"role": role, "content": content} for role, content in turns]
        theirs = [{"role": role, "content": text} for (role, _), text in zip(turns, texts, strict=True)]
        asked.append((ours, theirs, sum(text.count("<|image_") for text in texts)))
    found = json.loads(await python("-c", PROMPTS, str(vision_folder), given=json.dumps(asked)))

    for ours, theirs in found:
        assert ours == theirs


@pytest.mark.parametrize("picture", [True, False])
async def test_a_user_who_writes_the_models_mark_shows_no_picture(seeing: LocalEngine, picture: bool) -> None:
    written = "Is <|image_1|> or <|image_2|> a mark?"
    asked = shown(written, PHOTOGRAPH) if picture else job(written)

    said = await answer(seeing, asked)
    assert said.started.image_tokens == (313 if picture else 0)


@pytest.mark.parametrize("seeds", [(1,), (1, 2), (2, 1)], ids=str)
async def test_its_words_are_those_that_the_library_says(
    seeing: LocalEngine, vision_folder: Path, tmp_path: Path, seeds: tuple[int, ...]
) -> None:
    files = []
    for seed in seeds:
        files.append(tmp_path / f"{seed}.png")
        draw(random.Random(seed), (640, 480)).image.save(files[-1])
    marks = "".join(f"<|image_{number}|>\n" for number in range(1, len(files) + 1))
    prompt = f"<|user|>\n{marks}{WHAT}<|end|>\n<|assistant|>\n"
    theirs = await python("-c", LIBRARY, str(vision_folder), *map(str, files), given=prompt)
    pictures = [file.read_bytes() for file in files]
    ours = await answer(seeing, shown(WHAT, *pictures, detail="high", max_tokens=32))

    assert theirs.removeprefix(" ")
    assert ours.text == theirs.removeprefix(" ")


@pytest.mark.parametrize(("detail", "tokens"), [("low", 313), ("auto", 757), ("high", 1921)])
async def test_image_tokens_are_counted_exactly(seeing: LocalEngine, detail: Detail, tokens: int) -> None:
    once = await answer(seeing, shown(WHAT, ROCKET, detail=detail))
    twice = await answer(seeing, shown(WHAT, ROCKET, ROCKET, detail=detail, max_tokens=8))

    assert once.done
    assert once.started.image_tokens == once.done.usage.image_tokens == tokens
    assert twice.started.image_tokens == 2 * tokens
    assert twice.started.prompt_tokens - once.started.prompt_tokens in range(tokens, tokens + 4)


async def test_text_alone_is_answered_too(seeing: LocalEngine) -> None:
    said = await answer(seeing, job(WHAT * 40, "It is.", WHAT, max_tokens=8))

    assert said.done
    assert said.done.usage.image_tokens == 0
    assert said.started.prompt_tokens > 100


async def test_jobs_with_and_without_pictures_run_at_once_as_each_alone(seeing: LocalEngine) -> None:
    jobs = [shown(WHAT, path.read_bytes(), detail="auto") for path in PHOTOGRAPHS] + [job(WHAT), job("Hello")]
    alone = [(await answer(seeing, each)).text for each in jobs]
    together = await asyncio.gather(*(answer(seeing, each) for each in jobs))

    assert [said.text for said in together] == alone


async def test_a_seed_repeats(seeing: LocalEngine) -> None:
    asked = shown(WHAT, PHOTOGRAPH, temperature=2.0, seed=3, max_tokens=16)

    assert (await answer(seeing, asked)).text == (await answer(seeing, asked)).text


async def test_an_answer_about_a_picture_matches_the_schema(seeing: LocalEngine) -> None:
    schema = {
        "type": "object",
        "properties": {"seen": {"type": "boolean"}},
        "required": ["seen"],
        "additionalProperties": False,
    }
    shape = ResponseFormat.model_validate({"type": "json_schema", "json_schema": {"schema": schema}})
    said = await answer(seeing, shown(WHAT, PHOTOGRAPH).model_copy(update={"response_format": shape}))

    assert set(json.loads(said.text)) == {"seen"}


def bomb() -> bytes:
    Image.new("1", (16_000, 11_000)).save(file := BytesIO(), "PNG")
    return file.getvalue()


def small(width: int, height: int) -> bytes:
    Image.new("RGB", (width, height)).save(file := BytesIO(), "PNG")
    return file.getvalue()


BAD = {
    "nothing": b"",
    "text": b"not a picture",
    "cut off": PHOTOGRAPH[:20_000],
    "polyglot": b"PK\x03\x04" + PHOTOGRAPH,
}


@pytest.mark.parametrize("frame", BAD.values(), ids=BAD)
async def test_a_bad_frame_is_refused_and_the_next_job_answered(seeing: LocalEngine, frame: bytes) -> None:
    assert seeing._child
    pid = seeing._child.pid

    assert (await refused(seeing, shown(WHAT, frame))).code == Code.BAD_REQUEST
    assert (await answer(seeing, shown(WHAT, PHOTOGRAPH))).done
    assert seeing._child.pid == pid


@pytest.mark.parametrize("frame", [small(1, 1), small(20_000, 10), bomb()], ids=["1x1", "20,000x10", "176 megapixels"])
async def test_a_frame_that_the_parent_would_not_let_through_does_no_harm(seeing: LocalEngine, frame: bytes) -> None:
    assert seeing._child
    pid = seeing._child.pid
    await asyncio.wait([asyncio.create_task(answer(seeing, shown(WHAT, frame)))])

    assert (await answer(seeing, shown(WHAT, PHOTOGRAPH))).done
    assert seeing._child.pid == pid


async def test_more_than_the_window_is_refused_with_what_to_do(seeing: LocalEngine) -> None:
    error = await refused(seeing, shown(WHAT, *[ROCKET] * 3, detail="high"))

    assert error.code == Code.TOO_LARGE
    assert "5,763 of them its pictures', and the answer may have 32" in error.message
    assert error.message.endswith("the model's window here is 4,096: lower the pictures' detail, or send fewer")


async def test_a_frame_like_the_last_one_is_told_apart(seeing: LocalEngine) -> None:
    await answer(seeing, shown(WHAT, PHOTOGRAPH, camera="gate", similar_bits=2))
    error = await refused(seeing, shown(WHAT, PHOTOGRAPH, camera="gate", similar_bits=2))

    assert isinstance(error, SimilarFrame)
    assert error.as_dict() == {
        "code": "superseded",
        "message": "the frame is nearly the same as the last one that was looked at",
        "retryable": False,
        "retry_after_s": None,
    }


async def test_a_picture_that_is_canceled_while_it_is_looked_at_leaves_the_engine_free(seeing: LocalEngine) -> None:
    for _ in range(2 * seeing.slots):
        async with aclosing(seeing.run(shown(WHAT, PHOTOGRAPH, detail="high"))) as events:
            assert isinstance(await anext(events), Started)
    assert (await answer(seeing, shown(WHAT, PHOTOGRAPH))).done


async def test_pictures_step_back_behind_words_of_another_worker(seeing: LocalEngine) -> None:
    assert seeing._child

    assert psutil.Process(seeing._child.pid).nice() == min(psutil.Process().nice() + 5, 19)


async def test_memory_stays_flat_over_many_frames(seeing: LocalEngine) -> None:
    """The long one is in the bench: over 1,000 frames the worker had at most 111 MB, and 110 over the first 100."""
    frames = []
    for path in PHOTOGRAPHS:
        with Image.open(path) as photograph:
            photograph.resize((photograph.width * 2, photograph.height * 2)).save(file := BytesIO(), "JPEG")
        frames += [shown(WHAT, file.getvalue(), detail=detail, max_tokens=4) for detail in ("low", "auto", "high")]
    most = []
    for _ in range(4):
        used = []
        for frame in frames:
            await answer(seeing, frame)
            used.append(seeing.resident_bytes)
        most.append(max(used))

    assert max(most[2:]) <= 1.05 * max(most[:2])
