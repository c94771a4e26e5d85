"""The page in a real browser, with the real server and nano behind it; its microphone is fed from a file."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("prometheus_client", reason="the extra serve is not installed")
pytest.importorskip("silero_vad", reason="the extra serve is not installed")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

from omnivox import load  # noqa: E402
from omnivox.runtime.engine import Engine, EngineSettings  # noqa: E402
from omnivox.serve.app import create_app  # noqa: E402
from omnivox.serve.settings import ServeSettings  # noqa: E402
from tests.serve.running import serving  # noqa: E402
from tests.serve.visit import Visit  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LONG = "Tell me a poem."  # a question whose answer is long enough to be interrupted


@pytest.fixture(scope="module")
def engine(nano_weights: Path) -> Iterator[Engine]:
    engine = Engine(load("nano"), EngineSettings())
    engine.start()
    yield engine
    engine.close()


@pytest.fixture(scope="module")
def address(engine: Engine) -> Iterator[str]:
    with serving(create_app(engine, ServeSettings())) as address:
        yield f"http://{address}"


@pytest.fixture(scope="module")
def browser(question: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Chromium, whose microphone hears the bundled question and then silence each time it is opened."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    samples, rate = soundfile.read(question)
    microphone = tmp_path_factory.mktemp("microphone") / "question.wav"
    soundfile.write(microphone, np.concatenate([np.zeros(rate // 2), samples, np.zeros(60 * rate)]), rate)
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=[
            "--no-sandbox", "--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream",
            f"--use-file-for-fake-audio-capture={microphone}%noloop"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, address: str) -> Iterator[Visit]:
    visit = Visit(browser, address)
    visit.open()
    yield visit
    visit.close()


def heard_by(words: list[tuple[str, int]], samples: float) -> str:
    """The text that came before the first `samples` of its sound were complete."""
    return "".join(text for text, before in words if before < samples)


def test_a_spoken_question_is_answered_in_sound_and_in_words(visit: Visit) -> None:
    visit.page.click("#talk")
    shown = visit.answer("done")
    _, sound, words = visit.item()
    played = visit.played()

    assert shown == "".join(text for text, _ in words) == \
        visit.received("response.output_audio_transcript.done")[0]["transcript"]
    assert shown.strip()
    assert len(sound) > 0.4 * 24_000
    assert np.sqrt(np.mean(played**2)) > 0.005
    assert abs(len(played) - len(sound)) < 0.1 * 24_000
    assert np.sqrt(np.mean(played**2)) == pytest.approx(np.sqrt(np.mean(sound**2)), rel=0.1)
    assert visit.page.get_attribute("#talk", "aria-pressed") == "true"


def test_words_are_shown_when_their_sound_is_reached(visit: Visit) -> None:
    visit.write(LONG)
    whole = visit.answer("done")
    name, _, words = visit.item()
    shown = [(heard, text) for item, heard, text in visit.page.evaluate("omnivoxTest.shown") if item == name]

    assert len({text for _, text in shown} - {whole}) > 2, "the words come one after another"
    for heard, text in shown:
        assert text == heard_by(words, heard)
    assert all(after.startswith(before) for (_, before), (_, after) in pairwise(shown))


def test_speaking_over_the_answer_stops_it_and_keeps_what_was_heard(visit: Visit) -> None:
    visit.page.wait_for_selector(".chip")
    visit.write(LONG)
    visit.answer("sounding")
    visit.page.click(".chip >> nth=0")
    visit.answer("interrupted")
    before = len(visit.played())
    visit.wait_to_speak(10)
    name, sound, words = visit.item()

    assert len(visit.played()) == before, "nothing sounds after an interruption"
    truncate, = [event for event in visit.sent() if event["type"] == "conversation.item.truncate"]
    assert (truncate["item_id"], truncate["content_index"]) == (name, 0)
    assert 0 < truncate["audio_end_ms"] < len(sound) / 24
    assert truncate["audio_end_ms"] == pytest.approx(before / 24, abs=15)
    assert visit.page.locator(".answer .remark").first.text_content() == "Interrupted"
    visit.answer("done", 1)  # and the question that interrupted is answered

    visit.page.evaluate("name => omnivoxTest.link.send('conversation.item.retrieve', { item_id: name })", name)
    visit.wait("name => omnivoxTest.received.at(-1).item?.id === name", name)
    remembered = visit.received("conversation.item.retrieved")[-1]["item"]["content"][0]["transcript"]
    assert visit.answer("interrupted") == remembered
    assert heard_by(words, truncate["audio_end_ms"] * 24).startswith(remembered)
    assert len(remembered) < len("".join(text for text, _ in words))
    assert not visit.received("error")


def test_the_latency_of_a_turn_is_drawn_and_told(visit: Visit) -> None:
    visit.page.wait_for_selector(".chip")
    visit.page.click(".chip >> nth=1")
    visit.answer("done")
    heads = visit.page.locator(".timeline th").all_text_contents()
    times = [int(cell.removesuffix(" ms")) for cell in visit.page.locator(".timeline td").all_text_contents()]

    assert heads == ["Pause", "Encode", "First token", "First sound", "Heard"]
    assert times[0] > 0
    assert times[1] <= times[2] <= times[3]
    told = visit.received("response.done")[0]["response"]["omnivox"]
    assert times[3] == int(told["first_audio_ms"] + 0.5)  # as the page rounds: halves up
    assert times[4] > times[0], "nothing is heard before the pause has ended the turn"
    assert f"first sound {times[3]}" in visit.page.get_attribute(".timeline svg", "aria-label")
    assert visit.page.locator(".timeline rect").count() == 5


def test_the_space_bar_is_push_to_talk(visit: Visit) -> None:
    visit.page.keyboard.down("Space")
    visit.wait_to_speak(65)
    assert visit.page.text_content("#status") == "Recording; release to send"
    visit.page.keyboard.up("Space")
    assert visit.answer("done")
    sent = [event for event in visit.sent()[1:] if event["type"] != "input_audio_buffer.append"]

    assert [event["type"] for event in sent] == [
        "session.update", "input_audio_buffer.clear", "input_audio_buffer.commit", "response.create", "session.update"]
    off, on = (event["session"]["audio"]["input"]["turn_detection"] for event in sent if "session" in event)
    assert off is None
    assert on["type"] == "server_vad"
    assert not visit.received("error")


def test_the_space_bar_writes_in_the_text_box(visit: Visit) -> None:
    visit.page.focus("#text")
    visit.page.keyboard.type("a b")
    assert visit.page.input_value("#text") == "a b"
    assert len(visit.sent()) == 1


def test_the_button_is_held_where_turns_end_by_hand(browser: Any, address: str) -> None:
    visit = Visit(browser, address, has_touch=True)
    visit.open()
    visit.page.check("input[value=manual]")
    visit.page.hover("#talk")
    visit.page.mouse.down()
    visit.wait_to_speak(65)
    visit.page.mouse.up()
    assert visit.answer("done")
    assert visit.page.get_attribute("#talk", "aria-pressed") == "false"
    visit.page.tap("#talk")  # those who cannot hold: a tap begins, the next one sends
    visit.wait_to_speak(20)
    visit.page.tap("#talk")
    visit.wait("() => omnivoxTest.sent.filter(({type}) => type === 'input_audio_buffer.commit').length === 2")
    visit.close()


def test_settings_reach_the_session_and_are_kept(visit: Visit) -> None:
    visit.page.fill("#chunk", "25")
    visit.page.uncheck("input[name=whole]")
    visit.page.fill("#lookahead", "3")
    visit.page.check("input[value=semantic_vad]")
    visit.page.select_option("#eagerness", "high")
    visit.wait("() => omnivoxTest.received.filter(({type}) => type === 'session.updated').length === 6")
    session = visit.received("session.updated")[-1]["session"]

    assert (session["omnivox"]["chunk_units"], session["omnivox"]["lookahead"]) == (25, 3)
    assert session["audio"]["input"]["turn_detection"]["eagerness"] == "high"
    assert not visit.page.is_visible("#threshold")
    visit.page.reload()
    visit.page.wait_for_selector("#talk:enabled")
    assert visit.page.input_value("#chunk") == "25"


def test_a_refused_microphone_is_explained(visit: Visit) -> None:
    visit.page.evaluate("""() => {
        navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException("", "NotAllowedError"));
    }""")
    visit.page.click("#talk")
    visit.page.wait_for_selector("#notice[data-shown=true]")
    assert "microphone was refused" in visit.page.text_content("#notice-text")
    assert visit.page.get_attribute("#talk", "aria-pressed") == "false"


def test_a_key_is_asked_for_and_travels(browser: Any, engine: Engine) -> None:
    with serving(create_app(engine, ServeSettings(api_keys=("secret",)))) as address:
        visit = Visit(browser, f"http://{address}")
        visit.page.goto(visit.address + "/?test")
        for key, told in [("wrong", "did not accept"), ("sëcret", "cannot send"), ("secret", "")]:
            visit.page.fill("#key", key)
            visit.page.press("#key", "Enter")
            visit.wait("told => document.getElementById('notice-text').textContent.includes(told)", told)
        visit.page.wait_for_selector("#talk:enabled")
        assert not visit.page.is_visible("#key")
        assert "secret" not in visit.page.evaluate("JSON.stringify({...localStorage, ...sessionStorage})")
        visit.complaints.clear()  # browsers write refusals to the console
        visit.close()


@pytest.mark.parametrize(("code", "told"), [(1001, "shutting down"), (1013, "full"), (1011, "lost")])
def test_a_lost_connection_is_told_and_comes_back(browser: Any, address: str, code: int, told: str) -> None:
    visit = Visit(browser, address)
    sockets: list[Any] = []
    visit.page.route_web_socket("**/v1/realtime*", lambda socket: sockets.append((socket, socket.connect_to_server())))
    visit.open()
    visit.write("What color is snow?")
    visit.answer("done")
    visit.page.evaluate("""new MutationObserver(() => {
        globalThis.notices = (globalThis.notices ?? "") + document.getElementById("notice-text").textContent;
    }).observe(document.getElementById("notice-text"), { childList: true })""")
    sockets[0][0].close(code=code, reason="")
    visit.wait("told => globalThis.notices?.includes(told)", told)
    visit.page.wait_for_selector("#talk:enabled")
    assert len(sockets) == 2
    assert not visit.page.is_visible("#notice")
    assert visit.page.locator("#log > li").last.text_content() == "New conversation"
    visit.close()


# -- for everybody ----------------------------------------------------------------------------------------------------

def test_every_control_has_a_name_and_the_page_an_order(visit: Visit) -> None:
    tree = visit.page.locator("body").aria_snapshot()
    controls = re.findall(r"- (button|textbox|slider|radio|checkbox|combobox|meter)(.*)", tree)
    assert len(controls) >= 14
    assert all(re.match(r' ".+"', rest) for _, rest in controls), tree
    assert visit.page.locator("h1").count() == 1
    assert visit.page.get_attribute("html", "lang") == "en"
    levels = [int(name[1]) for name in visit.page.evaluate(
        "[...document.querySelectorAll('h1, h2, h3')].map(({localName}) => localName)")]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert visit.page.locator("[style]").count() == visit.page.locator(".meter span[style], #talk[style]").count()
    for live in ["#status[role=status]", "#announcer[aria-live=polite]", "#notice[role=alert]"]:
        assert visit.page.locator(live).count() == 1


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_what_is_behind_it(browser: Any, address: str, scheme: str) -> None:
    visit = Visit(browser, address, color_scheme=scheme)
    visit.open()
    pairs = [("ink", "page"), ("ink", "card"), ("ink", "tint"), ("soft", "page"), ("soft", "card"), ("accent", "card"),
             ("on-accent", "accent"), ("warn", "warn-page")]
    colours = visit.page.evaluate("""names => Object.fromEntries(names.map((name) => {
        const probe = document.body.appendChild(document.createElement("i"));
        probe.style.color = `var(--${name})`;
        return [name, getComputedStyle(probe).color.match(/[\\d.]+/g).slice(0, 3).map(Number)];
    }))""", sorted({name for pair in pairs for name in pair}))
    contrast = {pair: _contrast(colours[pair[0]], colours[pair[1]]) for pair in pairs}
    assert min(contrast.values()) >= 4.5, contrast
    assert (sum(colours["page"]) > 3 * 128) == (scheme == "light")
    visit.page.click("#theme")
    visit.page.click("#theme")
    assert visit.page.get_attribute("html", "data-theme") == "dark"
    visit.close()


def _contrast(one: list[float], other: list[float]) -> float:
    """WCAG 2's contrast ratio of two sRGB colours."""
    def luminance(colour: list[float]) -> float:
        linear = [c / 3294.6 if c <= 10.31475 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in colour]
        return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))
    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_a_phone_shows_all_of_it(browser: Any, address: str) -> None:
    visit = Visit(browser, address, has_touch=True, is_mobile=True)
    visit.page.set_viewport_size({"width": 360, "height": 640})
    visit.open()
    visit.page.wait_for_selector(".chip")
    assert visit.page.evaluate("document.documentElement.scrollWidth") == 360
    for control in visit.page.locator("button:visible, input:visible").all():
        assert control.bounding_box()["height"] >= 44
    visit.page.tap("#settings-toggle")
    assert visit.page.is_visible("#chunk")
    visit.page.tap("#settings-close")
    assert not visit.page.is_visible("#chunk")
    visit.close()


@pytest.mark.parametrize(("rate", "target"), [(44_100, 24_000), (48_000, 24_000), (24_000, 48_000), (24_000, 44_100)])
def test_the_pages_resampler_streams_what_it_would_make_at_once(visit: Visit, rate: int, target: int) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(rate // 5) / rate).tolist()
    pieces, whole = visit.page.evaluate("""async ([tone, rate, target]) => {
        const { Resampler } = await import("/web/resample.js");
        const chunks = [];
        const streamed = new Resampler(rate, target);
        for (let at = 0, size = 1; at < tone.length; at += size, size = (size * 7) % 509) {
            chunks.push(...streamed.push(Float32Array.from(tone.slice(at, at + size))));
        }
        chunks.push(...streamed.flush());
        const once = new Resampler(rate, target);
        return [chunks, [...once.push(Float32Array.from(tone)), ...once.flush()]];
    }""", [tone, rate, target])
    assert pieces == whole
    assert len(whole) == target // 5
    expected = np.sin(2 * np.pi * 1000 * np.arange(target // 5) / target)
    assert np.abs(np.array(whole) - expected)[100:-100].max() < 1e-3
