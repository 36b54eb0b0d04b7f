#!/usr/bin/env bash
# The whole training on a machine's GPUs (or, at toy size, on a CPU): scenes, autoencoder, detector, generator,
# folder, check.
#
#   tools/tiny/train_all.sh WORK END          END: seconds since the epoch at which the generator stops training
#   tools/tiny/train_all.sh WORK END --toy    every stage for seconds, to see that all of it runs
#
# WORK holds atlas.npz; what must be kept lands in WORK/out (files under 16 MiB, 45 MiB in all) and is renewed
# every minute. Finished stages are not run again and the generator goes on from its saved state, so the same command
# with a later END continues. PYTHON names the interpreter; VAE_SECONDS and DETECTOR_SECONDS the length of these stages;
# PROCESSES how many train the generator together (one a GPU).
set -euo pipefail
if [ $# -lt 2 ]; then sed -n 2,11p "$0" >&2; exit 2; fi
work=$(realpath "$1") end=$2 toy=${3:-}
here=$(cd "$(dirname "$0")" && pwd)
model=$here/../../models/octavo-tiny
python=${PYTHON:-python3}
out=$work/out
vae_seconds=${VAE_SECONDS:-240} detector_seconds=${DETECTOR_SECONDS:-80}
gpus=$(nvidia-smi -L 2>/dev/null | wc -l || true)
processes=${PROCESSES:-$((gpus > 1 ? gpus : 1))}
scene_flags=() vae_flags=() detector_flags=() generator_flags=()
if [ "$processes" -gt 1 ]; then generator_flags=(--batch 384 --renew 192); fi
if [ "$toy" = --toy ]; then
  vae_seconds=4 detector_seconds=4
  scene_flags=(--square 400 --other 40)
  vae_flags=(--plain --batch 2 --size 64 --held-out 4)
  detector_flags=(--plain --batch 4 --renew 1 --pool 64 --held-out 4)
  generator_flags=(--plain --batch 2 --pool 8 --other-pool 2 --renew 1)
fi
mkdir -p "$out"
echo "$end" > "$work/end"
cd "$here"
export PYTHONUNBUFFERED=1
stage() { printf '%s: %s\n' "$(date +%T)" "$1" | tee -a "$out/stages.log"; }

if [ ! -e "$work/scenes/tokens.json" ]; then
  stage scenes
  "$python" make_scenes.py --atlas "$work/atlas.npz" --model "$model" --out "$work/scenes" "${scene_flags[@]}" \
    > "$out/scenes.log" 2>&1
fi
if [ ! -e "$out/vae.safetensors" ]; then
  stage autoencoder
  "$python" train_vae.py --atlas "$work/atlas.npz" --scenes "$work/scenes" --out "$out" --seconds "$vae_seconds" \
    "${vae_flags[@]}" > "$out/vae.log" 2>&1
fi
detector() {
  stage detector
  CUDA_VISIBLE_DEVICES=$1 "$python" train_detector.py --atlas "$work/atlas.npz" --scenes "$work/scenes" --vae "$out" \
    --out "$out" --seconds "$detector_seconds" "${detector_flags[@]}" > "$out/detector.log" 2>&1
  rm -f "$out/detector.pt"
  stage "detector done"
}
if [ ! -e "$out/detector.json" ]; then
  # With several GPUs on the last one, while the generator compiles and fills its pool.
  if [ "$gpus" -gt 1 ]; then detector $((gpus - 1)) & else detector "${CUDA_VISIBLE_DEVICES:-0}"; fi
fi
left=$((end - $(date +%s)))
if [ "$left" -gt 0 ]; then
  stage "generator, $left s"
  if [ -e "$(compgen -G "$out/generator-state-*.safetensors" | head -1)" ]; then generator_flags+=(--resume); fi
  launcher=()
  if [ "$processes" -gt 1 ]; then
    launcher=(-m torch.distributed.run --master-addr 127.0.0.1 --master-port 29517 --nproc-per-node "$processes")
  fi
  "$python" "${launcher[@]}" train_generator.py --atlas "$work/atlas.npz" --scenes "$work/scenes" --vae "$out" \
    --out "$out" --seconds "$left" --end-file "$work/end" "${generator_flags[@]}" >> "$out/generator.log" 2>&1
fi
wait
stage folder
rm -rf "$work/model"
mkdir -p "$work/model"
cp -r "$model"/tokenizer* "$work/model/"
"$python" export.py --weights "$out" --out "$work/model" | tee -a "$out/stages.log"
if "$python" -c 'import diffusers' 2>/dev/null; then
  stage check
  "$python" check_modules.py --model "$work/model" > "$out/check.log" 2>&1
fi
stage done
