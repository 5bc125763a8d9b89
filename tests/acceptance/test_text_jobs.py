"""Text jobs end to end, as their users send them."""

import asyncio
import json
import signal
import subprocess
from collections.abc import Callable

from tests.boxes import EDGE_SLM, Box, edge_slm
from tests.brokers import Broker
from tests.devices import Device

MakeBox = Callable[..., Box]

QUESTION = {"id": "j1", "prompt": "What is the capital of France?", "temperature": 0}
STORY = {"prompt": "Tell me a very long story about a lighthouse.", "max_tokens": 400, "temperature": 0}


async def test_a_question_is_answered_word_by_word(box: MakeBox, broker: Broker, version: str) -> None:
    async with Device(broker.port, version=version) as device, box():
        device.publish("text", QUESTION)
        final = await device.final("j1")
        assert (final["state"], final["text"]) == ("SUCCEEDED", "The capital of France is Paris.")
        await device.until(lambda: device.text("j1") == final["text"])
        seqs = [body["seq"] for body in device.of("j1", "chunk")]
        assert seqs == list(range(final["seq"]))
        assert len(seqs) > 1


async def test_a_stranger_with_mosquittos_own_clients_gets_an_answer(
    box: MakeBox, broker: Broker, version: str
) -> None:
    flag = {"5": "mqttv5", "3.1.1": "mqttv311"}[version]
    to = ["-h", "127.0.0.1", "-p", str(broker.port), "-V", flag]
    listening = await asyncio.create_subprocess_exec(
        *("mosquitto_sub", *to, "-q", "1", "-t", "slm/box1/res/me/+/final", "-t", "slm/box1/status", "-C", "2"),
        stdout=subprocess.PIPE,
    )
    async with box():
        said = json.dumps(QUESTION)
        await asyncio.to_thread(
            subprocess.run, ["mosquitto_pub", *to, "-q", "1", "-t", "slm/box1/req/me/text", "-m", said], check=True
        )
        out, _ = await listening.communicate()
    status, final = out.decode().splitlines()
    assert (status, json.loads(final)["text"]) == ("online", "The capital of France is Paris.")


async def test_a_conversation_with_a_system_message_is_followed(box: MakeBox, broker: Broker) -> None:
    async with Device(broker.port) as device, box():
        turns = [
            {"role": "user", "content": "My name is Ada. Remember it."},
            {"role": "assistant", "content": "I will remember that your name is Ada."},
            {"role": "user", "content": "What is my name?"},
        ]
        device.publish("text", {"id": "j1", "messages": turns, "temperature": 0, "max_tokens": 30})
        assert "Ada" in (await device.final("j1"))["text"]


async def test_a_running_job_is_cancelled_within_a_third_of_a_second(
    box: MakeBox, broker: Broker, version: str
) -> None:
    async with Device(broker.port, version=version) as device, box():
        device.publish("text", {"id": "j1", **STORY})
        await device.until(lambda: len(device.of("j1", "chunk")) > 1)
        asked = asyncio.get_running_loop().time()
        device.publish("cancel", "j1")
        final = await device.final("j1")
        took = asyncio.get_running_loop().time() - asked
        assert (final["state"], final["text"].startswith(device.of("j1", "chunk")[0]["text"])) == ("CANCELED", True)
        assert took < 0.3  # the contract's own number


async def test_a_short_job_overtakes_a_long_one(box: MakeBox, broker: Broker) -> None:
    async with Device(broker.port) as device, box():
        device.publish("text", {"id": "long", **STORY})
        await device.until(lambda: device.of("long", "chunk") != [])
        device.publish("text", {**QUESTION, "id": "short"})
        await device.final("short")
        assert device.of("long", "final") == []


async def test_eight_jobs_at_once_do_not_mix_their_words(box: MakeBox, broker: Broker) -> None:
    numbers = range(8)
    async with Device(broker.port) as device, box():
        for number in numbers:
            device.publish(
                "text",
                {"id": f"j{number}", "prompt": f"Repeat exactly: {number * 1111}", "temperature": 0, "max_tokens": 24},
            )
        together = [(await device.final(f"j{number}"))["text"] for number in numbers]
        for number in numbers:
            device.publish(
                "text",
                {"id": f"k{number}", "prompt": f"Repeat exactly: {number * 1111}", "temperature": 0, "max_tokens": 24},
            )
            await device.final(f"k{number}")
        assert [(await device.final(f"k{number}"))["text"] for number in numbers] == together


