"""The items of one session, as the protocol shows them and as the model remembers them."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from omnivox.errors import OmnivoxError
from omnivox.rates import SAMPLE_RATE
from omnivox.runtime.events import Reply
from omnivox.runtime.history import LETTERS, History, Item
from omnivox.runtime.wire import AudioFormat, WireDecoder, milliseconds
from omnivox.serve.protocol import Json, ProtocolError, is_whole, new_id, too_long

MOST = 1000  # items remembered, of whatever kind
ROOT = "root"
_CONTENT = {"user": ("input_text", "input_audio"), "system": ("input_text",), "assistant": ("output_text", "text")}


@dataclass
class Entry:
    """json: the item as shown. items: what the model remembers of it (none of a system message). sound: samples of an
    answer that the model spoke, None of anything else."""

    json: Json
    items: list[Item]
    sound: int | None = None


class Items:
    """In the order of the conversation. What the model has forgotten is forgotten here too."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._entries: list[Entry] = []

    def __getitem__(self, item_id: str) -> Entry:
        """Raises ProtocolError where there is none of that id."""
        for entry in self._entries:
            if entry.json["id"] == item_id:
                return entry
        raise ProtocolError(f"Item with item_id not found: {item_id!r}.", "item_not_found", "item_id")

    @property
    def last_id(self) -> str | None:
        return self._entries[-1].json["id"] if self._entries else None

    @property
    def questioned(self) -> bool:
        """Whether there is anything to answer."""
        return any(item.role == "user" for item in self.history.items)

    def instructions(self, own: str) -> str | None:
        """The session's instructions and all system messages; None where there are neither."""
        return "\n".join([*([own] if own else []), *self._system()]) or None

    def _system(self) -> list[str]:
        return [part["text"] for entry in self._entries if entry.json["role"] == "system"
                for part in entry.json["content"]]

    def append(self, entry: Entry) -> str | None:
        """Add at the end; gives the id of the item before."""
        return self.insert(entry, self.last_id)

    def insert(self, entry: Entry, previous: str | None) -> str | None:
        """Add behind the item `previous` (None: first). Gives `previous`. Raises ProtocolError."""
        if any(other.json["id"] == entry.json["id"] for other in self._entries):
            raise ProtocolError(f"Item with id {entry.json['id']!r} already exists.", "item_create_duplicate_item_id",
                                "item.id")
        if entry.json["role"] == "system":
            self.check_length("item.content", letters(entry.json) + sum(map(len, self._system())))
        place = 0 if previous is None else self._entries.index(self[previous]) + 1
        remembered = sum(len(other.items) for other in self._entries[:place])
        for offset, item in enumerate(entry.items):
            self.history.add(item, remembered + offset)
        self._entries.insert(place, entry)
        self.forget()
        return previous

    def delete(self, item_id: str) -> None:
        """Raises ProtocolError where there is none of that id."""
        entry = self[item_id]
        self._entries.remove(entry)
        for item in entry.items:
            self.history.remove(item)

    def forget(self) -> None:
        """Drop what the model no longer remembers, and the oldest of what is too much."""
        self.history.trim()
        known = set(map(id, self.history.items))
        kept: list[Entry] = []
        for entry in self._entries:
            items = [item for item in entry.items if id(item) in known]
            if items or not entry.items:
                entry.items = items
                kept.append(entry)
        for entry in kept[:-MOST]:
            for item in entry.items:
                self.history.remove(item)
        self._entries = kept[-MOST:]

    def truncate(self, item_id: str, samples: int) -> None:
        """Keep of an answer what was heard. Raises ProtocolError."""
        entry = self[item_id]
        self.check_cut(entry.sound if entry.items else None, samples)
        text = self.history.truncate(entry.items[0], samples)
        for part in entry.json["content"]:
            if part["type"] == "output_audio":
                part["transcript"] = text

    def check_cut(self, sound: int | None, samples: int) -> None:
        """Raises ProtocolError where an answer of so many samples, or one without sound, cannot be cut there."""
        rate = self.history.omni.sample_rate
        if sound is None:
            raise ProtocolError("Only spoken answers of the model can be truncated.", "invalid_value", "item_id")
        if samples > sound + rate // 100:
            raise ProtocolError(f"Audio content of {milliseconds(sound, rate)}ms is already shorter than "
                                f"{milliseconds(samples, rate)}ms", "invalid_value", "audio_end_ms")

    # -- making entries -----------------------------------------------------------------------------------------------

    def spoken(self, samples: Tensor, item_id: str | None = None) -> Entry:
        """What a user said, [n] at 16 kHz. Raises AudioError."""
        return self.heard(self.history.speech(samples), item_id)

    def heard(self, item: Item, item_id: str | None = None) -> Entry:
        """A spoken item that the model may already know."""
        return Entry(_message(item_id, "user", [{"type": "input_audio", "transcript": None}]), [item])

    def created(self, value: Any, wire: AudioFormat) -> Entry:
        """From a client's JSON. Raises ProtocolError, AudioError."""
        if not isinstance(value, dict):
            raise ProtocolError(f"Invalid 'item': found {type(value).__name__}; expected an object.", "invalid_value",
                                "item")
        if value.get("type") != "message":
            raise ProtocolError(f"Invalid value for 'item.type': found {value.get('type')!r}; expected 'message': this "
                                "model calls no tools.", "invalid_value", "item.type")
        role, content, item_id = value.get("role"), value.get("content"), value.get("id")
        if not isinstance(role, str) or role not in _CONTENT:
            raise ProtocolError(f"Invalid value for 'item.role': found {role!r}; expected user, system or assistant.",
                                "invalid_value", "item.role")
        if item_id is not None and (not isinstance(item_id, str) or not 0 < len(item_id) <= 128):
            raise ProtocolError("Invalid value for 'item.id': expected a string of 1 to 128 characters.",
                                "invalid_value", "item.id")
        if not isinstance(content, list) or not content:
            raise ProtocolError("Invalid value for 'item.content': expected a list with one part or more.",
                                "invalid_value", "item.content")
        self.check_length("item.content", letters(value))
        shown, items = [], []
        for i, part in enumerate(content):
            json, item = self._part(part, role, wire, f"item.content[{i}]")
            shown.append(json)
            items += [item] if item is not None else []
        return Entry(_message(item_id, role, shown), items)

    def _part(self, part: Any, role: str, wire: AudioFormat, param: str) -> tuple[Json, Item | None]:
        kind = part.get("type") if isinstance(part, dict) else None
        if kind not in _CONTENT[role]:
            raise ProtocolError(f"Invalid value for '{param}.type': found {kind!r}; expected one of "
                                f"{', '.join(_CONTENT[role])} for a message of role {role}.", "invalid_value",
                                f"{param}.type")
        if kind == "input_audio":
            decoder = WireDecoder(wire)
            data = decode_base64(part.get("audio"), f"{param}.audio")
            longest = self.history.omni.model.max_samples / SAMPLE_RATE
            if (seconds := wire.seconds(len(data))) > longest:  # not even to be converted
                raise ProtocolError(f"Invalid value for '{param}.audio': lasts {seconds:.1f} s; this model hears at "
                                    f"most {longest:.1f} s.", "invalid_value", f"{param}.audio")
            samples = torch.cat([torch.from_numpy(decoder.push(data)), torch.from_numpy(decoder.flush())])
            transcript = part.get("transcript")
            return ({"type": kind, "transcript": transcript if isinstance(transcript, str) else None},
                    self.history.speech(samples))
        text = part.get("text")
        if not isinstance(text, str) or not text.strip() or not is_whole(text):
            raise ProtocolError(f"Invalid value for '{param}.text': found {ascii(text)[:80]}; expected some words.",
                                "invalid_value", f"{param}.text")
        shown = {"type": "output_text" if role == "assistant" else kind, "text": text}
        return shown, None if role == "system" else self._words("user" if role == "user" else "assistant", text, param)

    def check_length(self, param: str, found: int) -> None:
        """Raises ProtocolError where so many characters cannot fit the context."""
        if found > (most := LETTERS * self.history.context):
            raise too_long(param, found, most)

    def _words(self, role: Literal["user", "assistant"], text: str, param: str) -> Item:
        try:
            return self.history.text(role, text)
        except OmnivoxError as error:
            raise ProtocolError(str(error), "invalid_value", f"{param}.text") from error

    def answered(self, json: Json, reply: Reply) -> Entry:
        """What the model said, shown as `json`."""
        return Entry(json, [self.history.answer(reply)] if reply.token_ids else [])


def letters(item: Any) -> int:
    """How many characters an item of a client holds."""
    content = item.get("content") if isinstance(item, dict) else None
    parts = [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    texts = [part.get(name) for part in parts for name in ("text", "transcript")]
    return sum(len(text) for text in texts if isinstance(text, str))


def _message(item_id: str | None, role: str, content: list[Json], status: str = "completed") -> Json:
    return {"id": item_id or new_id("item"), "object": "realtime.item", "type": "message", "status": status,
            "role": role, "content": content}


def answer_json(item_id: str, status: str, content: list[Json]) -> Json:
    """An item that the model says."""
    return _message(item_id, "assistant", content, status)


def decode_base64(value: Any, param: str) -> bytes:
    """Raises ProtocolError where it is no base64."""
    if not isinstance(value, str):
        raise ProtocolError(f"Invalid value for '{param}': found {type(value).__name__}; expected sound in base64.",
                            "invalid_value", param)
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(f"Invalid value for '{param}': not base64 ({error}).", "invalid_value", param) from error
