# The run of `make demo`, 3 seeds. 8 CPU-minutes.
python -m agebench.train experiment=demo report=false launcher.jobs=2 -m seed=0,1,2 sweep=demo
python -m agebench.compare outputs/sweeps/demo --columns 'within_1,mae,qwk' --output tables
