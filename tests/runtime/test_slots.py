"""One tick for all rows: what a CUDA graph needs of it, shown without a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from omnivox.runtime.respond import Omni
from omnivox.runtime.slots import Slots
from omnivox.streaming import leaves
from tests import tiny

GREEDY = [True, False]


def on_meta(**changes: object) -> Omni:
    """A model without numbers: whoever asks one of its tensors for a value gets an error."""
    omni = tiny.omni(**changes)  # type: ignore[arg-type]
    omni.model.to("meta")
    return Omni(omni.model, None, omni.tokenizer, omni.prompt)


@pytest.mark.parametrize("states_fed", ["predicting", "consumed"])
@pytest.mark.parametrize("greedy", GREEDY)
def test_a_tick_asks_the_device_nothing(states_fed: str, greedy: bool) -> None:
    slots = Slots(on_meta(states_fed=states_fed), rows=4, context=64, tokens=8)
    with torch.inference_mode():
        ids, chances, units, count = slots._tick(4, greedy)
    assert [tuple(x.shape) for x in (ids, chances, units, count)] == [(4, 1), (4,), (4, 5), (4,)]


@pytest.mark.parametrize("greedy", GREEDY)
def test_a_tick_never_rebinds_its_storage_and_its_shapes_never_change(greedy: bool) -> None:
    slots = Slots(tiny.omni(), rows=3, context=64, tokens=8)
    before = [(name, leaf.data_ptr()) for name, leaf in leaves(slots.state)]
    shapes = set()
    with torch.inference_mode():
        for live in ([1, 1, 1], [0, 1, 0], [0, 0, 0]):
            slots.state.live.copy_(torch.tensor(live))
            shapes.add(tuple(tuple(x.shape) for x in slots._tick(3, greedy)))
    assert [(name, leaf.data_ptr()) for name, leaf in leaves(slots.state)] == before
    assert len(shapes) == 1


def test_a_row_that_is_not_live_stands_still() -> None:
    omni = tiny.omni()
    slots = Slots(omni, rows=2, context=64, tokens=8)
    slots.state.hidden.normal_()
    slots.state.spoken.fill_(1)
    slots.state.live.copy_(torch.tensor([0, 1]))
    before = {name: leaf[0].clone() for name, leaf in leaves(slots.state)}
    slots.tick(2, greedy=True)
    for name, leaf in leaves(slots.state):
        kept, now = before[name], leaf[0]
        if "keys" in name or "values" in name:  # the last place is the bin for what is not to be kept
            kept, now = kept[:, :-1], now[:, :-1]
        assert torch.equal(kept, now), name
    assert slots.state.llm.position.tolist() == [0, 1]


def test_a_reply_goes_on_in_another_row() -> None:
    omni = tiny.omni(end_ids=())
    slots = Slots(omni, rows=3, context=64, tokens=20)
    with torch.inference_mode():
        hidden = torch.randn(3, 1, 1, 16, generator=torch.Generator().manual_seed(0))
        for row in range(3):
            slots.begin(row, hidden[row, 0], tiny.GREEDY, speak=True)
        alone = Slots(omni, rows=1, context=64, tokens=20)
        alone.begin(0, hidden[2, 0], tiny.GREEDY, speak=True)

        def told(slots: Slots, row: int, rows: int, ticks: int) -> list[tuple[int, list[int]]]:
            found = [slots.tick(rows, greedy=True) for _ in range(ticks)]
            return [(tick.tokens[row], tick.units[row]) for tick in found]

        moved = told(slots, 2, 3, 3)
        slots.swap(2, 0)
        moved += told(slots, 0, 1, 3)
        assert moved == told(alone, 0, 1, 6)


def test_only_the_rows_in_use_cost() -> None:
    """The widths that a step runs at are those of its replies."""
    omni = tiny.omni()
    slots = Slots(omni, rows=4, context=64, tokens=8)
    seen: list[int] = []
    forward = omni.model.speech_decoder._upsampled

    def noted(states: Tensor) -> tuple[Tensor, int]:
        seen.append(len(states))
        return forward(states)

    omni.model.speech_decoder._upsampled = noted  # type: ignore[method-assign]
    slots.state.live.fill_(1)
    for rows in (1, 3, 2):
        slots.tick(rows, greedy=True)
    assert seen == [1, 3, 2]
