"""The bundled model from nothing, step by step. Each step can be killed and run again; what is done is kept.

    sentences, words, questions, strange, exams    many voices: for the encoder, stages 1 and 2, and to watch progress
    answers, repeats                               the answer voice
    language, encoder → hear, units → vocoder, stage1 → stage2 → assemble
    begin, …, assemble → blend                     from a finished model's weights to the mean of both
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from omnivox.checkpoint import Loaded, save_pretrained
from omnivox.checkpoint.prompt import Prompt
from omnivox.errors import DataError
from omnivox.model.adaptor import Adaptor
from omnivox.model.config import MelConfig, OmniConfig
from omnivox.model.encoder import Encoder
from omnivox.model.omni import SpokenLM
from omnivox.model.speech_decoder import SpeechDecoder
from omnivox.model.units import merge_repeats
from omnivox.nano import dialogues, voices
from omnivox.nano.sounds import sound_table
from omnivox.nano.speak import Corpus, speak_answers, speak_questions
from omnivox.nano.topics import decline
from omnivox.nano.words import ANSWER, BLANK, BOS, EOS, TRANSCRIBE, build_tokenizer
from omnivox.train.begin import UNITS, begin, begun_with, copy_units
from omnivox.train.blend import blend
from omnivox.train.features import Features
from omnivox.train.hear import train_hearing
from omnivox.train.language import build_llm, train_language
from omnivox.train.recipes import NanoRecipe
from omnivox.train.recognise import MelBatches, Recogniser, train_recogniser
from omnivox.train.stage1 import SpokenPrompts, train_stage1
from omnivox.train.stage2 import States, train_stage2
from omnivox.train.units import load_units, train_units, waveform
from omnivox.train.vocoder import load_vocoder, train_vocoder
from omnivox.writing import atomic

log = logging.getLogger(__name__)
EXAMS = {"seen_voice": voices.TRAIN_VOICES, "new_voice": voices.HELD_VOICES, "new_engine": voices.HELD_ENGINE_VOICES}
SECONDS_PER_QUESTION = 2.6  # about, to size an exam
WITHHELD = 60  # answers (a tenth at most) that stage 2 never sees, for its unit error rate


class NanoTraining:
    """The steps of one recipe in one work folder.

    model: what `begin` takes its weights from, the bundled one if None.
    """

    def __init__(self, work: Path, recipe: NanoRecipe, workers: int = 2, model: str | Path | None = None) -> None:
        self.work, self.recipe, self.workers, self.model = work, recipe, workers, model

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerFast:
        """Words of the whole domain."""
        return build_tokenizer(dialogues.vocabulary())

    @cached_property
    def sounds(self) -> Tensor:
        """What the LLM reads for each word: its sound."""
        words = sorted(self.tokenizer.get_vocab().items(), key=lambda item: item[1])
        return self._sounds("sounds", [word for word, _ in words])

    @cached_property
    def strange_sounds(self) -> Tensor:
        """The same for words that are none, and which it is to know for such."""
        return self._sounds("strange_sounds", dialogues.strange_words())

    def _sounds(self, name: str, words: Sequence[str]) -> Tensor:
        """Made once."""
        path = self.work / f"{name}.safetensors"
        if not path.exists():
            with atomic(path) as temporary:
                save_file({"table": sound_table(words, self.recipe.language.width)}, temporary)
        table = load_file(path)["table"]
        if len(table) != len(words):
            raise DataError(f"{path}: sounds of {len(table)} words, there are {len(words)} now; expected a work folder "
                            "of the same domain; remove the file to make them again")
        return table

    # -- speech -------------------------------------------------------------------------------------------------------

    def sentences(self) -> None:
        """Speak sentences about nothing, in all training voices."""
        speak_questions(self.work / "sentences", self.recipe.sentence_hours, "train", voices.TRAIN_VOICES,
                        seed=self.recipe.seed, workers=self.workers, phonetic=1.0)

    def questions(self) -> None:
        """Speak the domain's questions, most of them in loosened phrasings, in all training voices."""
        speak_questions(self.work / "questions", self.recipe.question_hours, "train", voices.TRAIN_VOICES,
                        seed=self.recipe.seed, workers=self.workers, phonetic=0.0, source=dialogues.sample_loosely)

    def words(self) -> None:
        """Speak the domain's words in no order, in all training voices."""
        speak_questions(self.work / "words", self.recipe.word_hours, "train", voices.TRAIN_VOICES,
                        seed=self.recipe.seed, workers=self.workers, phonetic=0.0, source=dialogues.word_salad)

    def strange(self) -> None:
        """Speak questions of the domain about what it knows nothing of, in all training voices."""
        speak_questions(self.work / "strange", self.recipe.strange_hours, "train", voices.TRAIN_VOICES,
                        seed=self.recipe.seed, workers=self.workers, phonetic=0.0, source=dialogues.sample_strange)

    def exams(self) -> None:
        """Speak small sets of held phrasings, to watch progress; the published figures come from other recordings."""
        hours = self.recipe.exam_size * SECONDS_PER_QUESTION / 3600
        for name, speakers in EXAMS.items():
            speak_questions(self.work / "exams" / name, hours, "held", speakers, seed=self.recipe.seed + 1000,
                            workers=self.workers, shard_seconds=hours * 3600)

    def answers(self) -> None:
        """Speak the domain's answers in the answer voice."""
        speak_answers(self.work / "answers", dialogues.answers()[: self.recipe.answer_count], workers=self.workers)

    def repeats(self) -> None:
        """Speak some of the questions and of the words in no order in the answer voice: words that no answer joins."""
        texts = [dict.fromkeys(row["text"] for row in Corpus(self.work / name).rows) for name in ("words", "questions")]
        each = self.recipe.repeat_count // len(texts)
        chosen = dict.fromkeys(text for found in texts for text in list(found)[:each])
        speak_answers(self.work / "repeats", list(chosen), topic="repeat", workers=self.workers)

    # -- training -----------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Take all weights from a finished model, to go on from."""
        begin(self.work, self.recipe, self.tokenizer.get_vocab(), self.sounds, self.model or "nano")

    def encoder(self) -> None:
        """Train the speech encoder, and the adaptor behind it, on all that is spoken in many voices."""
        corpus = Corpus(*(self.work / name for name in ("sentences", "words", "questions", "strange")))
        lengths = [row["samples"] for row in corpus.rows]
        held = {name: Corpus(self.work / "exams" / name)[:60] for name in EXAMS}
        train_recogniser(corpus, lengths, self.work / "encoder", self.recipe.encoder, self.recipe.adaptor,
                         self.sounds, self.tokenizer.get_vocab(), held)

    def hear(self) -> None:
        """Train encoder, adaptor and LLM on together."""
        corpus = self._heard()
        held = {name: Corpus(self.work / "exams" / name) for name in EXAMS}
        train_hearing(self._recogniser("encoder"), self.written_llm(), self.tokenizer, corpus, self.work / "hear",
                      self.recipe.encoder, self.recipe.hear, dialogues.sample, held, self.strange_sounds)

    def units(self) -> None:
        """Fit the units to the answer voice, and write down in them all that it said."""
        spoken = self._answer_voice()
        quantiser = train_units(spoken, self.work / UNITS, self.recipe.units)
        rows = [merge_repeats(quantiser.encode(waveform(utterance)))[0] for utterance in spoken]
        with atomic(self.work / "answer_units.safetensors") as path:
            save_file({"units": torch.cat(rows), "lengths": torch.tensor([len(row) for row in rows])}, path)

    def vocoder(self) -> None:
        """Train the vocoder on the answer voice."""
        torch.set_num_threads(1)
        quantiser, spoken = load_units(self._made(UNITS, "units"), self.recipe.units), self._answer_voice()
        often = [i for i, row in enumerate(spoken.rows) if row["text"] == decline.ANSWER]
        train_vocoder(spoken, quantiser, self.work / "vocoder", self.recipe.vocoder, self.recipe.vocoder_training,
                      often=often)

    def language(self) -> None:
        """Train the LLM on written dialogues."""
        train_language(self.tokenizer, dialogues.sample_evenly, self.work / "language", self.recipe.language,
                       self.sounds, self.strange_sounds)

    def stage1(self) -> None:
        """Train adaptor and LLM on spoken questions."""
        corpus = Corpus(self.work / "questions", self.work / "strange")
        recogniser, llm = self.trained_recogniser(), self._llm("hear")
        encoder, adaptor = recogniser.encoder.eval().requires_grad_(False), recogniser.adaptor
        held = {}
        for name in EXAMS:
            exam = Corpus(self.work / "exams" / name)
            answers = [row["answer"] for row in exam.rows[: self.recipe.exam_size]]
            held[name] = (self._features(exam, encoder, 1), answers)
        train_stage1(corpus, self._features(corpus, encoder, self.recipe.stage1.copies), adaptor, llm, self.tokenizer,
                     dialogues.sample, self.work / "stage1", self.recipe.stage1, held, self.strange_sounds)

    def stage2(self) -> None:
        """Train the speech decoder on the states of spoken questions."""
        corpus = self._heard()
        adaptor, llm = self.trained_adaptor_and_llm()
        features = self._features(corpus, self.trained_encoder(), self.recipe.stage2.copies)
        states = States(corpus, features, SpokenPrompts(adaptor, llm, self.tokenizer), self.recipe.stage2.states_fed)
        units_of = self.units_of_answers()
        asked = sorted({row["answer"] for row in corpus.rows} & set(units_of) - {decline.ANSWER})  # said most often
        withheld = asked[:: max(10, len(asked) // WITHHELD)]
        train_stage2(states, units_of, SpeechDecoder(self.recipe.speech_decoder), self.work / "stage2",
                     self.recipe.stage2, withheld)

    def assemble(self) -> None:
        """Put the parts together in our layout, int8 on disk, in the folder `assembled`."""
        recipe = self.recipe
        adaptor, llm = self.trained_adaptor_and_llm()
        config = OmniConfig(MelConfig(recipe.encoder.encoder.n_mels, pad_to_chunk=False), recipe.encoder.encoder,
                            recipe.adaptor, recipe.speech_decoder, recipe.stage2.states_fed)
        model = SpokenLM(config, llm)
        model.encoder, model.adaptor = self.trained_encoder(), adaptor
        model.speech_decoder = self.trained_speech_decoder()
        bos, answer, transcribe, eos = (self.tokenizer.vocab[token] for token in (BOS, ANSWER, TRANSCRIBE, EOS))
        prompt = Prompt(before=(bos,), after=(answer,), end_ids=(eos,), transcribe=(transcribe,), spoken=True)
        vocoder = load_vocoder(self._made("vocoder/vocoder.safetensors", "vocoder").parent)
        loaded = Loaded(model.eval(), self.tokenizer, vocoder, prompt)
        save_pretrained(loaded, self.work / "assembled", stored=torch.int8)
        copy_units(self._made(UNITS, "units").parent, self.work / "assembled")  # not to answer, but to train on

    def blend(self) -> None:
        """The mean of `assembled` and of the model that `begin` began with, in the folder `blended`."""
        blend(begun_with(self.work, self.model), self.work / "assembled", self.work / "blended")

    def _heard(self) -> Corpus:
        return Corpus(*(self.work / name for name in ("questions", "strange", "words")))

    # -- results of steps ---------------------------------------------------------------------------------------------

    def written_llm(self) -> LlamaForCausalLM:
        """The LLM that learned in writing."""
        return self._llm("language")

    def _llm(self, step: str) -> LlamaForCausalLM:
        llm = build_llm(self.recipe.language, self.tokenizer)
        llm.load_state_dict(self._trained(step, "llm"))
        return llm

    def trained_recogniser(self) -> Recogniser:
        """The encoder, and the adaptor as it learned with it."""
        return self._recogniser("hear")

    def _recogniser(self, step: str) -> Recogniser:
        recogniser = Recogniser(self.recipe.encoder, self.recipe.adaptor, self.sounds, self.tokenizer.vocab[BLANK])
        recogniser.load_state_dict(self._trained(step, "recogniser"))
        return recogniser

    def trained_encoder(self) -> Encoder:
        """The encoder, frozen."""
        return self.trained_recogniser().encoder.eval().requires_grad_(False)

    def trained_adaptor_and_llm(self) -> tuple[Adaptor, LlamaForCausalLM]:
        """What stage 1 made, frozen."""
        adaptor, llm = Adaptor(self.recipe.adaptor), self._llm("stage1")
        adaptor.load_state_dict(self._trained("stage1", "adaptor"))
        return adaptor.eval().requires_grad_(False), llm.eval().requires_grad_(False)

    def trained_speech_decoder(self) -> SpeechDecoder:
        """What stage 2 made."""
        decoder = SpeechDecoder(self.recipe.speech_decoder)
        decoder.load_state_dict(self._trained("stage2", "speech_decoder"))
        return decoder.eval()

    def units_of_answers(self) -> dict[str, Tensor]:
        """Merged units of each text that the answer voice said."""
        spoken, saved = self._answer_voice(), load_file(self._made("answer_units.safetensors", "units"))
        rows = saved["units"].split(saved["lengths"].tolist())
        return {row["text"]: units for row, units in zip(spoken.rows, rows, strict=True)}

    def _answer_voice(self) -> Corpus:
        return Corpus(self.work / "answers", self.work / "repeats")

    def _features(self, corpus: Corpus, encoder: Encoder, copies: int) -> Features:
        settings = self.recipe.encoder
        mels = MelBatches(settings.encoder.n_mels, settings.warps, settings.warp)
        return Features(corpus, encoder, mels, copies, self.recipe.seed)

    def _trained(self, step: str, module: str) -> dict[str, Tensor]:
        saved = torch.load(self._made(f"{step}/checkpoint.pt", step), weights_only=True)
        return saved["modules"][module]  # type: ignore[no-any-return]

    def _made(self, name: str, step: str) -> Path:
        if not (path := self.work / name).exists():
            raise DataError(f"{path}: missing; run the step {step!r} first")
        return path


STEPS = ("begin", "sentences", "words", "questions", "strange", "exams", "answers", "repeats", "language", "encoder",
         "hear", "units", "vocoder", "stage1", "stage2", "assemble", "blend")


def run_step(training: NanoTraining, step: str) -> None:
    """Run one step by its name."""
    if step not in STEPS:
        raise DataError(f"step: found {step!r}; expected one of {', '.join(STEPS)}")
    action: Callable[[], None] = getattr(training, step)
    log.info("nano: %s", step)
    action()
