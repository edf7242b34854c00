#!/bin/sh
# Two networks on the 730 available images of hiragana73, five folds by page, pooled. It writes to the current folder.
# Needs the folder HIRAGANA. With WEIGHTS, the ImageNet weights of timm's mobilenetv2_100, it also finetunes this network.
set -e
TRAIN="python -m agebench.train data=hiragana73 data.root=$HIRAGANA data/split=kfold trainer.accelerator=cpu launcher.jobs=2 report=false"
FOLDS="data.split.fold=0,1,2,3,4 seed=${SEEDS:-0,1,2}"
RECIPE="optim=adamw optim.lr=2e-3 optim.weight_decay=0.05 scheduler=cosine scheduler.warmup_epochs=1 augment=digits augment.fill=0.8 augment.brightness=0.4 augment.contrast=0.4"
$TRAIN $RECIPE model=small_cnn model.widths=[32,64,128] trainer.max_epochs=40 trainer.precision=bf16-mixed -m $FOLDS sweep=hiragana73_scratch
$TRAIN experiment=hiragana73_cnn augment.degrees=10 augment.at_test=false trainer.max_epochs=40 trainer.precision=bf16-mixed -m $FOLDS sweep=hiragana73_cnn
if [ -n "$WEIGHTS" ]; then
    ln -sf "$WEIGHTS" weights.pth
    $TRAIN $RECIPE model=timm model.model_name=mobilenetv2_100 model.checkpoint_path=weights.pth data.normalise=half data.image_size=64 finetune=head_then_all trainer.max_epochs=12 -m $FOLDS sweep=hiragana73_imagenet
fi
python -m agebench.compare outputs/sweeps/hiragana73_* --output tables
