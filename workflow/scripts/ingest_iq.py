"""Copy raw IQ data into one Zarr array in blocks of frames."""

from vasculome.stages.job import run_stage

run_stage(
    "ingest_iq",
    config=snakemake.config,
    sample=snakemake.wildcards.sample,
    threads=snakemake.threads,
    log_path=snakemake.log[0],
)
