"""Enhance vessels and sort voxels into background, weak and strong."""

from vasculome.stages.job import run_stage

run_stage(
    "enhance",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
