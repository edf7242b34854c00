#!/bin/sh
# 400 real faces and 200 hiragana: scratch, the classifier alone, and finetuning, 3 seeds each.
# Needs faces.csv (path,age), the folder HIRAGANA, and WEIGHTS, the ImageNet weights of timm's mobilenetv2_100.
set -e
COMMON="model=timm model.model_name=mobilenetv2_100 data.image_size=64 data.batch_size=32 data.normalise=half optim=adamw optim.lr=2e-3 scheduler=cosine trainer.accelerator=cpu report=false"
FACES="data=table data.root=faces.csv data.target=age data/split=random data.limit=400 head=dldl_v2 augment=standard trainer.max_epochs=6"
KANA="data=hiragana73 data.root=$HIRAGANA data/split=random data.limit=200 head=softmax trainer.max_epochs=12"
TUNED="finetune=head,head_then_all model.checkpoint_path=$WEIGHTS"
python -m agebench.train $COMMON $FACES -m seed=0,1,2 $TUNED sweep=faces_tuned
python -m agebench.train $COMMON $FACES -m seed=0,1,2 finetune=none sweep=faces_scratch
python -m agebench.train $COMMON $FACES -m seed=0,1,2 finetune=none model.checkpoint_path=$WEIGHTS sweep=faces_one_rate
python -m agebench.train $COMMON $FACES -m seed=0,1,2 finetune=head_then_all finetune.backbone_lr_ratio=null model.checkpoint_path=$WEIGHTS sweep=faces_tuned_one_rate
python -m agebench.train $COMMON $KANA -m seed=0,1,2 $TUNED sweep=kana_tuned
python -m agebench.train $COMMON $KANA -m seed=0,1,2 finetune=none sweep=kana_scratch
python -m agebench.compare outputs/sweeps/faces_*
python -m agebench.compare outputs/sweeps/kana_*
