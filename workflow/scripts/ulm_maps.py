"""Render density, velocity and direction maps from tracks."""

from vasculome.stages.job import run_stage

run_stage(
    "ulm_maps",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
