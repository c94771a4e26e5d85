"""The client of the Realtime protocol: what it sends, what it makes of what comes, and clear errors for the rest."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("websockets")

import omnivox
from omnivox.errors import AudioError, ConfigError, OmnivoxError
from omnivox.runtime.client import Client, endpoint, key_of
from omnivox.runtime.events import Audio, Done, Text
from omnivox.sound import read_audio
from tests.realtime import Peer, server

TONE = 0.5 * np.sin(2 * np.pi * 440 * np.arange(24_000) / 24_000)


def tone(rate: int) -> torch.Tensor:
    return torch.from_numpy(0.5 * np.sin(2 * np.pi * 440 * np.arange(rate) / rate)).float()


def greets(peer: Peer) -> None:
    peer.greet()


def answers(peer: Peer) -> None:
    """Answers every question with the same words and a tone of a second."""
    peer.greet()
    for turn in range(10):
        peer.answer(peer.until("response.create")["response"]["metadata"], "It is Paris.", TONE, f"resp_{turn}")


# -- asking -----------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("rate", [16_000, 24_000])
def test_a_spoken_question_is_sent_whole_and_its_answer_arrives(question: Path, rate: int) -> None:
    with server(answers) as (url, peers), Client(url, sample_rate=rate) as client:
        events = list(client.ask(str(question)))
    peer = peers[0]
    assert [event["type"] for event in peer.heard] == ["session.update", "input_audio_buffer.commit", "response.create"]
    spoken = read_audio(question, 24_000).numpy()
    assert len(peer.sound) == len(spoken)
    assert np.corrcoef(peer.sound, spoken)[0, 1] > 0.999

    *made, done = events
    assert isinstance(done, Done)
    assert "".join(event.delta for event in made if isinstance(event, Text)) == done.reply.text == "It is Paris. "
    audio = torch.cat([event.samples for event in made if isinstance(event, Audio)])
    assert audio.equal(done.reply.audio)
    assert done.reply.sample_rate == client.sample_rate == rate
    assert len(audio) == rate
    assert torch.allclose(audio[100:-100], tone(rate)[100:-100], atol=2e-3)
    assert not done.reply.cancelled
    assert 0 < done.reply.timings.first_token <= done.reply.timings.first_audio <= done.reply.timings.total
    assert done.reply.timings.audio_seconds == 1.0


def test_a_written_question_becomes_an_item() -> None:
    with server(answers) as (url, peers), Client(url) as client:
        *_, done = client.ask("What is the capital of France?")
        assert done.reply.text == "It is Paris. "
    item = peers[0].heard[1]["item"]
    assert item == {"type": "message", "role": "user",
                    "content": [{"type": "input_text", "text": "What is the capital of France?"}]}
    assert not len(peers[0].sound)


def test_samples_and_a_second_question_on_one_connection(question: Path) -> None:
    with server(answers) as (url, peers), Client(url) as client:
        for _ in range(2):
            *_, done = client.ask(read_audio(question))
            assert len(done.reply.audio) == 16_000
    assert len(peers) == 1
    assert abs(len(peers[0].sound) - 2 * len(read_audio(question, 24_000))) <= 2


def test_nothing_is_asked_before_the_first_event_is_wanted() -> None:
    with server(answers) as (url, peers), Client(url) as client:
        client.ask("Will this be asked?")
        list(client.ask("This will."))
    assert [event["item"]["content"][0]["text"] for event in peers[0].heard if "item" in event] == ["This will."]


def test_a_name_of_a_sound_file_that_is_not_there_is_no_question() -> None:
    with server(greets) as (url, _), Client(url) as client, pytest.raises(AudioError, match=r"gone\.wav: no such file"):
        client.ask("gone.wav")


def test_stopping_early_cancels_and_says_what_was_heard() -> None:
    def talk(peer: Peer) -> None:
        peer.greet()
        metadata = peer.until("response.create")["response"]["metadata"]
        peer.answer(metadata, "It", TONE[:12_000], done=False)
        peer.until("response.cancel")
        peer.answer(metadata, "It", TONE, "resp_other")  # not this response's: nothing of it may be taken
        peer.finish(metadata, status="cancelled", details={"type": "cancelled", "reason": "client_cancelled"})
        peer.until("conversation.item.truncate")
        peer.answer(peer.until("response.create")["response"]["metadata"], "Still here.", None, "resp_2")

    with server(talk) as (url, peers), Client(url, sample_rate=24_000) as client:
        heard = 0
        for event in client.ask("What?"):
            if isinstance(event, Audio):
                heard += len(event.samples)
            if heard >= 7_000:
                break
        *_, done = client.ask("And now?")
        assert done.reply.text == "Still here. "
    [truncated] = [event for event in peers[0].heard if event["type"] == "conversation.item.truncate"]
    assert truncated["item_id"] == "item_of_resp_1"
    assert truncated["audio_end_ms"] == heard // 24
    assert truncated["content_index"] == 0


def test_an_answer_that_the_server_cancels_says_so() -> None:
    def talk(peer: Peer) -> None:
        peer.greet()
        metadata = peer.until("response.create")["response"]["metadata"]
        peer.answer(metadata, "It is", TONE[:2400], done=False)
        peer.finish(metadata, status="cancelled", details={"type": "cancelled", "reason": "turn_detected"})

    with server(talk) as (url, _), Client(url) as client:
        *_, done = client.ask("What?")
    assert done.reply.cancelled
    assert done.reply.text == "It is "
    assert len(done.reply.audio) == 1600


def test_an_answer_without_metadata_is_taken_for_ours() -> None:
    def talk(peer: Peer) -> None:
        peer.greet()
        peer.until("response.create")
        peer.answer(None, "Yes.")

    with server(talk) as (url, _), Client(url) as client:
        *_, done = client.ask("Do you echo metadata?")
    assert done.reply.text == "Yes. "


# -- the session ------------------------------------------------------------------------------------------------------

def test_the_session_asks_for_manual_turns_and_24_khz() -> None:
    with server(greets) as (url, peers), Client(url, model="mine", instructions="Be brief."):
        pass
    wire = {"type": "audio/pcm", "rate": 24_000}
    assert peers[0].path == "/v1/realtime?model=mine"
    assert peers[0].heard[0]["session"] == {
        "type": "realtime", "output_modalities": ["audio"], "instructions": "Be brief.",
        "audio": {"input": {"format": wire, "turn_detection": None}, "output": {"format": wire}}}


def test_voice_activity_and_more_fields_reach_the_session() -> None:
    more = {"audio": {"output": {"voice": "alloy"}}, "output_modalities": ["text"]}
    with server(greets) as (url, peers), Client(url, voice_activity="semantic_vad", session=more):
        pass
    session = peers[0].heard[0]["session"]
    assert session["audio"]["input"]["turn_detection"] == {"type": "semantic_vad"}
    assert session["audio"]["output"] == {"format": {"type": "audio/pcm", "rate": 24_000}, "voice": "alloy"}
    assert session["output_modalities"] == ["text"]


def test_a_spoken_question_to_a_server_that_decides_about_turns_is_refused(question: Path) -> None:
    with (server(greets) as (url, _), Client(url, voice_activity="server_vad") as client,
          pytest.raises(ConfigError, match=r"ask: .*voice_activity")):
        client.ask(question)


def test_sound_appended_in_pieces_is_the_sound_appended_at_once() -> None:
    samples = tone(16_000)

    def listens(peer: Peer) -> None:
        peer.greet()
        peer.until("input_audio_buffer.commit")
        peer.send("input_audio_buffer.committed", item_id="item_1", previous_item_id=None)

    heard = []
    for size in (16_000, 512, 77):
        with server(listens) as (url, peers), Client(url) as client:
            for piece in samples.split(size):
                client.append(piece)
            client.commit()
            event = client.receive()
            assert event is not None
            assert event["type"] == "input_audio_buffer.committed"
        heard.append(peers[0].sound)
    assert len(heard[0]) == 24_000
    for other in heard[1:]:
        assert np.abs(heard[0].astype(int) - other).max() <= 1


def test_receive_gives_up_after_its_time() -> None:
    with server(greets) as (url, _), Client(url) as client:
        assert client.receive(timeout=0.01) is None


# -- addresses and keys -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("url", "found"), [
    ("ws://127.0.0.1:8000/v1/realtime", "ws://127.0.0.1:8000/v1/realtime?model=nano"),
    ("http://127.0.0.1:8000", "ws://127.0.0.1:8000/v1/realtime?model=nano"),
    ("http://localhost:8000/", "ws://localhost:8000/v1/realtime?model=nano"),
    ("https://voice.example/v1", "wss://voice.example/v1/realtime?model=nano"),
    ("wss://voice.example/behind/a/proxy/", "wss://voice.example/behind/a/proxy/v1/realtime?model=nano"),
    ("wss://voice.example/openai/realtime?model=theirs&x=1", "wss://voice.example/openai/realtime?model=theirs&x=1"),
    ("ws://[::1]:9/v1/realtime", "ws://[::1]:9/v1/realtime?model=nano"),
])
def test_an_address_may_be_written_in_many_ways(url: str, found: str) -> None:
    assert endpoint(url, "nano").geturl() == found


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "localhost:8000", "ftp://h", "ws://", "ws://h:port", "ws://[", ""])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match=r"^url: found .*expected one such as ws://"):
        Client(url)


@pytest.mark.parametrize(("url", "sent"), [
    ("wss://api.openai.com/v1/realtime", True),
    ("ws://api.openai.com/v1/realtime", False),  # in the clear
    ("wss://localhost/v1", False), ("wss://nano.localhost/v1", False), ("wss://127.0.0.1/v1", False),
    ("wss://127.9.9.9/v1", False), ("wss://[::1]/v1", False), ("wss://192.168.1.5/v1", False),
    ("wss://10.0.0.1/v1", False),
])
def test_a_hosted_services_key_goes_nowhere_else(url: str, sent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    assert key_of(endpoint(url, "nano")) == ("sk-secret" if sent else None)


def test_a_key_that_is_given_is_sent_and_none_is_invented(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with server(greets) as (url, peers):
        with Client(url, api_key="mine"):
            pass
        with Client(url):
            pass
    assert [peer.headers.get("Authorization") for peer in peers] == ["Bearer mine", None]


# -- what can go wrong ------------------------------------------------------------------------------------------------

def test_nobody_there_is_one_clear_error() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))  # bound and not listening: refused
        port = held.getsockname()[1]
        with pytest.raises(OmnivoxError, match=rf"127.0.0.1:{port}.*cannot connect .*omnivox serve"):
            Client(f"ws://127.0.0.1:{port}")


@pytest.mark.parametrize(("status", "key", "kind", "said"), [
    (401, None, ConfigError, "an API key is needed; give api_key .HTTP 401: because"),
    (401, "wrong", ConfigError, "the API key was refused .HTTP 401"),
    (403, None, ConfigError, "refuses the connection .HTTP 403: because.; check the address and the key"),
    (404, None, OmnivoxError, "no Realtime server there .HTTP 404: because"),
    (503, None, OmnivoxError, "HTTP 503"),
])
def test_a_refused_connection_says_why(status: int, key: str | None, kind: type[Exception], said: str) -> None:
    with server(greets, refuse=status) as (url, _), pytest.raises(kind, match=said):
        Client(url, api_key=key)


@pytest.fixture
def babbler() -> Iterator[str]:
    """The address of something that listens and speaks no HTTP."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        def babble() -> None:
            connection, _ = listening.accept()
            with connection:  # to the end: where it hung up while it is written to, websockets' own thread would fail
                connection.recv(65_536)
                connection.sendall(b"220 mail.example ESMTP\r\n")
                connection.recv(65_536)
        thread = threading.Thread(target=babble)
        thread.start()
        yield f"ws://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()


