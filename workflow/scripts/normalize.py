"""Find the intensity range of the whole volume from its histogram."""

from vasculome.stages.job import run_stage

run_stage(
    "normalize",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
