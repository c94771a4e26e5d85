"""Every rate of the published system, each derived from the one above it by exact division."""

SAMPLE_RATE = 16_000  # samples per second, of questions and of answers
N_FFT = 400  # samples, 25 ms
HOP_LENGTH = 160  # samples between mel frames, 10 ms
CHUNK_SECONDS = 30  # seconds that Whisper's encoder was trained to see
CHUNK_SAMPLES = CHUNK_SECONDS * SAMPLE_RATE  # 480,000 samples
CHUNK_FRAMES = CHUNK_SAMPLES // HOP_LENGTH  # 3,000 mel frames


def exact_div(numerator: int, denominator: int) -> int:
    """`numerator / denominator`, which must leave no remainder."""
    quotient, remainder = divmod(numerator, denominator)
    if remainder:
        raise ValueError(f"{numerator} is not a multiple of {denominator}")
    return quotient


MEL_RATE = exact_div(SAMPLE_RATE, HOP_LENGTH)  # 100 mel frames per second
ENCODER_RATE = exact_div(MEL_RATE, 2)  # 50 encoder frames per second, Whisper's
ADAPTOR_RATE = exact_div(ENCODER_RATE, 5)  # 10 LLM positions per second at k = 5
UNIT_SAMPLES = 320  # samples per frame of the published unit vocoder
UNIT_RATE = exact_div(SAMPLE_RATE, UNIT_SAMPLES)  # 50 unit frames per second before repeats are merged
