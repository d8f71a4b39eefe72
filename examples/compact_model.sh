#!/usr/bin/env bash
# Trains a compact as the shipped one was trained, from random weights, in a checkout of the repository:
#
#     bash examples/compact_model.sh fer2013.npz
#
# A long training with the shipped models as teachers, a short one on a bad camera's images, the export to
# OUT/compact. After an interruption, run it again: finished parts are kept. On one core of an AMD EPYC with
# bfloat16 it takes an hour and three quarters. The shipped file is of seed 0, and its
# teachers were the models of revision 69cd58d. TEACHERS, EPOCHS, CAMERA_EPOCHS and OUT are read from the environment; further
# arguments, such as --seed 1, are passed to both trainings.
set -euo pipefail

data=${1:?usage: compact_model.sh SRC [training options]}
shift
read -ra teachers <<< "${TEACHERS:-exported/compact exported/sequential}"
out=${OUT:-runs/compact-model}

# make FOLDER OPTIONS...: start the training, or continue the one in the folder.
make() {
    local folder=$1
    shift
    if [ -f "$folder/metrics.json" ]; then
        return
    elif [ -d "$folder" ]; then
        fertools train --resume "$folder" --data "$data"
    else
        fertools distill "$@" --label-share 0.2 --data "$data" --model compact --out "$folder"
    fi
}

make "$out/long" --teachers "${teachers[@]}" --versions 10 \
    --epochs "${EPOCHS:-200}" --learning-rate 0.1 --augmentation strong "$@"
make "$out/camera" --teachers "$out/long" "${teachers[-1]}" --versions 3 \
    --weights "$out/long/best.keras" --start-share 0.5 \
    --epochs "${CAMERA_EPOCHS:-24}" --learning-rate 0.02 --warmup-epochs 1 --augmentation wide --camera 0.6 "$@"

fertools export "$out/camera" --data "$data" --quantize --out "$out/compact"
