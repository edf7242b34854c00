# Four sweeps over scikit-learn's digits, 3 seeds each.
for part in activations losses optimizers batches; do
    python -m agebench.train experiment=intro_$part -m seed=0,1,2 sweep=$part
    python -m agebench.compare outputs/sweeps/$part --output tables/$part
done
