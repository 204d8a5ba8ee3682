"""One stage of one sample: where its files are, what identifies it, and how it is run.

Workflow scripts call :func:`run_stage`; everything a stage needs to know is in its :class:`Job`.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
import logging
import os
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vasculome import __version__
from vasculome.compute.cluster import Cluster, open_cluster
from vasculome.compute.memory import MemoryBound
from vasculome.config import (
    RunConfig,
    Sample,
    SliceStack,
    config_of,
    parse_config,
    parse_samples,
    stacks_of,
)
from vasculome.errors import UserError
from vasculome.stages.catalog import CATALOG, inputs_of, stages_of
from vasculome.stages.digest import code_digest, digest_of
from vasculome.storage.ledger import Lease, TileResult, missing_file
from vasculome.storage.shards import write_json_atomic

log = logging.getLogger(__name__)

MODELS = "models"
"""Folder of the results that holds trained networks."""


@dataclass(frozen=True)
class Outcome:
    """What a stage has made: a checksum over its outputs, numbers for the report, and stores."""

    content: str
    summary: dict[str, Any]
    stores: tuple[str, ...]


@dataclass(frozen=True)
class Job:
    """A stage's view of the run: configuration, its sample, its folder and its threads.

    Where the row of a sample has settings of its own, ``config`` is what they make of that given.
    """

    stage: str
    config: RunConfig
    sample: Sample | SliceStack
    threads: int = 1

    def __post_init__(self) -> None:
        if isinstance(self.sample, Sample):
            # Wherever a job is made, what the sample sheet says of its sample counts.
            object.__setattr__(self, "config", config_of(self.config, self.sample))

    @property
    def folder(self) -> Path:
        """Folder of the sample's results."""
        return Path(self.config.results) / self.sample.sample

    @property
    def workers(self) -> int:
        """Worker processes that this job may use."""
        if self.config.compute.scheduler == "inline":
            return 1
        return self.config.compute.workers or self.threads

    def cluster(self) -> AbstractContextManager[Cluster]:
        """Return the workers that the configuration asks for, to be opened by ``with``."""
        return open_cluster(self.config.compute.model_copy(update={"workers": self.workers}))

    def manifest_path(self, stage: str) -> Path:
        """Return where the manifest of ``stage`` of this sample is."""
        return self.folder / "manifests" / f"{stage}.json"

    def manifest(self, stage: str) -> dict[str, Any]:
        """Return the manifest that ``stage`` wrote when it was done.

        Raises
        ------
        UserError
            Where it is missing or damaged.
        """
        path = self.manifest_path(stage)
        try:
            content: dict[str, Any] = json.loads(path.read_text())
            lacking = {"content", "summary", "stores"} - content.keys()
        except (OSError, ValueError, AttributeError) as error:
            raise _bad_manifest(path, stage, str(error)) from None
        if lacking:
            raise _bad_manifest(path, stage, f"it lacks {', '.join(sorted(lacking))}")
        return content

    def inputs(self) -> dict[str, Job]:
        """Return the jobs whose outputs the stage reads: of its sample, or of a volume's slices."""
        if isinstance(self.sample, Sample):
            stages = inputs_of(self.stage, self.sample)
            return {stage: dataclasses.replace(self, stage=stage) for stage in stages}
        return {
            f"{row.sample}/{stage}": dataclasses.replace(self, stage=stage, sample=row)
            for row in self.sample.slices
            for stage in CATALOG[self.stage].inputs
        }

    def digest(self) -> str:
        """Return what identifies the outputs: code, settings, sample and content of the inputs."""
        manifests = {name: job.manifest(job.stage) for name, job in self.inputs().items()}
        # Stages read the summaries too: the intensity range is in no other file.
        inputs = {name: [m["content"], m["summary"]] for name, m in manifests.items()}
        return digest_of({"identity": self.identity(), "inputs": inputs})

    def identity(self) -> str:
        """Return the part of :meth:`digest` that is known before any stage has run."""
        module = stage_module(self.stage)
        return digest_of(
            {
                "stage": self.stage,
                "code": code_digest(module.__name__),
                "settings": [part.model_dump(mode="json") for part in module.settings(self.config)],
                "sample": self.sample.identity(),
                "raw": module.raw_fingerprint(self) if hasattr(module, "raw_fingerprint") else None,
            }
        )

    def bound(self) -> MemoryBound:
        """Return the most memory that the stage will take."""
        bound: MemoryBound = stage_module(self.stage).bound(self)
        return bound


def _bad_manifest(path: Path, stage: str, fault: str) -> UserError:
    return UserError(
        f"cannot read the manifest of stage {stage}: {fault}",
        where=path,
        fix=f"delete it and run snakemake again to redo {stage}",
    )


def check_stores(job: Job, stages: Iterable[str]) -> None:
    """Raise UserError where files that ``stages`` wrote are gone: they would read as 0."""
    for stage in stages:
        for store in job.manifest(stage)["stores"]:
            missing = missing_file(job.folder / store)
            if missing is not None:
                raise UserError(
                    f"is gone or cut, though stage {stage} wrote it",
                    where=missing,
                    fix=f"run `vasculome doctor --verify {job.folder / store}`, then snakemake "
                    "again to redo it",
                )


def content_of(results: Iterable[TileResult]) -> str:
    """Return a checksum over the files and their checksums of ``results``, in their order."""
    return digest_of([result.files for result in results])


