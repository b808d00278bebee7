"""`/v1/audio/codec` with real clients: `vocable serve` as a process, and streams over its WebSocket."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from fastapi.testclient import TestClient
from starlette.testclient import WebSocketDenialResponse
from starlette.websockets import WebSocketDisconnect
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Close

from codec.test_causal import make_causal
from serve.conftest import wait_until
from serve.test_server import PATIENCE, Service, serving
from serve.test_stream_batch import frames_of, pcm_of, pieces, speech_of
from vocable.codec.model import SpeechTokenizer
from vocable.codec.token_frames import FrameReader

HOP, RATE = 320, 16_000
IDLE = 4  #: seconds
KEY = "a key of the tests"
OPTIONS = ["--api-key", KEY, "--max-streams", 16, "--max-stream-seconds", 1000, "--stream-idle", IDLE]


@pytest.fixture(scope="module")
def codec() -> SpeechTokenizer:
    sizes: dict[str, Any] = {"hop_length": HOP, "level": -26.0, "high_pass": 40.0}
    return make_causal(n_fft=2 * HOP, encoder_look_ahead=2, codec=sizes)


@pytest.fixture(scope="module")
def folder(codec: SpeechTokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("causal")
    codec.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def service(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with serving(tmp_path_factory.mktemp("service"), "-m", folder, *OPTIONS) as service:
        service.client.headers["Authorization"] = f"Bearer {KEY}"
        yield service


@asynccontextmanager
async def stream(service: Service, direction: str, key: str = KEY, **query: str) -> AsyncIterator[ClientConnection]:
    arguments = "&".join(f"{name}={value}" for name, value in ({"direction": direction} | query).items())
    address = f"{service.url.replace('http', 'ws')}/v1/audio/codec?{arguments}"
    headers = {"Authorization": f"Bearer {key}"}
    async with connect(address, additional_headers=headers, open_timeout=PATIENCE, ping_interval=None) as client:
        yield client


async def converted(service: Service, direction: str, data: list[bytes], **query: str) -> bytes:
    """Send all pieces; return all that comes until the service closes with 1000."""
    async with stream(service, direction, **query) as client:
        sending = asyncio.create_task(send(client, data))
        received = b"".join([message async for message in client])  # ends with an error for another code than 1000
        await sending
        assert client.close_code == 1000
        return received


async def send(client: ClientConnection, data: list[bytes], end: bool = True) -> None:
    for piece in data:
        await client.send(piece)
    if end:
        await client.send("end")


async def closed(client: ClientConnection, seconds: float = PATIENCE) -> tuple[int, str]:
    """Read until the service closes; the close code and its reason."""

    async def read() -> None:
        while True:
            await client.recv()

    with pytest.raises(ConnectionClosed) as caught:
        await asyncio.wait_for(read(), seconds)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def metric(service: Service, name: str, **labels: object) -> float:
    named = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
    return service.metric(f"{name}{{{named}}}" if named else name)


# ---- results -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_several_streams_at_once(service: Service, codec: SpeechTokenizer) -> None:
    sizes = [2, 33 * 2, 2 * HOP, 5000, 2**20]
    pcm = [pcm_of(HOP * (20 + 7 * i) + i, i) for i in range(len(sizes))]
    frames = [frames_of(codec, one) for one in pcm]

    async def run() -> list[bytes]:
        encoding = [converted(service, "encode", pieces(one, size)) for one, size in zip(pcm, sizes, strict=True)]
        decoding = [converted(service, "decode", pieces(one, size)) for one, size in zip(frames, sizes, strict=True)]
        return await asyncio.gather(*encoding, *decoding, converted(service, "encode", [pcm[0]], layers=":1"))

    made = asyncio.run(run())
    assert made.pop() == frames_of(codec, pcm[0], slice(0, 1))
    for found, wanted in zip(made[: len(pcm)], frames, strict=True):
        assert codes(found) == codes(wanted) and found[:4] == b"VTF1"
    for found, wanted, source in zip(made[len(pcm) :], frames, pcm, strict=True):
        heard, expected = (np.frombuffer(one, "<i2").astype(int) for one in (found, speech_of(codec, wanted)))
        assert len(found) == len(source) and np.abs(heard - expected).max() <= 1
    wait_until(lambda: metric(service, "vocable_streams") == 0)
    assert metric(service, "vocable_stream_batch_sum") > metric(service, "vocable_stream_batch_count") > 0
    counted = {"route": "/v1/audio/codec", "method": "WEBSOCKET", "status": 1000}
    assert metric(service, "vocable_requests_total", **counted) == len(made) + 1
    for kind in ("encoded", "decoded"):
        assert metric(service, "vocable_audio_seconds_total", kind=kind) >= sum(map(len, pcm)) / 2 / RATE - 1e-6


def codes(frames: bytes) -> list[list[int]]:
    reader, found = FrameReader(), []
    reader.add(frames)
    while (frame := reader.next()) is not None:
        found.append([*frame.codes.flatten().tolist(), int(frame.num_samples)])
    return found


@pytest.mark.slow
def test_frames_come_while_the_input_comes(service: Service) -> None:
    async def run() -> None:
        async with stream(service, "encode") as client:
            header = await client.recv()
            assert json.loads(header[8:])["gain"] == "frame"
            for _ in range(2):
                await client.send(pcm_of(HOP, 0))
            for _ in range(5):  # the look-ahead is two frames
                await client.send(pcm_of(HOP, 0))
                assert len(await asyncio.wait_for(client.recv(), PATIENCE)) == 2 * 3 + 2
            await client.send("end")
            assert len(b"".join([message async for message in client])) == 2 * 8

    asyncio.run(run())


@pytest.mark.slow
def test_sixteen_streams_in_real_time(service: Service, codec: SpeechTokenizer) -> None:
    seconds, late = 20, []
    pcm = [pcm_of(seconds * RATE, number) for number in range(16)]

    async def one(number: int) -> bytes:
        async with stream(service, "encode") as client:
            frames = [await client.recv()]
            begun = time.monotonic()

            async def talk() -> None:
                for i, block in enumerate(pieces(pcm[number], 2 * HOP)):
                    await asyncio.sleep(begun + (i + 1) * HOP / RATE - time.monotonic())
                    await client.send(block)
                await client.send("end")

            talking = asyncio.create_task(talk())
            async for message in client:
                frames.append(message)
                late.append(time.monotonic() - begun - (len(frames) + 1) * HOP / RATE)  # the look-ahead is two frames
            await talking
            return b"".join(frames)

    async def run() -> list[bytes]:
        return await asyncio.gather(*map(one, range(16)))

    stepped, steps = (-metric(service, f"vocable_stream_batch_{name}") for name in ("sum", "count"))
    frames = asyncio.run(run())
    stepped += metric(service, "vocable_stream_batch_sum")
    steps += metric(service, "vocable_stream_batch_count")
    print(f"{stepped / steps:.1f} streams in a step; late by s:", np.quantile(late, [0.5, 0.99, 1]).round(3))
    assert [len(codes(one)) for one in frames] == [seconds * RATE // HOP] * 16
    assert codes(frames[5]) == codes(frames_of(codec, pcm[5]))
    # How late they are depends on what else the machine does; what waits is stepped together.
    assert np.quantile(late, 0.5) < 0.5 or stepped / steps > 8


# ---- limits and errors ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_client_that_does_not_read_is_not_read(service: Service, codec: SpeechTokenizer) -> None:
    frames = frames_of(codec, pcm_of(60 * HOP, 0))
    header = frames[: len(frames) - 60 * 8]
    asyncio.run(converted(service, "decode", [frames]))  # the worker has loaded its codec before memory is measured

    async def run() -> Close | None:
        async with stream(service, "decode") as client:
            client.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.transport.pause_reading()
            sending = asyncio.create_task(send(client, [header, *[frames[len(header) :]] * 500]))
            await asyncio.to_thread(wait_until, lambda: metric(service, "vocable_streams") == 0, PATIENCE)
            assert service.memory() - before < 20 * 2**20
            client.transport.resume_reading()
            with pytest.raises(ConnectionClosed) as caught:
                await sending
                while True:
                    await client.recv()
            return caught.value.rcvd

    decoded, before = metric(service, "vocable_audio_seconds_total", kind="decoded"), service.memory()
    close = asyncio.run(run())
    # The service drops a connection that does not take its close code.
    assert close is None or (close.code == 1008 and "read" in close.reason)
    seconds = metric(service, "vocable_audio_seconds_total", kind="decoded") - decoded
    assert seconds < 300, "of 600 s, only what the buffers of the sockets hold was decoded"


@pytest.mark.slow
def test_a_client_that_leaves_frees_its_stream(service: Service, codec: SpeechTokenizer) -> None:
    pcm = pcm_of(60 * HOP, 0)

    async def run() -> bytes:
        other = asyncio.create_task(converted(service, "encode", pieces(pcm, 100)))
        for _ in range(3):
            async with stream(service, "decode") as client:
                await client.send(frames_of(codec, pcm)[:700])
                client.transport.abort()
        async with stream(service, "encode") as client:
            await client.send(pcm)
        return await other

    assert codes(asyncio.run(run())) == codes(frames_of(codec, pcm))
    wait_until(lambda: metric(service, "vocable_streams") == 0)


@pytest.mark.slow
def test_what_closes_a_stream(service: Service, codec: SpeechTokenizer) -> None:
    pcm = pcm_of(10 * HOP, 0)

    async def refused(direction: str, *messages: bytes | str, **query: str) -> tuple[int, str]:
        async with stream(service, direction, **query) as client:
            for message in messages:
                await client.send(message)
            return await closed(client)

    async def run() -> None:
        assert await refused("encode", pcm, b"\0") == (
            1007,
            "a message has an odd number of bytes: send whole samples of 16 bits",
        )
        assert (await refused("decode", b"no frames at all"))[0] == 1007
        assert (await refused("decode", frames_of(codec, pcm)[:-1], "end"))[1].startswith("the last token frame is cut")
        assert (await refused("encode", "flush"))[0] == 1003
        assert (await refused("sideways"))[0] == 1008
        assert (await refused("encode", layers="1"))[0] == 1008
        assert (await refused("encode", layers=":9"))[0] == 1007
        assert (await refused("encode", bytes(2**20 + 2)))[0] == 1009
        code, reason = await refused("encode", pcm)
        assert code == 1008 and reason == f"no message came in {IDLE} s: send the text end after the last one"
        with pytest.raises(InvalidStatus) as wrong:
            await refused("encode", key="another")
        assert wrong.value.response.status_code == 401
        assert json.loads(wrong.value.response.body)["error"]["type"] == "authentication_error"
        clients = [await stream(service, "encode").__aenter__() for _ in range(16)]
        code, reason = await refused("encode")
        assert code == 1013 and reason.startswith("16 streams are open")
        for client in clients:
            await client.close()

    asyncio.run(run())
    assert service.process.poll() is None and "Traceback" not in service.log.read_text()
    counted = {"route": "/v1/audio/codec", "method": "WEBSOCKET", "status": 1007}
    assert metric(service, "vocable_requests_total", **counted) == 4


@pytest.mark.slow
def test_a_worker_of_streams_that_dies_is_replaced(service: Service, codec: SpeechTokenizer) -> None:
    wait_until(lambda: metric(service, "vocable_streams") == 0, PATIENCE)  # those of the tests before
    pcm = pcm_of(10 * HOP, 0)

    async def run() -> tuple[int, str]:
        async with stream(service, "encode") as client:
            await client.recv()
            newest = max(service.workers(), key=psutil.Process.create_time)
            newest.kill()
            return await closed(client)

    code, reason = asyncio.run(run())
    assert code == 1011 and "connect again" in reason
    assert codes(asyncio.run(converted(service, "encode", [pcm]))) == codes(frames_of(codec, pcm))
    assert metric(service, "vocable_stream_restarts") == 1


@pytest.mark.slow
def test_the_longest_stream_and_sigterm(folder: Path, tmp_path: Path) -> None:
    with serving(tmp_path, "-m", folder, "--grace", 60, "--max-stream-seconds", 1) as service:

        async def run() -> tuple[int, str]:
            async with stream(service, "encode") as client:
                await client.send(pcm_of(51 * HOP, 0))
                assert await closed(client) == (
                    1008,
                    "the stream is longer than 1 s, which is the limit: connect again",
                )
            async with stream(service, "encode") as client:
                await client.send(pcm_of(10 * HOP, 0))
                await client.recv()
                service.process.terminate()
                return await closed(client)

        code, reason = asyncio.run(run())
        assert code == 1001 and reason == "the service is stopping: connect again"
        assert service.process.wait(30) == 143
        assert "Traceback" not in service.log.read_text()


def test_a_codec_that_needs_whole_clips(client: TestClient) -> None:
    address = "ws://127.0.0.1:8000/v1/audio/codec?direction=encode"
    with client.websocket_connect(address) as opened, pytest.raises(WebSocketDisconnect) as closed:
        opened.receive_bytes()
    assert closed.value.code == 1008 and "start vocable serve with -m and a causal codec" in closed.value.reason
    foreign = {"Origin": "http://other.example"}
    for url, headers in ((address, foreign), (address.replace("127.0.0.1", "other.example"), {})):
        with pytest.raises(WebSocketDenialResponse) as denied, client.websocket_connect(url, headers=headers):
            pass
        assert denied.value.status_code == 403 and denied.value.json()["error"]["type"] == "permission_error"
