# Ten heads on one network, 3 seeds each. 45 CPU-minutes.
python -m agebench.train experiment=age_heads data.source.people=150 data.root=data/demo150 report=false launcher.jobs=2 -m \
    head=softmax,regression,orcnn,coral,corn,dldl,dldl_v2,sord,mean_variance,unimodal seed=0,1,2 sweep=age_heads
python -m agebench.compare outputs/sweeps/age_heads --format md,csv --output tables
