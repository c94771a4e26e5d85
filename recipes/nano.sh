#!/usr/bin/env bash
# The bundled model from nothing: speech, LLM, encoder, units, vocoder, stage 1, stage 2, scores.
# About three hours of two CPU cores that multiply in bfloat16, twice as long without (`omnivox train nano --plan`
# reckons it by the processor time of its steps). Kill it and run it again: what is done is kept. SCALE=0.02 tries it.
set -euo pipefail
WORK=${WORK:-build/nano}
SCALE=${SCALE:-1}
OMNIVOX=${OMNIVOX:-.venv/bin/omnivox}
step() { "$OMNIVOX" train nano "$1" --work "$WORK" --scale "$SCALE"; }

mkdir -p "$WORK"
# Two jobs of one thread each finish sooner than one job of two.
step language &
language=$!
step sentences
step words
step questions
step strange
step exams
step answers
step repeats
step encoder &
encoder=$!
step units
wait "$language"
step vocoder
wait "$encoder"
step hear
step stage1
step stage2
step assemble
"$OMNIVOX" evaluate "$WORK/assembled"
