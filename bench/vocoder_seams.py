"""How near is a streamed waveform to the offline one, and how near are chunks synthesised alone?

For the published unit HiFi-GAN (full size, random weights) and the bundled model's vocoder: the signal-to-noise ratio
in dB for each lookahead (frames) and each chunk size Ω (units), beside the published demo's way, every chunk on its
own. There the offline durations are given, so that the samples line up; its own that differ are counted.

    python bench/vocoder_seams.py [--quick]

Ends in one JSON line. Waveforms that are equal to the last bit count as 200 dB.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import omnivox
from omnivox.checkpoint.load import load_checkpoint
from omnivox.model.config import HifiganConfig
from omnivox.model.hifigan import Hifigan
from omnivox.model.units import merge_repeats
from omnivox.model.vocoder import Vocoder
from omnivox.model.windowed import StreamingVocoder, VocoderState
from omnivox.streaming import Chunk

sys.path.insert(0, str(Path(__file__).resolve().parent))
from hardware import hardware

OMEGAS = (5, 10, 20, 40, 100)  # units a chunk
LOOKAHEADS = (0, 4, 8, 12, 16)  # frames
EXACT_DB = 200.0
NANO = Path(omnivox.__file__).parent / "nano" / "weights"


class Observed(StreamingVocoder):
    """A streaming vocoder that remembers every frame it settled, so that durations can be read off."""

    frames: list[Tensor]

    def _settle(self, units: Tensor, length: Tensor, state: VocoderState, ending: Tensor) -> tuple[Tensor, Tensor]:
        frames, count = super()._settle(units, length, state, ending)
        self.frames.append(frames[0, : int(count[0])])
        return frames, count


def random_hifigan(config: HifiganConfig, units: Tensor) -> Hifigan:
    """Random weights whose main path (embedding, upsampling, output) keeps its loudness; units of about 3 frames."""
    torch.manual_seed(0)
    vocoder = Hifigan(config).eval().requires_grad_(False)

    def normalise(layer: nn.Conv1d, _: tuple[Tensor, ...], output: Tensor) -> Tensor:
        layer.weight.mul_(1 / output.std())
        layer.bias.zero_()
        return output / output.std()

    hooks = [layer.register_forward_hook(normalise)  # type: ignore[arg-type]
             for layer in (vocoder.conv_pre, *vocoder.ups, vocoder.conv_post)]
    vocoder(units[None, :40], torch.tensor([40]), predict_durations=False)
    for hook in hooks:
        hook.remove()
    vocoder.conv_post.weight.mul_(0.2)
    vocoder.duration.proj.weight.mul_(2)
    vocoder.duration.proj.bias.fill_(0.8)
    return vocoder


def random_units(k: int, count: int) -> Tensor:
    """Units without equal neighbours."""
    steps = torch.randint(1, k, (count,), generator=torch.Generator().manual_seed(1))
    return steps.cumsum(0) % k


def snr_db(found: Tensor, expected: Tensor) -> float:
    noise = float((found.double() - expected.double()).square().sum())
    signal = float(expected.double().square().sum())
    return round(min(EXACT_DB, float(10 * torch.log10(torch.tensor(signal / max(noise, 1e-300))))), 1)


def streamed(vocoder: Vocoder, units: Tensor, omega: int, lookahead: int) -> tuple[Tensor, Tensor]:
    """Samples, and the duration of each unit."""
    streaming = Observed(vocoder, lookahead)
    streaming.frames = []
    state = streaming.initial_state(1)
    parts = [streaming.step(Chunk.full(piece[None]), state)[0].row(0) for piece in units.split(omega)]
    parts.append(streaming.flush(state)[0].row(0))
    return torch.cat(parts), merge_repeats(torch.cat(streaming.frames))[1]


def alone(vocoder: Vocoder, units: Tensor, omega: int, durations: Tensor) -> tuple[Tensor, int]:
    """Samples of every chunk on its own at the whole's durations, and how many of its own durations differ."""
    parts, changed = [], 0
    for piece, wanted in zip(units.split(omega), durations.split(omega), strict=True):
        length = torch.tensor([len(piece)])
        changed += int((vocoder.durations(piece[None], length)[0] != wanted).sum())
        parts.append(vocoder(piece[None], length, durations=wanted[None]).row(0))
    return torch.cat(parts), changed


def compare(name: str, vocoder: Vocoder, units: Tensor) -> dict[str, object]:
    """The table of one vocoder."""
    length = torch.tensor([len(units)])
    durations = vocoder.durations(units[None], length)[0]
    whole = vocoder(units[None], length).row(0)
    seconds = len(whole) / vocoder.sample_rate
    print(f"\n{name}: {len(units)} units, {seconds:.1f} s, rms {float(whole.square().mean().sqrt()):.3f}, "
          f"context {vocoder.context[0]} + {vocoder.context[1]} frames")
    print("SNR, dB       " + "".join(f"Ω={omega:<8}" for omega in OMEGAS))
    table: dict[str, dict[str, float]] = {}
    changed_at_16 = 0
    for lookahead in LOOKAHEADS:
        row = {}
        for omega in OMEGAS:
            found, found_durations = streamed(vocoder, units, omega, lookahead)
            row[str(omega)] = snr_db(found, whole)
            if lookahead == max(LOOKAHEADS):
                changed_at_16 += int((found_durations != durations).sum())
        table[str(lookahead)] = row
        print(f"lookahead {lookahead:<3} " + "".join(f"{value:<10}" for value in row.values()), flush=True)
    row, shares = {}, {}
    for omega in OMEGAS:
        found, changed = alone(vocoder, units, omega, durations)
        row[str(omega)], shares[str(omega)] = snr_db(found, whole), round(changed / len(units), 4)
    table["alone"] = row
    print("alone         " + "".join(f"{value:<10}" for value in row.values()))
    print("its durations " + "".join(f"{f'{share:.1%} off':<10}" for share in shares.values()))
    return {"snr_db": table, "min_snr_db_at_16": min(table["16"].values()), "durations_changed_at_16": changed_at_16,
            "durations_changed_alone": shares, "units": len(units), "seconds": round(seconds, 1)}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a short utterance and a narrow HiFi-GAN")
    quick = parser.parse_args().quick
    about = hardware()
    print(json.dumps(about))
    count = 110 if quick else 130
    config = HifiganConfig(initial_channels=64) if quick else HifiganConfig()
    units = random_units(config.units, count)
    results = {"hifigan": compare("unit HiFi-GAN, random weights", random_hifigan(config, units), units)}
    if (NANO / "config.json").exists():
        nano = load_checkpoint(NANO).vocoder
        assert nano is not None
        results["nano"] = compare("nano", nano, random_units(nano.units, count))
    else:
        print("\nnano: no weights in this checkout")
    summary = {
        "bench": "vocoder_seams", "quick": quick,
        "snr_db": results["hifigan"]["snr_db"],
        "min_snr_db_at_16": min(float(str(result["min_snr_db_at_16"])) for result in results.values()),
        "durations_changed_at_16": sum(int(str(result["durations_changed_at_16"])) for result in results.values()),
        "by_vocoder": results, "hardware": about,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
