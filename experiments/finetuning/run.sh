#!/bin/sh
# Scratch and the ways of finetuning on 400 real faces and 200 hiragana. It writes to the current folder.
#   sh run.sh ratio          prints the best value on val for three ratios of the rates, seed 100
#   sh run.sh                trains the seeds 0 to 2 with the best ratio, 1 (one rate), and prints the tables
# Needs FACES, a folder of UTKFace images (AGE_*.jpg), the folder HIRAGANA, and WEIGHTS, the ImageNet weights of timm's
# mobilenetv2_100.
set -e
(echo path,age; for file in "$FACES"/*.jpg; do name=${file##*/}; echo "$file,${name%%_*}"; done) > faces.csv
TRAIN="python -m agebench.train model=timm model.model_name=mobilenetv2_100 data.image_size=64 data.batch_size=32 data.normalise=half data/split=random optim=adamw optim.lr=2e-3 scheduler=cosine trainer.accelerator=cpu report=false"
PRETRAINED="$TRAIN model.checkpoint_path=$WEIGHTS"

study() {
    STUDY=outputs/sweeps/finetuning_$NAME
    if [ "$1" = ratio ]; then
        $PRETRAINED $KEYS -m seed=100 finetune=head_then_all,all finetune.backbone_lr_ratio=0.1,0.3,1 sweep=finetuning_${NAME}_ratio
        sed -n '/^## Points/,$p' ${STUDY}_ratio/sweep.md
        return
    fi
    $PRETRAINED $KEYS -m seed=0,1,2 finetune=head sweep=finetuning_${NAME}_head
    $PRETRAINED $KEYS -m seed=0,1,2 finetune=head_then_all,gradual sweep=finetuning_${NAME}_later
    $PRETRAINED $KEYS -m seed=0,1,2 finetune=all finetune.backbone_lr_ratio=null sweep=finetuning_${NAME}_all
    $TRAIN $KEYS -m seed=0,1,2 finetune=none sweep=finetuning_${NAME}_scratch
    python -m agebench.compare ${STUDY}_head ${STUDY}_later ${STUDY}_all ${STUDY}_scratch
}

NAME=faces KEYS="data=table data.root=faces.csv data.target=age data.limit=400 head=dldl_v2 augment=standard trainer.max_epochs=6"
study "$1"
NAME=kana KEYS="data=hiragana73 data.root=$HIRAGANA data.limit=200 trainer.max_epochs=12"
study "$1"
