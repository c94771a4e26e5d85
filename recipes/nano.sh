#!/usr/bin/env bash
# The bundled model from nothing: speech, LLM, encoder, units, vocoder, stage 1, stage 2, scores.
# About three hours of two CPU cores that multiply in bfloat16, twice as long without (`omnivox train nano --plan`
# reckons it by the processor time of its steps). Kill it and run it again: what is done is kept. SCALE=0.02 tries it.
set -euo pipefail
SCALE=${SCALE:-1}
WORK=${WORK:-build/nano$([ "$SCALE" = 1 ] || echo "-$SCALE")}
OMNIVOX=${OMNIVOX:-.venv/bin/omnivox}

set -m  # each job has a process group of its own, which ends with all that it started, however this script ends
trap 'for job in $(jobs -p); do kill -TERM -- "-$job" 2>/dev/null || true; done; wait' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
run() { "$OMNIVOX" train nano "$1" --work "$WORK" --scale "$SCALE"; }
step() { run "$1" & wait $!; }
beside() { { run "$1" || kill $$; } & }  # what fails beside the others ends them too

mkdir -p "$WORK"
# Two jobs of one thread each finish sooner than one job of two.
beside language
language=$!
step sentences
step words
step questions
step strange
step exams
step answers
step repeats
beside encoder
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
