"""Find the offset of every pair of overlapping tiles."""

from vasculome.stages.job import run_stage

run_stage(
    "register",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
