"""A visit to the page with a real browser: what it sent, received, played and showed."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import soxr

Event = dict[str, Any]
PATIENCE = 60_000  # milliseconds until a test gives up
WATCH = """
    globalThis.violations = [];
    addEventListener("securitypolicyviolation", (event) => violations.push(event.violatedDirective));
"""


class Visit:
    """One visit to the page. What the page sent, received, played and showed, as its own test hook tells."""

    def __init__(self, browser: Any, address: str, **context: Any) -> None:
        self.context = browser.new_context(viewport={"width": 1200, "height": 800}, **context)
        self.context.set_default_timeout(PATIENCE)
        self.page = self.context.new_page()
        self.address = address
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url.replace("ws:", "http:")))
        self.page.add_init_script(WATCH)

    def open(self) -> None:
        self.page.goto(f"{self.address}/?test")
        self.page.wait_for_selector("#talk:enabled")

    def close(self) -> None:
        """Nothing went wrong unseen, and nothing left the server's origin."""
        violations = self.page.evaluate("violations")
        self.context.close()
        assert not violations
        assert not self.complaints
        assert not [url for url in self.requests if not url.startswith((self.address + "/", "data:", "blob:"))]

    def wait_to_speak(self, frames: int) -> None:
        """Waits until so many more frames of 40 ms have gone to the server."""
        count = "omnivoxTest.sent.filter(({type}) => type === 'input_audio_buffer.append').length"
        self.wait(f"least => {count} >= least", self.page.evaluate(count) + frames)

    def sent(self) -> list[Event]:
        return self.page.evaluate("omnivoxTest.sent")

    def received(self, kind: str) -> list[Event]:
        return self.page.evaluate("kind => omnivoxTest.received.filter(event => event.type === kind)", kind)

    def wait(self, condition: str, argument: object = None) -> None:
        self.page.wait_for_function(condition, arg=argument)

    def answer(self, state: str, number: int = 0) -> str:
        """Waits until the answer is in that state; its words."""
        self.wait("""([number, state]) =>
            document.querySelectorAll(".answer")[number]?.dataset.state === state""", [number, state])
        return self.page.locator(".answer").nth(number).locator(".words").text_content()

    def write(self, text: str) -> None:
        self.page.fill("#text", text)
        self.page.press("#text", "Enter")

    def played(self) -> np.ndarray:
        """What left the playback worklet so far, float32 [n], at 24 kHz."""
        raw = self.page.evaluate("""() => {
            const all = new Float32Array(omnivoxTest.tap.reduce((sum, block) => sum + block.length, 0));
            omnivoxTest.tap.reduce((at, block) => (all.set(block, at), at + block.length), 0);
            let text = "";
            for (const byte of new Uint8Array(all.buffer)) text += String.fromCharCode(byte);
            return btoa(text);
        }""")
        samples = np.frombuffer(base64.b64decode(raw), np.float32)
        return soxr.resample(samples, self.page.evaluate("omnivoxTest.rate()"), 24_000)

    def item(self, number: int = 0) -> tuple[str, np.ndarray, list[tuple[str, int]]]:
        """An answer as the server sent it: its item id, its samples at 24 kHz, and each piece of text with the number
        of samples that had come before it."""
        events = self.page.evaluate("""omnivoxTest.received.filter(({type}) =>
            ["response.output_audio.delta", "response.output_audio_transcript.delta"].includes(type))""")
        name = list(dict.fromkeys(event["item_id"] for event in events))[number]
        sound: list[np.ndarray] = []
        words: list[tuple[str, int]] = []
        for event in (event for event in events if event["item_id"] == name):
            if event["type"] == "response.output_audio.delta":
                sound.append(np.frombuffer(base64.b64decode(event["delta"]), "<i2") / 32768)
            else:
                words.append((event["delta"], sum(map(len, sound))))
        return name, np.concatenate(sound), words
