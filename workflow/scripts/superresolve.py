"""Map vessels on a finer grid by a network."""

from vasculome.stages.job import run_stage

run_stage(
    "superresolve",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
