#!/usr/bin/env bash
# Makes both models that ship from random weights, in one command:
#
#     bash examples/shipped_models.sh fer2013.npz
#
# Three networks learn by the labels alone: two of `large`, the teachers, and `sequential`. `compact` and `sequential`
# then learn from the teachers on a bad camera's images, and `compact` goes on with these two as its teachers. At last both
# go on for a while on images that are changed less, `compact` in three seeds. `sequential` and the seed that is best on
# the validation split are verified and exported to OUT/sequential and OUT/compact. After an interruption, run it again:
# what is finished is kept, and a training goes on where it stopped. The runs that made what ships took seventeen hours,
# most of them on one core of a server with bfloat16.
#
# EPOCHS and OUT are read from the environment; further arguments are passed to every training, for a rehearsal:
#
#     EPOCHS=1 OUT=/tmp/rehearsal bash examples/shipped_models.sh synthetic
set -euo pipefail

data=${1:?usage: shipped_models.sh SRC [training options]}
shift
options=("$@")
out=${OUT:-runs/shipped}

# make NAME EPOCHS COMMAND...: start the training, or continue the one in the folder of this name.
make() {
    local folder=$out/$1 epochs=${EPOCHS:-$2}
    shift 2
    if [ -f "$folder/metrics.json" ]; then
        return
    elif [ -d "$folder" ]; then
        fertools train --resume "$folder" --data "$data"
    else
        fertools "$@" --epochs "$epochs" --data "$data" --out "$folder" "${options[@]}"
    fi
}

# ship NAME FOLDER: verify and export what make left in the folder of this name, unless that is done.
ship() {
    [ -f "$out/$2/report.json" ] || fertools export "$out/$1" --data "$data" --quantize --out "$out/$2"
}

make large-a 100 train --model large --learning-rate 0.1
make large-b 100 train --model large --learning-rate 0.1 --augmentation wide --seed 1
make labels-only 40 train --model sequential --seed 1
make compact-k 250 distill --teachers "$out/large-a" "$out/large-b" --versions 40 --label-share 0.2 \
    --model compact --learning-rate 0.1 --weight-decay 0.0015 --augmentation wide --camera 0.35
make student-10 140 distill --teachers "$out/large-a" "$out/large-b" --versions 40 --label-share 0.2 \
    --model sequential --weights "$out/labels-only/best.keras" --warmup-epochs 2 --augmentation wide --camera 0.5
make compact-l 96 distill --teachers "$out/student-10" "$out/compact-k" --versions 16 --label-share 0.2 \
    --model compact --weights "$out/compact-k/best.keras" --seed 1 --warmup-epochs 2 --learning-rate 0.03 \
    --weight-decay 0.0015 --augmentation wide --camera 0.4
make compact-m 24 distill --teachers "$out/student-10" "$out/compact-k" --versions 6 --label-share 0.2 \
    --model compact --weights "$out/compact-l/best.keras" --seeds 3 --warmup-epochs 1 --learning-rate 0.01 \
    --weight-decay 0.0015 --augmentation light --camera 0.25
make student-11 12 distill --teachers "$out/student-10" "$out/compact-k" --versions 6 --label-share 0.2 \
    --model sequential --weights "$out/student-10/best.keras" --warmup-epochs 1 --learning-rate 0.01 \
    --augmentation light --camera 0.25

# The export to ONNX needs TensorFlow; if this machine only has JAX, export the runs on another.
if python -c "import tensorflow" 2>/dev/null; then
    ship compact-m compact
    ship student-11 sequential
else
    echo "Next, where TensorFlow is: fertools export RUN --data $data --quantize" >&2
    echo "for each RUN of $out/compact-m and $out/student-11" >&2
fi
