"""Thin the mask to centre lines and measure radii."""

from vasculome.stages.job import run_stage

run_stage(
    "skeleton",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
