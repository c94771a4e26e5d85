"""The signature of the project: what every streaming module promises, whatever it computes.

any chunking ≡ offline; in a batch ≡ alone; an idle row ≡ nothing happened; reset ≡ fresh; forked ≡ the original;
saved and loaded ≡ continued; storage never rebound; graph ≡ eager (where there is a GPU).
The vocoders are held to the same laws in `test_vocoder_laws.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

from omnivox.model.config import SpeechDecoderConfig
from omnivox.model.ctc import CTCCollapse, collapse
from omnivox.model.llm import StreamingLLM
from omnivox.model.resample import Resampler
from omnivox.model.speech_decoder import SpeechDecoder
from omnivox.runtime.sampling import Sampler, SamplerState, SamplingSettings, choose, uniform
from tests import laws
from tests.laws import Subject

WIDTH, BLANK, VOCABULARY = 16, 5, 11
SAMPLING = SamplingSettings(temperature=0.8, top_p=0.9, top_k=7, seed=3)


def floats(*shape: int, scale: float = 1.0) -> Callable[[int, torch.Generator], Tensor]:
    return lambda n, generator: scale * torch.randn(n, *shape, generator=generator)


def llm() -> Subject:
    model = LlamaForCausalLM(LlamaConfig(hidden_size=WIDTH, intermediate_size=24, num_hidden_layers=2,
                                         num_attention_heads=4, num_key_value_heads=2, vocab_size=VOCABULARY)).eval()
    return Subject("StreamingLLM", StreamingLLM(model, capacity=24), floats(WIDTH),
                   lambda row: model.base_model(inputs_embeds=row[None]).last_hidden_state[0],
                   bins={"keys": (2, -1), "values": (2, -1)})


def speech_decoder(**changes: bool) -> Subject:
    module = SpeechDecoder(SpeechDecoderConfig(llm_width=WIDTH, width=24, layers=2, heads=2, ffn=32, upsample=3,
                                               units=BLANK, **changes)).eval()
    return Subject("SpeechDecoder", module, floats(WIDTH), lambda row: module(row[None])[0],
                   state=lambda batch: module.initial_state(batch, capacity=24),
                   bins={"keys": (2, -1), "values": (2, -1)})


def ctc_collapse() -> Subject:
    return Subject("CTCCollapse", CTCCollapse(BLANK),
                   lambda n, generator: torch.randint(0, BLANK + 1, (n,), generator=generator),
                   lambda row: collapse(row, BLANK))


def resampler(source: int, target: int) -> Subject:
    module = Resampler(source, target)
    return Subject("Resampler", module, floats(scale=0.1), lambda row: direct_interpolation(module, row),
                   longest=700, piece=200)


def direct_interpolation(module: Resampler, row: Tensor) -> Tensor:
    """The definition: output k is the inner product of a filter with the samples around input time k·M/L."""
    padded = torch.nn.functional.pad(row.double(), (module.reach, module.reach + module.down))
    count = -(-len(row) * module.up // module.down)
    out = [module.phases[k * module.down % module.up].double()
           @ padded[k * module.down // module.up + 1 :][: 2 * module.reach] for k in range(count)]
    return torch.stack(out).float()


def sampler() -> Subject:
    module = Sampler()

    def offline(row: Tensor) -> Tensor:
        state: SamplerState = module.initial_state(1, SAMPLING)
        return choose(row[None], uniform(state.seed, torch.arange(len(row)))[None], state)[0]

    return Subject("Sampler", module, floats(VOCABULARY), offline,
                   state=lambda batch: module.initial_state(batch, SAMPLING))


SUBJECTS: dict[str, Callable[[], Subject]] = {
    "llm": llm,
    "speech decoder": speech_decoder,
    "speech decoder, ours": lambda: speech_decoder(position_embedding=True, final_norm=True),
    "ctc collapse": ctc_collapse,
    "resampler 48 to 16 kHz": lambda: resampler(48000, 16000),
    "resampler 16 to 22.05 kHz": lambda: resampler(16000, 22050),
    "sampler": sampler,
}


@functools.cache
def build(name: str) -> Subject:
    torch.manual_seed(0)
    return SUBJECTS[name]()


@pytest.fixture(params=SUBJECTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    return build(request.param)


@pytest.fixture(autouse=True)
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
seeds = st.integers(0, 2**16)


@few
@given(data=st.data(), seed=seeds, rows=st.integers(1, 4))
def test_any_chunking_is_offline(subject: Subject, data: st.DataObject, seed: int, rows: int) -> None:
    laws.any_chunking_is_offline(subject, data.draw(laws.schedules(rows, subject.longest, subject.piece)), seed)


@few
@given(data=st.data(), seed=seeds, rows=st.integers(2, 4))
def test_in_a_batch_is_alone(subject: Subject, data: st.DataObject, seed: int, rows: int) -> None:
    laws.in_a_batch_is_alone(subject, data.draw(laws.schedules(rows, subject.longest, subject.piece)), seed)


def test_idle_is_nothing(subject: Subject) -> None:
    laws.idle_is_nothing(subject, seed=1)


def test_reset_is_fresh(subject: Subject) -> None:
    laws.reset_is_fresh(subject, seed=2)


def test_fork_is_both(subject: Subject) -> None:
    laws.fork_is_both(subject, seed=3)


def test_saved_and_loaded_is_continued(subject: Subject) -> None:
    laws.saved_and_loaded_is_continued(subject, seed=4)


def test_storage_is_never_rebound(subject: Subject) -> None:
    laws.storage_is_never_rebound(subject, seed=5)


def to_gpu(subject: Subject) -> Subject:
    """The same subject on the GPU (its module is moved, so it must be built anew for whoever comes next)."""
    module = subject.module
    if isinstance(module, StreamingLLM):
        module.llm.cuda()
    elif isinstance(module, torch.nn.Module):
        module.cuda()
    elif isinstance(module, CTCCollapse):
        return replace(subject, state=lambda batch: module.initial_state(batch, "cuda"))
    elif isinstance(module, Sampler):
        return replace(subject, state=lambda batch: module.initial_state(batch, SAMPLING, "cuda"))
    return subject


@pytest.mark.parametrize("name", SUBJECTS)
def test_graph_is_eager(name: str) -> None:
    laws.graph_is_eager(build.__wrapped__(name), seed=6, to_gpu=to_gpu)
