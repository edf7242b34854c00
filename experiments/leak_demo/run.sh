# One network on a split by person and on a random one, 3 seeds each; the audit of both. 20 CPU-minutes.
FACES="data=demo data.source.people=150 data.root=data/demo150"
for split in official random; do
    python -m agebench.audit $FACES data.target=age data/split=$split
done
python -m agebench.train experiment=demo_leak $FACES report=false launcher.jobs=2 -m data/split=official,random seed=0,1,2 sweep=leak_demo
python -m agebench.compare outputs/sweeps/leak_demo --output tables
