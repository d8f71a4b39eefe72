#!/usr/bin/env bash
# Rebuilds the reference model with one command:
#
#     bash examples/reference_model.sh fer2013.npz
#
# Trains TEACHERS networks, distills them into one, verifies it and exports it to OUT/sequential. After an
# interruption, run it again: finished parts are kept. Meant for a GPU; on two CPU cores an epoch takes one
# to two minutes. TEACHERS, EPOCHS, MODEL and OUT are read from the environment; further arguments are passed
# to every training:
#
#     TEACHERS=2 EPOCHS=1 MODEL=compact OUT=/tmp/rehearsal bash examples/reference_model.sh synthetic
set -euo pipefail

data=${1:?usage: reference_model.sh SRC [training options]}
shift
teachers=${TEACHERS:-4}
epochs=${EPOCHS:-200}
model=${MODEL:-sequential}
out=${OUT:-runs/reference}

# make FOLDER COMMAND...: start the training, or continue the one in the folder.
make() {
    local folder=$1
    shift
    if [ -d "$folder" ]; then
        fertools train --resume "$folder"
    else
        "$@" --data "$data" --model "$model" --epochs "$epochs" --out "$folder"
    fi
}

make "$out/teachers" fertools train --seeds "$teachers" "$@"
make "$out/student" fertools distill --teachers "$out"/teachers/seed-* --seeds 1 "$@"

# The export to ONNX needs TensorFlow; if this machine only has JAX, export the run on another.
if python -c "import tensorflow" 2>/dev/null; then
    fertools export "$out/student/seed-0" --data "$data" --quantize --out "$out/$model"
else
    echo "Next, where TensorFlow is: fertools export $out/student/seed-0 --data $data --quantize" >&2
fi
