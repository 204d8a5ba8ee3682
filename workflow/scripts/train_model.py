"""Train one network from one seed."""

from vasculome.stages.job import run_logged
from vasculome.stages.train import train_model

run_logged(
    train_model,
    config=snakemake.config,
    model=snakemake.wildcards.model,
    seed=int(snakemake.wildcards.seed),
    log_path=snakemake.log[0],
)
