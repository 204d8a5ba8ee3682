"""Pair microbubbles from frame to frame and link them into tracks."""

from vasculome.stages.job import run_stage

run_stage(
    "track",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
