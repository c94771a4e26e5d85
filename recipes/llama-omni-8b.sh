#!/usr/bin/env bash
# LLaMA-Omni's published size from Llama-3.1-8B-Instruct and Whisper large-v3, on four GPUs of 48 GB (the paper: 65 hours).
# DATA: conversations with units (docs/train.md). VOCODER: a unit vocoder's folder. Kill it and run it again: what is
# done is kept.
set -euo pipefail
DATA=${DATA:?a folder of conversations}
VOCODER=${VOCODER:?a unit vocoder, with g_00500000 and config.json}
WORK=${WORK:-build/llama-omni-8b}
GPUS=${GPUS:-4}
OMNIVOX=${OMNIVOX:-omnivox}
step() { torchrun --nproc-per-node "$GPUS" --no-python "$OMNIVOX" train llama-omni-8b "$@" --data "$DATA" --work "$WORK"; }

"$OMNIVOX" train llama-omni-8b --plan --gpus "$GPUS" --gpu-memory 48
step stage1
step stage2 --vocoder "$VOCODER"
"$OMNIVOX" info "$WORK/stage2/model"
