#!/bin/sh
# The ladder of the lecture on MNIST, from the deep conv net to an ensemble of ten.
# Arguments are added to each training, such as trainer.precision=bf16-mixed.
set -e
TRAIN="python -m agebench.train experiment=mnist_ladder data.root=${MNIST:-data/mnist}"
$TRAIN -m seed=0,1,2 scheduler=constant augment=none ema.decay=null sweep=mnist_ladder_1 "$@"
$TRAIN -m seed=0,1,2 augment=none ema.decay=null sweep=mnist_ladder_2 "$@"
$TRAIN -m seed=0,1,2 ema.decay=null sweep=mnist_ladder_3 "$@"
$TRAIN sweep=mnist_ladder_4 "$@"
for run in outputs/sweeps/mnist_ladder_4/seed-[012]-*; do
    python -m agebench.evaluate run="$run" tta=shift
done
python -m agebench.evaluate run=outputs/sweeps/mnist_ladder_4
python -m agebench.evaluate run=outputs/sweeps/mnist_ladder_4 tta=shift
python -m agebench.compare outputs/sweeps/mnist_ladder_* --evaluations --output tables
