#!/usr/bin/env bash
# Makes the reference model anew, in one command:
#
#     bash examples/reference_model.sh fer2013.npz
#
# Trains TEACHERS networks, then lets one learn from all of them, and exports it, verified, to
# OUT/sequential. Run it again after an interruption: what is finished stays. Meant for a GPU; on two CPU
# cores an epoch takes some four minutes. TEACHERS, EPOCHS, MODEL and OUT are read from the environment,
# further arguments go to every training:
#
#     TEACHERS=2 EPOCHS=1 MODEL=compact OUT=/tmp/rehearsal bash examples/reference_model.sh synthetic
set -euo pipefail

data=${1:?usage: reference_model.sh SRC [training options]}
shift
teachers=${TEACHERS:-4}
epochs=${EPOCHS:-200}
model=${MODEL:-sequential}
out=${OUT:-runs/reference}

# make FOLDER COMMAND...: start what the command trains, or go on with what stands in the folder.
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

# Keras converts to ONNX on TensorFlow alone; on a machine that trains with JAX, take the run to another.
if python -c "import tensorflow" 2>/dev/null; then
    fertools export "$out/student/seed-0" --data "$data" --quantize --out "$out/$model"
else
    echo "Next, where TensorFlow is: fertools export $out/student/seed-0 --data $data --quantize" >&2
fi