def test_another_protocol_is_one_clear_error(babbler: str) -> None:
    with pytest.raises(OmnivoxError, match=r"what answers there is no Realtime server|cannot connect"):
        Client(babbler)


@pytest.mark.parametrize(("talk", "said"), [
    (lambda peer: peer.send("hello"), "found 'hello'; expected session.created"),
    (lambda peer: peer.socket.send("<html>"), "sent '<html>'; expected an event"),
    (lambda peer: peer.socket.send("[1]"), "expected an event"),
    (lambda peer: peer.send("error", error={"type": "server_error", "code": "busy", "message": "full"}),
     r"error: full \(busy\)"),
    (lambda peer: peer.socket.close(1013, "try again later"), "closed the connection .code 1013, try again later"),
])
def test_a_strange_greeting_is_one_clear_error(talk: object, said: str) -> None:
    with server(talk) as (url, _), pytest.raises(OmnivoxError, match=said):  # type: ignore[arg-type]
        Client(url)


def test_silence_is_one_clear_error() -> None:
    with server(lambda peer: None) as (url, _), pytest.raises(OmnivoxError, match=r"expected session\.created first"):
        Client(url, timeout=2.0)  # time enough to connect


def test_a_refused_session_is_the_callers_mistake() -> None:
    def talk(peer: Peer) -> None:
        peer.send("session.created", session={})
        name = peer.until("session.update")["event_id"]
        peer.send("error", error={"type": "invalid_request_error", "message": "no such voice", "event_id": name})

    with server(talk) as (url, _), pytest.raises(ConfigError, match="session: the server refused it: no such voice"):
        Client(url)


