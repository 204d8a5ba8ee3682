"""Find branch points and ends, and the vessels between them."""

from vasculome.stages.job import run_stage

run_stage(
    "graph",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
