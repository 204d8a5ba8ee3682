"""Filter clutter block by block and localize microbubbles."""

from vasculome.stages.job import run_stage

run_stage(
    "localize",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
