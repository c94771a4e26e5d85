#!/usr/bin/env bash
# The paper's tables: every system on one set of spoken questions, every Ω, the judge. Kill it and run it again: what is
# done is kept. QUESTIONS: a folder with questions.jsonl, or nano. JUDGE_URL, JUDGE_MODEL: an OpenAI-compatible server.
# OMNI, SPEECHGPT, SALMONN, QWEN2_AUDIO: folders or hub names; what is not given is left out. Without any of them, the
# bundled comparison: a few minutes of two CPU cores.
set -euo pipefail
WORK=${WORK:-build/tables}
OMNIVOX=${OMNIVOX:-omnivox}
QUESTIONS=${QUESTIONS:-nano}
ASR=${ASR:-whisper:openai/whisper-large-v3}
LIMIT=${LIMIT:-}
OMNI=${OMNI:-}
SYSTEMS=()
if [[ -n $OMNI ]]; then
  SYSTEMS+=("omni:$OMNI" "omni:$OMNI?omega=inf" "omni:$OMNI?alone=true")
  for omega in 20 40 60 80 100; do SYSTEMS+=("omni:$OMNI?omega=$omega" "omni:$OMNI?omega=$omega&alone=true"); done
  for lookahead in 0 4 8 12; do SYSTEMS+=("omni:$OMNI?lookahead=$lookahead"); done
fi
[[ -n ${SPEECHGPT:-} ]] && SYSTEMS+=("speechgpt:$SPEECHGPT")
[[ -n ${SALMONN:-} ]] && SYSTEMS+=("salmonn:$SALMONN" "salmonn:$SALMONN?say=words:1" "salmonn:$SALMONN?say=words:5")
[[ -n ${QWEN2_AUDIO:-} ]] && SYSTEMS+=("qwen2_audio:$QWEN2_AUDIO" "qwen2_audio:$QWEN2_AUDIO?say=words:1")

FLAGS=(--work "$WORK" ${LIMIT:+--limit "$LIMIT"})
if ((${#SYSTEMS[@]} == 0)); then
  exec "$OMNIVOX" evaluate --tables "${FLAGS[@]}"
fi
for measure in asr_wer asr_cer utmos dnsmos_ovrl plcmos s2tif_score s2sif_score s2tif_content s2tif_style s2sif_content \
  s2sif_style; do FLAGS+=(--measure "$measure"); done
[[ -n ${JUDGE_URL:-} ]] && FLAGS+=(--judge-url "$JUDGE_URL" --judge-model "${JUDGE_MODEL:?the model of the judge}")
exec "$OMNIVOX" evaluate --tables "${SYSTEMS[@]/#/--system=}" --questions "$QUESTIONS" --asr "$ASR" "${FLAGS[@]}"
