"""The LLM states that stage 2 learns from: everything before the speech decoder is frozen, so they are computed once.

A folder of them, named after the weights, the prompt and the data that they come from:

    manifest.json                what they are
    shard-00000.safetensors      states [ΣM, D] bfloat16, lengths [A], units [ΣU], units_lengths [A], rows [A]; and, as
                                 metadata, the conversations that could not be used and why

Shapes: A answers, M LLM states of an answer, D LLM width, U units.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from omnivox.checkpoint.load import Loaded
from omnivox.errors import DataError, OmnivoxError
from omnivox.model.omni import SpokenLM
from omnivox.train.examples import Example, Examples, answer_states, collate, splice
from omnivox.train.progress import Bar
from omnivox.train.settings import Stage2Settings
from omnivox.train.symptoms import Alignment, too_long, wrong_units
from omnivox.writing import atomic


@dataclass(frozen=True)
class Spoken:
    """An answer as stage 2 sees it: states [M, D] and units [U]."""

    name: str
    states: Tensor
    units: Tensor


class SpokenStates(Protocol):
    """Answers by number, kept or computed."""

    bad: dict[str, str]

    def __len__(self) -> int: ...

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """States and units of each answer."""

    def rows(self, numbers: Sequence[int]) -> list[Spoken]:
        """Some of them."""


def weights_digest(model: SpokenLM) -> str:
    """Of the frozen weights."""
    digest = hashlib.blake2b(digest_size=16)
    for part in (model.encoder, model.adaptor, model.llm):
        for name, value in part.state_dict().items():
            digest.update(name.encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(weights: str, loaded: Loaded, examples: Examples, settings: Stage2Settings) -> str:
    """Of all that kept states depend on: the weights, the prompt, the data, and which states are taken."""
    sizes = [(size.turns, round(size.question_seconds, 4), size.answer_characters, size.units)
             for size in examples.data.sizes]
    ids = examples.prompt.ids(examples.tokenizer)
    facts = [weights, loaded.prompt.to_dict(), ids, sizes, settings.states_fed, settings.shard_rows,
             examples.max_positions, loaded.model.config.mel.to_dict(), loaded.model.config.speech_decoder.units]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=8).hexdigest()


class KeptStates:
    """States in a folder. Read where they are asked for; it travels to loading processes by pickle."""

    def __init__(self, folder: Path, shards: int) -> None:
        self.folder, self.bad, self._places = folder, dict[str, str](), list[tuple[int, int, int, int, int]]()
        self.names: list[str] = []
        self._files: dict[int, Any] = {}
        for number in range(shards):
            self._index(number)

    def _index(self, number: int) -> None:
        file, start, said = _open(shard_path(self.folder, number)), 0, 0
        self.bad |= json.loads((file.metadata() or {}).get("bad", "{}"))
        both = zip(*(file.get_tensor(name).tolist() for name in ("lengths", "units_lengths", "rows")), strict=True)
        for length, units, row in both:
            self._places.append((number, start, length, said, units))
            self.names.append(str(row))
            start, said = start + length, said + units

    def __len__(self) -> int:
        return len(self._places)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return [(length, units) for _, _, length, _, units in self._places]

    def rows(self, numbers: Sequence[int]) -> list[Spoken]:
        """Raises DataError where a file is damaged."""
        return [self._row(number) for number in numbers]

    def _row(self, number: int) -> Spoken:
        shard, start, length, said, units = self._places[number]
        if shard not in self._files:
            self._files[shard] = _open(shard_path(self.folder, shard))
        file = self._files[shard]
        try:
            return Spoken(self.names[number], file.get_slice("states")[start : start + length].float(),
                          file.get_slice("units")[said : said + units].long())
        except (SafetensorError, OSError) as error:
            raise DataError(f"{shard_path(self.folder, shard)}: cannot be read ({error}); remove it, and it is "
                            "computed again") from error

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_files": {}}


class ComputedStates:
    """The same, computed each time they are asked for: what keeping them saves."""

    def __init__(self, loaded: Loaded, examples: Examples, settings: Stage2Settings) -> None:
        self.loaded, self.examples, self.settings, self.bad = loaded, examples, settings, dict[str, str]()

    def __len__(self) -> int:
        return len(self.examples.data)

    @cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """About."""
        return [(size.answer_characters // 4 + 1, size.units) for size in self.examples.data.sizes]

    def rows(self, numbers: Sequence[int]) -> list[Spoken]:
        """Conversations of one turn."""
        examples = [self.examples.example(number) for number in numbers]
        return [spoken for spoken, _ in _spoken(self.loaded.model, examples, self.settings.states_fed)]


def keep_states(loaded: Loaded, examples: Examples, folder: Path, settings: Stage2Settings, rank: int = 0,
                world: int = 1, weights: str | None = None) -> tuple[Path, int]:
    """Compute what is not there yet, a shard at a time; gives the folder and the number of shards.

    Of several processes each makes its own shards, and who asks must wait for all. weights: their digest, where it is
    known. A shard that is there is never made
    again; a run that is killed leaves none half written. Raises DataError: no answer can be used, states one position
    off, or no room.
    """
    place = folder / fingerprint(weights or weights_digest(loaded.model), loaded, examples, settings)
    shards = -(-len(examples.data) // settings.shard_rows)
    _check_room(folder, examples, loaded.model.config.adaptor.llm_width)
    place.mkdir(parents=True, exist_ok=True)
    with atomic(place / "manifest.json") as path:
        path.write_text(json.dumps({"rows": len(examples.data), "shards": shards, "shard_rows": settings.shard_rows,
                                    "states_fed": settings.states_fed, "width": loaded.model.config.adaptor.llm_width,
                                    "dtype": "bfloat16"}, indent=1) + "\n")
    mine = range(rank, shards, world)
    with Bar("states", len(mine), shown=rank == 0) as bar:
        for done, number in enumerate(mine, 1):
            if not _whole(shard_path(place, number)):
                _make_shard(loaded, examples, shard_path(place, number), number, settings)
            bar.show(done)
    return place, shards


def shard_path(folder: Path, number: int) -> Path:
    """Of a shard."""
    return folder / f"shard-{number:05}.safetensors"


def usable(states: SpokenStates, upsample: int, settings: Stage2Settings) -> list[int]:
    """Answers that can be learnt. Raises DataError where more cannot than `max_bad` allows: how many, and why."""
    bad = dict(states.bad)
    good = []
    for number, (length, said) in enumerate(states.sizes):
        why = too_long(said, length, upsample) if settings.too_long == "skip" else None
        if why is None:
            good.append(number)
        else:
            bad[f"answer {number}"] = why
    if len(bad) > settings.max_bad or not good:
        name, why = next(iter(bad.items()), ("none", "there are no answers"))
        raise DataError(f"{len(bad)} of {len(states) + len(states.bad)} answers cannot be learnt, more than "
                        f"stage2.max_bad allows ({settings.max_bad}); the first, {name}: {why}")
    return good


@torch.no_grad()
def _make_shard(loaded: Loaded, examples: Examples, path: Path, number: int, settings: Stage2Settings) -> None:
    rows = range(number * settings.shard_rows, min((number + 1) * settings.shard_rows, len(examples.data)))
    known, head = loaded.model.config.speech_decoder.units, loaded.model.llm.get_output_embeddings()
    good, bad, found, alignment = list[tuple[int, Example]](), dict[str, str](), list[tuple[int, Spoken]](), Alignment()
    for row in rows:
        try:
            example = examples.example(row)
            for units in example.units:
                if why := wrong_units(units if units is not None else torch.empty(0), known):
                    raise DataError(f"{example.id}: its answer {why}")
            good.append((row, example))
        except OmnivoxError as error:
            bad[str(row)] = str(error)
    for batch in _by_length(good, settings.micro_batch):
        owners = [row for row, example in batch for _ in example.units]
        made = _spoken(loaded.model, [example for _, example in batch], settings.states_fed)
        for row, (spoken, labels) in zip(owners, made, strict=True):
            if head is not None:
                alignment.add(spoken.states, labels, head)
            found.append((row, spoken))
    alignment.check(settings.states_fed)
    found.sort(key=lambda pair: pair[0])
    width = loaded.model.config.adaptor.llm_width
    tensors = {
        "states": torch.cat([spoken.states.bfloat16().cpu() for _, spoken in found] or [torch.empty(0, width)]),
        "lengths": torch.tensor([len(spoken.states) for _, spoken in found], dtype=torch.int64),
        "units": torch.cat([spoken.units.int() for _, spoken in found] or [torch.empty(0, dtype=torch.int32)]),
        "units_lengths": torch.tensor([len(spoken.units) for _, spoken in found], dtype=torch.int64),
        "rows": torch.tensor([row for row, _ in found], dtype=torch.int64)}
    with atomic(path) as temporary:
        save_file(tensors, temporary, {"bad": json.dumps(bad)})


def _by_length(good: list[tuple[int, Example]], size: int) -> Iterator[list[tuple[int, Example]]]:
    order = sorted(good, key=lambda pair: len(pair[1].ids) + sum(len(mel) for mel in pair[1].mels))
    for start in range(0, len(order), size):
        yield order[start : start + size]


@torch.no_grad()
def _spoken(model: SpokenLM, examples: Sequence[Example], fed: str) -> list[tuple[Spoken, Tensor]]:
    """Of each answer of some conversations: what stage 2 sees, and its tokens."""
    batch = collate(examples).to(model.adaptor.linear1.weight.device)
    spliced = splice(model, batch)
    hidden = model.llm.base_model(inputs_embeds=spliced.embeds, attention_mask=spliced.mask,
                                  use_cache=False).last_hidden_state
    names = [example.id for example in examples for _ in example.units]
    labels = [spliced.labels[b][spliced.turns[b] == turn] for b, example in enumerate(examples)
              for turn in range(len(example.units))]
    given = [units if units is not None else torch.empty(0, dtype=torch.long) for units in batch.units]
    states = answer_states(hidden, spliced, fed)
    return [(Spoken(name, states[i], given[i]), labels[i]) for i, name in enumerate(names)]


def _whole(path: Path) -> bool:
    """Whether a shard is there and can be opened."""
    if not path.exists():
        return False
    try:
        _open(path)
    except DataError:
        path.unlink()
        return False
    return True


def _open(path: Path) -> Any:
    try:
        return safe_open(path, "pt")
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: cannot be read ({error}); remove it, and it is computed again") from error


def _check_room(folder: Path, examples: Examples, width: int) -> None:
    tokens = sum(size.answer_characters / 4 + size.turns for size in examples.data.sizes)
    needed = 2 * width * tokens
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(f"{folder}: the states take about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free; name a "
                        "work folder with more room")
