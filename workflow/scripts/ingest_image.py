"""Copy raw microscopy files, tiles blended where they overlap, into one OME-Zarr."""

from vasculome.stages.job import run_stage

run_stage(
    "ingest_image",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
