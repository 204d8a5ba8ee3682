"""The reports of a run: what the workflow's scripts call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vasculome.report.beside import beside, same_raw
from vasculome.report.cohort import write_cohort_report
from vasculome.report.networks import write_models_report
from vasculome.report.sample import sample_summary, write_sample_report
from vasculome.stages.catalog import stages_of
from vasculome.stages.job import MODELS, Job, check_stores, load_run


def report_sample(*, config: Mapping[str, Any], sample: str, out: str) -> None:
    """Write the page and the pictures of one sample; raises UserError for what cannot be read."""
    run, samples = load_run(config)
    row = next(s for s in samples if s.sample == sample)
    results = Path(run.results)
    stages = stages_of(row, run)
    job = Job(stages[-1], run, row)
    check_stores(job, [stage for stage in stages if job.manifest_path(stage).exists()])
    write_sample_report(
        results / sample,
        sample=row.row(),
        stages=stages,
        # A volume of slices has no settings of its own.
        parameters=job.config.model_dump(mode="json").get(row.modality, {}),
        benchmarks_dir=results / "benchmarks" / sample,
        out=Path(out),
    )


def report_cohort(*, config: Mapping[str, Any], table: str, page: str) -> None:
    """Write the table and the page of all samples; raises UserError for what cannot be read."""
    run, samples = load_run(config)
    summaries = [
        sample_summary(
            Path(run.results) / s.sample, sample={"sample": s.sample, "modality": s.modality}
        )
        for s in samples
    ]
    groups = same_raw(samples)
    for sample in (sample for group in groups for sample in group):
        job = Job("ulm_maps", run, sample)
        if job.manifest_path("ulm_maps").exists():
            check_stores(job, ["ulm_maps"])
    compared = [beside(Path(run.results), [s.sample for s in group]) for group in groups]
    write_cohort_report(summaries, Path(table), Path(page), side_by_side=compared)


def report_models(*, config: Mapping[str, Any], out: str) -> None:
    """Write the page of all networks; raises UserError for what cannot be read."""
    run, _ = load_run(config)
    models = run.model_dump(mode="json")["models"]
    folder = Path(run.results) / MODELS
    write_models_report(folder, models=models, out=Path(out), folded=list(run.folds))
