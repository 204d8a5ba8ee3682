"""A page for each sample, and one table for the cohort."""


rule sample_report:
    """Write the self-contained page of one sample, and its pictures as files."""
    input:
        manifests=manifests_of_sample,
    output:
        page=report(
            f"{RESULTS}/{{sample}}/report.html",
            caption="../report/sample.rst",
            category="Samples",
            labels={"sample": "{sample}"},
        ),
    log:
        f"{RESULTS}/logs/{{sample}}/report.log",
    benchmark:
        f"{RESULTS}/benchmarks/{{sample}}/report.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=30,
    params:
        row=row,
    script:
        "../scripts/sample_report.py"


rule cohort:
    """Gather the key numbers of all samples in one table."""
    input:
        manifests=[
            f"{RESULTS}/{sample.sample}/manifests/{stage}.json"
            for sample in SAMPLES
            for stage in stages_of(sample, CONFIG)
        ],
    output:
        table=f"{RESULTS}/cohort/summary.tsv",
        page=report(
            f"{RESULTS}/cohort/report.html",
            caption="../report/cohort.rst",
            category="Cohort",
        ),
    log:
        f"{RESULTS}/logs/cohort.log",
    benchmark:
        f"{RESULTS}/benchmarks/cohort.tsv"
    threads: 1
    resources:
        mem_mb=lambda wildcards, attempt: 4000 * attempt,
        runtime=10,
    script:
        "../scripts/cohort.py"


rule report:
    """Reports of all samples and of the cohort."""
    input:
        expand(rules.sample_report.output.page, sample=SAMPLE),
        rules.cohort.output,
