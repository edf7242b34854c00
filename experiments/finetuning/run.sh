#!/bin/sh
# Scratch and the ways of finetuning on 400 real faces and 200 hiragana. It writes to the current folder.
# Needs FACES, a folder of UTKFace images (AGE_*.jpg), the folder HIRAGANA, and WEIGHTS, the ImageNet weights of timm's
# mobilenetv2_100. RATIO is the ratio of the rates that was chosen with the seed 100.
set -e
RATIO=${RATIO:-1}
(echo path,age; for file in "$FACES"/*.jpg; do name=${file##*/}; echo "$file,${name%%_*}"; done) > faces.csv
TRAIN="python -m agebench.train model=timm model.model_name=mobilenetv2_100 data.image_size=64 data.batch_size=32 data.normalise=half data/split=random optim=adamw optim.lr=2e-3 scheduler=cosine trainer.accelerator=cpu report=false"
FACES_KEYS="data=table data.root=faces.csv data.target=age data.limit=400 head=dldl_v2 augment=standard trainer.max_epochs=6"
KANA_KEYS="data=hiragana73 data.root=$HIRAGANA data.limit=200 trainer.max_epochs=12"

study() {  # the name of the study and its keys
    name=$1
    shift
    PRETRAINED="$TRAIN $* model.checkpoint_path=$WEIGHTS"
    $PRETRAINED -m seed=100 finetune=head_then_all,gradual,all finetune.backbone_lr_ratio=0.1,0.3,1 sweep=finetuning_${name}_ratio
    $TRAIN "$@" -m seed=0,1,2 finetune=none sweep=finetuning_${name}_scratch
    $PRETRAINED -m seed=0,1,2 finetune=head sweep=finetuning_${name}_head
    $PRETRAINED -m seed=0,1,2 finetune=head_then_all,gradual,all finetune.backbone_lr_ratio=$RATIO sweep=finetuning_${name}_tuned
}

study faces $FACES_KEYS
study kana $KANA_KEYS
for name in faces kana; do
    sed -n '/^## Points/,$p' outputs/sweeps/finetuning_${name}_ratio/sweep.md  # the values on val
    python -m agebench.compare outputs/sweeps/finetuning_${name}_scratch outputs/sweeps/finetuning_${name}_head outputs/sweeps/finetuning_${name}_tuned
done
