"""Map vessel volume fraction, length density and radius."""

from vasculome.stages.job import run_stage

run_stage(
    "vessel_maps",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
