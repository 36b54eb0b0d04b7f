#!/usr/bin/env bash
# The whole training on one GPU, one stage after the other: scenes, autoencoder, generator. Everything lands in WORK/out.
#
#   tools/tiny/run_lease.sh WORK SECONDS_FOR_VAE END      END: seconds since the epoch at which the generator stops
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=$1 vae_seconds=$2 end=$3
model=$here/../../models/octavo-tiny
mkdir -p "$work/out"
echo "$end" > "$work/end"
cd "$here"
export PYTHONUNBUFFERED=1 OMP_NUM_THREADS=4
python3 make_scenes.py --atlas "$work/atlas.npz" --model "$model" --out "$work/scenes" > "$work/out/scenes.log" 2>&1
python3 train_vae.py --atlas "$work/atlas.npz" --scenes "$work/scenes" --out "$work/out" --seconds "$vae_seconds" \
  > "$work/out/vae.log" 2>&1
python3 train_generator.py --atlas "$work/atlas.npz" --scenes "$work/scenes" --vae "$work/out" --out "$work/out" \
  --seconds "$((end - $(date +%s)))" --end-file "$work/end" > "$work/out/generator.log" 2>&1
