#!/usr/bin/env bash
# Makes both models that ship from random weights, in one command:
#
#     bash examples/shipped_models.sh fer2013.npz
#
# Three networks learn by the labels alone: two of `large`, the teachers, and `sequential`. `compact` (three seeds, of
# which the best on the validation split is taken) and `sequential` then learn from the teachers on a bad camera's
# images, and are verified and exported to OUT/compact and OUT/sequential. After an interruption, run it again: what is
# finished is kept, and a training goes on where it stopped. One after the other, the runs that made what ships took
# nineteen hours, most of them on one core of an AMD EPYC with bfloat16.
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

make large-a 100 train --model large --learning-rate 0.1
make large-b 100 train --model large --learning-rate 0.1 --augmentation wide --seed 1
make labels-only 40 train --model sequential --seed 1
make compact-k 250 distill --teachers "$out/large-a" "$out/large-b" --versions 40 --label-share 0.2 \
    --model compact --seeds 3 --learning-rate 0.1 --weight-decay 0.0015 --augmentation wide --camera 0.35
make student-10 140 distill --teachers "$out/large-a" "$out/large-b" --versions 40 --label-share 0.2 \
    --model sequential --weights "$out/labels-only/best.keras" --warmup-epochs 2 --augmentation wide --camera 0.5

# The export to ONNX needs TensorFlow; if this machine only has JAX, export the runs on another.
if python -c "import tensorflow" 2>/dev/null; then
    fertools export "$out/compact-k" --data "$data" --quantize --out "$out/compact"
    fertools export "$out/student-10" --data "$data" --quantize --out "$out/sequential"
else
    echo "Next, where TensorFlow is: fertools export RUN --data $data --quantize" >&2
    echo "for each RUN of $out/compact-k and $out/student-10" >&2
fi