def test_an_error_instead_of_an_answer_is_raised_and_the_connection_lives() -> None:
    def talk(peer: Peer) -> None:
        peer.greet()
        name = peer.until("response.create")["event_id"]
        peer.send("error", error={"type": "server_error", "message": "too busy", "code": "busy", "event_id": name})
        cancel = peer.until("response.cancel")["event_id"]
        peer.send("error", error={"type": "invalid_request_error", "message": "none", "event_id": cancel,
                                  "code": "response_cancel_not_active"})  # of the question before
        peer.send("error", error={"type": "invalid_request_error", "message": "what?", "event_id": "somebody's"})
        peer.answer(peer.until("response.create")["response"]["metadata"], "Now.", None, "resp_2")

    with server(talk) as (url, _), Client(url) as client:
        with pytest.raises(OmnivoxError, match=r"too busy \(busy\)"):
            list(client.ask("Hello?"))
        *_, done = client.ask("And now?")
        assert done.reply.text == "Now. "


def test_a_failed_answer_is_raised() -> None:
    def talk(peer: Peer) -> None:
        peer.greet()
        metadata = peer.until("response.create")["response"]["metadata"]
        peer.answer(metadata, "It", done=False)
        peer.finish(metadata, status="failed", details={"type": "failed", "error": {"message": "out of memory"}})

    with server(talk) as (url, _), Client(url) as client, pytest.raises(OmnivoxError, match="out of memory"):
        list(client.ask("Hello?"))


def test_a_connection_that_is_cut_in_the_middle_is_one_clear_error() -> None:
    def talk(peer: Peer) -> None:
        peer.greet()
        peer.answer(peer.until("response.create")["response"]["metadata"], "It", done=False)
        peer.socket.close(1001, "going away")

    with (server(talk) as (url, _), Client(url) as client,
          pytest.raises(OmnivoxError, match=r"closed the connection .code 1001, going away")):
        list(client.ask("Hello?"))


def test_a_client_that_is_closed_says_so() -> None:
    with server(greets) as (url, _):
        client = Client(url)
        client.close()
        client.close()
        with pytest.raises(OmnivoxError, match="this client is closed"):
            client.send({"type": "response.create"})


def test_without_its_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.sync.client", None)
    with pytest.raises(ConfigError, match=r"websockets is missing.*pip install 'omnivox\[chat\]'"):
        Client("ws://127.0.0.1:9")


def test_other_rates_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^sample_rate: found 8000; expected 16000 or 24000"):
        omnivox.Client("ws://127.0.0.1:9", sample_rate=8000)
