# The slides' Keras CNN and the book's deep conv net, 3 seeds each. 70 CPU-minutes.
# Needs MNIST, the folder of the data; without it, they are downloaded.
TRAIN="python -m agebench.train data.root=${MNIST:-data/mnist} trainer.precision=bf16-mixed launcher.jobs=2 report=false"
$TRAIN experiment=keras_cnn_mnist -m seed=0,1,2 sweep=keras_cnn
$TRAIN experiment=deep_convnet_mnist -m seed=0,1,2 sweep=deep_convnet
python -m agebench.compare outputs/sweeps/keras_cnn outputs/sweeps/deep_convnet --format md,csv --output tables