def stage_module(stage: str) -> Any:
    """Return the module of ``stage``, with ``run``, ``bound`` and ``settings``."""
    return importlib.import_module(f"vasculome.stages.{stage}")


def load_run(content: Mapping[str, Any]) -> tuple[RunConfig, tuple[Sample | SliceStack, ...]]:
    """Return configuration, samples and volumes of slices, checked without reading pixels.

    Raises
    ------
    UserError
        For a bad key or a bad cell, settings that do not go with a sample's own localizer, or a
        results folder that cannot be one.
    """
    config = parse_config(content, where="config")
    _check_writable(Path(config.results))
    if config.samples is None:
        if not config.models:
            raise UserError(
                "there are neither samples nor models",
                where="config",
                fix="set 'samples' to a sample sheet, or 'models' to networks to train",
            )
        return config, ()
    sheet = Path(config.samples)
    try:
        text = sheet.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(
            f"cannot read the sample sheet: {error}", where=sheet, fix="set 'samples' in the config"
        ) from None
    samples = parse_samples(text, where=str(sheet))
    if config.models and any(sample.sample == MODELS for sample in samples):
        raise UserError(
            f"a sample named {MODELS!r} would lie among the networks",
            where=sheet,
            fix="give it another name",
        )
    for sample in samples:
        config_of(config, sample)
    return config, (*samples, *stacks_of(samples))


def _check_writable(results: Path) -> None:
    nearest = next(path for path in (results, *results.parents) if path.exists())
    fault = None
    if not nearest.is_dir():
        fault = "is a file, not a folder"
    elif not os.access(nearest, os.W_OK | os.X_OK):
        fault = "writing is not permitted"
    if fault:
        raise UserError(fault, where=nearest, fix="set 'results' in the config to another folder")


def check_sample(config: RunConfig, sample: Sample | SliceStack, *, threads: int = 1) -> None:
    """Raise UserError where raw data, settings and memory do not fit, from headers alone."""
    stages = stages_of(sample, config)
    for stage in stages:
        module = stage_module(stage)
        if hasattr(module, "check"):
            module.check(Job(stage, config, sample, threads))
    for stage in stages:
        _check_memory(Job(stage, config, sample, threads))


def _check_memory(job: Job) -> MemoryBound:
    bound = job.bound()
    limit_gb = job.config.compute.memory_limit_gb
    if limit_gb is not None and bound.total_mb > limit_gb * 1000:
        raise UserError(
            f"stage {job.stage} of {job.sample.sample} may need {bound}, more than {limit_gb} GB",
            where="config: compute.memory_limit_gb",
            fix="use fewer workers or smaller storage.shard_zyx, or raise the limit",
        )
    return bound


def run_stage(
    stage: str, *, config: Mapping[str, Any], sample: str, threads: int, log_path: str
) -> None:
    """Run one stage of one sample and write its manifest last; the body of a workflow script."""
    run_logged(
        _run_stage, stage=stage, config=config, sample=sample, threads=threads, log_path=log_path
    )


def run_logged(work: Callable[..., None], *, log_path: str, **arguments: Any) -> None:
    """Call ``work(**arguments)`` with its log lines in ``log_path``.

    A fault of the user's ends in one line in the log and exit status 1, without a traceback;
    and so does a request to end, by Ctrl-C or SIGTERM, after workers and leases are given back.
    """
    _log_to(Path(log_path))
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        work(**arguments)
    except UserError as error:
        log.error("%s", error)
        sys.exit(1)
    except KeyboardInterrupt:
        log.error("ended on request: what is done is kept, run again to carry on")
        sys.exit(1)
    except Exception:
        log.exception("%s failed", arguments.get("stage", work.__name__))
        sys.exit(1)


def _run_stage(stage: str, config: Mapping[str, Any], sample: str, threads: int) -> None:
    run, samples = load_run(config)
    execute(Job(stage, run, next(s for s in samples if s.sample == sample), threads))


def execute(job: Job) -> Outcome:
    """Run the job's stage and write its manifest.

    Raises
    ------
    UserError
        Where the input, the configuration or the machine is at fault, or another process is at
        work on the same stage of the same sample.
    """
    started = time.monotonic()
    for before in job.inputs().values():
        check_stores(before, [before.stage])
    bound = _check_memory(job)
    log.info("%s of %s: memory bound %s", job.stage, job.sample.sample, bound)
    # The leases of stores end with each store; between them a rerun would take us for dead.
    with Lease(job.manifest_path(job.stage)):
        outcome: Outcome = stage_module(job.stage).run(job)
        write_json_atomic(
            job.manifest_path(job.stage),
            {
                "stage": job.stage,
                "sample": job.sample.sample,
                "version": __version__,
                "digest": job.digest(),
                "content": outcome.content,
                "summary": outcome.summary,
                "stores": list(outcome.stores),
            },
        )
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    log.info(
        "%s of %s: done in %.1f s, peak of the main process %.0f MB",
        job.stage,
        job.sample.sample,
        time.monotonic() - started,
        peak_mb,
    )
    return outcome


def _log_to(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    # stdout and stderr of a stage belong to its log; Snakemake's own lines stay readable.
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(message)s",
        handlers=[logging.FileHandler(path, mode="w"), logging.StreamHandler()],
        force=True,
    )
