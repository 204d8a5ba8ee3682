"""Join the maps of 2-D slices to those of their volume."""

from vasculome.stages.job import run_stage

run_stage(
    "join_slices",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
