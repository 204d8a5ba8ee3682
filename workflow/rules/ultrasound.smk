"""Ultrasound: raw IQ to tracks."""


rule ingest_iq:
    """Copy raw IQ data into one Zarr array in blocks of frames."""
    input:
        raw=raw,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/ingest_iq.json",
    log:
        f"{RESULTS}/logs/{{sample}}/ingest_iq.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/ingest_iq.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("ingest_iq"),
        runtime=120,
    params:
        identity=identity("ingest_iq"),
    script:
        "../scripts/ingest_iq.py"


rule calibrate:
    """Learn from the first block where to cut clutter, and the echo of a microbubble."""
    input:
        iq=rules.ingest_iq.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/calibrate.json",
    log:
        f"{RESULTS}/logs/{{sample}}/calibrate.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/calibrate.tsv"
    threads: 1
    resources:
        mem_mb=mem_mb("calibrate"),
        runtime=30,
    params:
        identity=identity("calibrate"),
    script:
        "../scripts/calibrate.py"


rule localize:
    """Filter clutter block by block and localize microbubbles."""
    input:
        iq=rules.ingest_iq.output.manifest,
        calibration=rules.calibrate.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/localize.json",
    log:
        f"{RESULTS}/logs/{{sample}}/localize.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/localize.tsv"
    threads: WORKERS
    resources:
        mem_mb=mem_mb("localize"),
        runtime=240,
    params:
        identity=identity("localize"),
    script:
        "../scripts/localize.py"


rule track:
    """Pair microbubbles from frame to frame and link them into tracks."""
    input:
        iq=rules.ingest_iq.output.manifest,
        detections=rules.localize.output.manifest,
    output:
        manifest=f"{RESULTS}/{{sample}}/manifests/track.json",
    log:
        f"{RESULTS}/logs/{{sample}}/track.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/track.tsv"
    threads: 1
    resources:
        mem_mb=mem_mb("track"),
        runtime=120,
    params:
        identity=identity("track"),
    script:
        "../scripts/track.py"
