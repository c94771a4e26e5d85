"""What the language model is asked: to say an instruction aloud, and to answer aloud."""

from __future__ import annotations

from collections.abc import Sequence

from omnivox.data.llm import schema

REWRITE_SCHEMA = schema(sayable="boolean", question="string")
ANSWER_SCHEMA = schema(answer="string")

_SAID = """\
- Every word must be one that can be read aloud. Write numbers, dates, times, money, units, symbols and abbreviations
  out as {language} words. No digits, lists, headings, tables, formulas, code, links, emoji or markup."""

_REWRITE = """\
Below is a written instruction. Say it as a person would say it to a voice assistant, in {language}.

- Ask for the same thing. Keep each fact that is needed to fulfil it, and add none.
- Sound like speech, not like writing: contractions, plain words, now and then a hesitation or a filler such as "um",
  "so", "hey" or "you know". Most questions need none, few need two.
{said}
- Be brief: one sentence, two at most, no more than {words} words.
- Do not fulfil the instruction.
- Some instructions cannot be spoken: they rest on code, a table, a picture, a long text, or on how something is
  written. For those say "sayable": false and leave the question empty.

Reply with this JSON object and nothing else: {{"sayable": true, "question": "..."}}

Instruction:
{instruction}
"""

_ANSWER = """\
You are a voice assistant, and somebody has just said something to you. Answer in {language}, as you would aloud.

- The answer is heard once and cannot be read again. Say what was asked for first, then stop.
- Be concise: two or three short sentences, no more than {words} words. Where there is much to tell, tell what matters
  most.
- Talk as people do: no introduction, no summary, no offer of further help, no remark about being a model.
{said}

Reply with this JSON object and nothing else: {{"answer": "..."}}
{past}
They say: {question}
"""


def rewrite(instruction: str, language: str, words: int) -> str:
    """Asks for an instruction as speech."""
    said = _SAID.format(language=language)
    return _REWRITE.format(instruction=instruction.strip(), language=language, words=words, said=said)


def answer(question: str, past: Sequence[tuple[str, str]], language: str, words: int) -> str:
    """Asks for an answer to a spoken question, after the questions and answers of `past`."""
    lines = [line for asked, answered in past for line in (f"They said: {asked}", f"You said: {answered}")]
    told = "\nThe conversation so far:\n" + "\n".join(lines) + "\n" if lines else ""
    said = _SAID.format(language=language)
    return _ANSWER.format(question=question, language=language, words=words, said=said, past=told)
