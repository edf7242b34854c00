#!/bin/sh
# The ladder of the lecture on MNIST, from the deep conv net to an ensemble of ten. 5 CPU-hours.
# Needs MNIST, the folder of the data; without it, they are downloaded.
set -e
TRAIN="python -m agebench.train experiment=mnist_ladder data.root=${MNIST:-data/mnist} trainer.precision=bf16-mixed launcher.jobs=2"
$TRAIN -m seed=0,1,2 scheduler=constant augment=none ema.decay=null sweep=mnist_ladder_1
$TRAIN -m seed=0,1,2 augment=none ema.decay=null sweep=mnist_ladder_2
$TRAIN -m seed=0,1,2 ema.decay=null sweep=mnist_ladder_3
$TRAIN sweep=mnist_ladder_4
$TRAIN model=small_cnn "model.widths=[[32,32],[64,64],[128,128]]" trainer.max_epochs=10 sweep=mnist_ladder_5
for sweep in outputs/sweeps/mnist_ladder_[45]; do
    for run in "$sweep"/seed-[012]-*; do
        python -m agebench.evaluate run="$run" tta=shift
    done
    python -m agebench.evaluate run="$sweep"
    python -m agebench.evaluate run="$sweep" tta=shift
done
python -m agebench.compare outputs/sweeps/mnist_ladder_* --evaluations --output tables
