"""Find the shape of the light, the brightness of each tile, and blank planes."""

from vasculome.stages.job import run_stage

run_stage(
    "illuminate",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