async def test_a_prompt_beyond_the_window_is_refused_with_the_numbers(box: MakeBox, broker: Broker) -> None:
    async with Device(broker.port) as device, box():
        device.publish("text", {"id": "j1", "prompt": "word " * 9000})
        final = await device.final("j1")
        assert (final["state"], final["error"]["code"]) == ("REJECTED", "too_large")
        assert "8,192" in final["error"]["message"]


async def test_info_says_loading_and_then_ready(box: MakeBox, broker: Broker) -> None:
    async with Device(broker.port, also=("slm/box1/info",)) as device, box():
        await device.until(lambda: any(heard.body["state"] == "ready" for heard in device.heard))
        assert next(heard.body["state"] for heard in device.heard) == "loading"


async def test_ask_prints_the_answer(box: MakeBox) -> None:
    async with box() as running:
        done = await edge_slm("ask", "--config", running.config, "--temperature", "0", "What is the capital of France?")
        assert (done.returncode, done.stdout) == (0, "The capital of France is Paris.\n")


async def test_ask_reads_standard_input_and_prints_json_lines(box: MakeBox) -> None:
    async with box() as running:
        done = await edge_slm(
            "ask", "--config", running.config, "--json", "--max-tokens", "5", stdin="Tell me a story."
        )
        events = [json.loads(line) for line in done.stdout.splitlines()]
        assert [events[0]["event"], events[-1]["event"]] == ["state", "final"]
        assert events[-1]["usage"]["completion_tokens"] == 5


async def test_cancel_ends_a_job_that_ask_began(box: MakeBox) -> None:
    async with box() as running:
        job = ["--id", "j1", "--max-tokens", "2000", "Tell me a very long story."]
        asking = await asyncio.create_subprocess_exec(
            EDGE_SLM, "ask", "--config", running.config, "--json", *job, stdout=subprocess.PIPE
        )
        assert asking.stdout is not None
        assert json.loads(await asking.stdout.readline())["state"] == "accepted"
        await edge_slm("cancel", "--config", running.config, "j1")
        out, _ = await asking.communicate()
        assert json.loads(out.splitlines()[-1])["state"] == "CANCELED"


async def asking_for_long(box: Box) -> asyncio.subprocess.Process:
    """Start `ask` on a long answer, and return when its first word is out."""
    asking = await asyncio.create_subprocess_exec(
        *(EDGE_SLM, "ask", "--config", str(box.config), "--max-tokens", "2000", "Tell me a very long story."),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert asking.stdout is not None
    await asking.stdout.read(1)
    return asking


async def test_ctrl_c_in_ask_cancels_the_job(box: MakeBox) -> None:
    async with box() as running:
        asking = await asking_for_long(running)
        asking.send_signal(signal.SIGINT)
        await asking.communicate()
        assert (asking.returncode, (await running.logged("job.finished"))["code"]) == (130, "canceled")


async def test_ask_says_what_to_do_when_no_box_is_there(broker: Broker) -> None:
    done = await edge_slm("ask", "--broker", f"127.0.0.1:{broker.port}", "--node", "nobody", "Hi")
    sentence = "the box nobody has never been seen at this broker: start it, or name another with --node"
    assert (done.returncode, done.stderr) == (1, f"edge-slm: {sentence}\n")


async def test_ask_says_so_when_the_broker_goes_away(box: MakeBox, broker: Broker) -> None:
    async with box() as running:
        asking = await asking_for_long(running)
        broker.kill()
        _, error = await asking.communicate()
        last = error.decode().splitlines()[-1]
        assert (asking.returncode, f"127.0.0.1:{broker.port} was lost: try again" in last) == (1, True)


async def test_prompts_and_answers_are_in_no_log(box: MakeBox, broker: Broker) -> None:
    async with Device(broker.port) as device, box(log={"format": "json", "level": "debug"}) as running:
        device.publish("text", {"id": "j1", "prompt": "Repeat: xyzzy-plugh", "max_tokens": 20, "temperature": 0})
        device.publish("text", {"id": "j2", "prompt": "xyzzy-plugh", "colour": "xyzzy-plugh"})
        final = await device.final("j1")
        await device.final("j2")
        await running.logged("job.finished")
        logged = running.config.with_name("agent.log").read_text()
        assert "xyzzy" not in logged
        assert final["text"][:20] not in logged
