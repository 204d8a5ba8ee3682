"""The page of all networks that were trained: how they learnt, how good, how costly."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vasculome import __version__
from vasculome.errors import UserError
from vasculome.report.album import Album, write_figures
from vasculome.report.page import Section, Table, render_page
from vasculome.report.training_charts import learning_curves
from vasculome.report.words import MISSING, flatten_keys, heading, number, words
from vasculome.storage.shards import write_bytes_atomic

_KINDS = {
    "stulm": "Deep-stULM",
    "bubble_net": "network that keeps every bubble",
    "site_finder": "network that finds the pixels with bubbles",
    "student": "light U-Net that segments vessels",
    "teacher": "Swin UNETR that segments vessels, with a codebook",
}
_SEGMENTERS = {"student", "teacher"}


def write_models_report(
    folder: Path,
    *,
    models: Mapping[str, Mapping[str, Any]],
    out: Path,
    folded: Sequence[str] = (),
) -> None:
    """Write the page, and the pictures under ``figures/``.

    Parameters
    ----------
    folder
        Where networks are: ``<name>/manifest.json`` and ``<name>/seed-<seed>/record.json``.
    models
        Settings of each network, by name.
    folded
        Entries that are trained in folds: ``<name>/folds.json``.
    out
        The HTML file; it appears complete or not at all.

    Raises
    ------
    UserError
        A file is missing or damaged, or cannot be written.
    """
    kept: dict[str, tuple[dict[str, Any], list[dict[str, Any]]]] = {}
    for name, settings in models.items():
        seeds = [folder / name / f"seed-{seed}/record.json" for seed in settings["seeds"]]
        kept[name] = _read(folder / name / "manifest.json"), [_read(path) for path in seeds]
    sections = [_overview(kept, models)]
    if folded:
        tested = {name: _read(folder / name / "folds.json") for name in folded}
        sections.append(_folds_section(tested))
    album = Album()
    for name, (manifest, records) in kept.items():
        album.add(
            f"{name}_learning",
            what="learning curves",
            needs=(),
            draw=lambda records=records: learning_curves(records),
            caption="Loss of the batches that were learnt from, and metrics on movies or patches "
            "of other vessels, which are not learnt from; a line a seed. Rings: the network that "
            "is kept, which has the best score.",
            alt=f"Learning curves of {name}",
            detailed=True,
        )
        picture = album.figures[f"{name}_learning"]
        tables = [
            _metrics_table(name, manifest, records),
            _cost_table(name, records),
            _settings_table(name, models[name]),
        ]
        sections.append(Section(name, _words(manifest, models[name]), [picture], tables))
    write_figures(album, folder / "figures")
    page = render_page("Networks", _count(kept), sections, f"Made by vasculome {__version__}.")
    write_bytes_atomic(out, page.encode())


def _read(path: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(
            f"cannot be read: {error}",
            where=path,
            fix="delete the manifest beside it and run `snakemake models` again",
        ) from None
    return content


def _count(kept: Mapping[str, Any]) -> str:
    return f"{len(kept)} network" + "s" * (len(kept) != 1)


def _words(manifest: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    seeds = settings["seeds"]
    shown = "rendered vessels" if settings["network"] in _SEGMENTERS else "simulated movies"
    shown = f"{shown} ({settings['scene']})"
    volumes = manifest["summary"].get("volumes")
    if volumes is not None:
        shown = _volumes_words(volumes, rendered=shown, part=settings["rendered"])
    text = f"{_sentence(_KINDS[settings['network']])}, trained on {shown}."
    if len(seeds) > 1:
        text += (
            f"\nKept are the weights of seed {manifest['summary']['chosen_seed']}, whose score is "
            "the best of all and so a little too good: the mean over seeds is what to expect."
        )
    return text


def _volumes_words(volumes: Mapping[str, Any], *, rendered: str, part: float) -> str:
    """Return what was learnt from where there is a sheet of volumes, and what was held out."""
    given = [
        f"{_volumes_count(len(volumes[role]))} {what}"
        for role, what in (("labelled", "with labels"), ("unlabelled", "without labels"))
        if volumes[role]
    ]
    if not volumes["labelled"]:
        given.append(f"{rendered}, which alone have labels and are validated on")
    elif part:
        given.append(f"{rendered}, {100 * part:g} % of the patches")
    text = f"{' and '.join(given)}; volumes are those of {volumes['sheet']}"
    if volumes["held_out"]:
        names = ", ".join(row["image"] for row in volumes["held_out"])
        text += f".\nHeld out and validated on: {names}"
    return text


def _volumes_count(count: int) -> str:
    return f"{count} volume" + "s" * (count != 1)


def _sentence(text: str) -> str:
    """Return a text as sentences begin; names keep their capitals."""
    return text[:1].upper() + text[1:]


def _overview(kept: Mapping[str, Any], models: Mapping[str, Mapping[str, Any]]) -> Section:
    rows = []
    for name, (manifest, records) in kept.items():
        score = manifest["summary"]["metrics_over_seeds"]["score"]
        rows.append(
            (
                name,
                models[name]["network"],
                number(int(records[0]["parameters"])),
                number(int(records[0]["steps"])),
                _with_spread(score),
                number(len(records)),
                _megabytes(max(record["peak_bytes"] for record in records)),
            )
        )
    header = ("name", "network", "parameters", "steps", "score", "seeds", "peak memory (MB)")
    return Section(
        "Overview",
        "The score is the Jaccard index of bubbles found within a quarter of a wavelength "
        "(bubble_net), the Dice index of the angiogram of all validation movies (stulm) or of "
        "those pixels (site_finder), or the mean Dice index of validation patches at the best "
        "threshold (student, teacher): networks of different kinds cannot be compared by it.",
        tables=[Table("All networks: mean and standard deviation over seeds", header, rows)],
    )


def _folds_section(tested: Mapping[str, Mapping[str, Any]]) -> Section:
    """Return the metrics over folds, and those of each fold."""
    metrics = list(next(iter(tested.values()))["metrics_over_folds"])
    over = [
        (name, *(_with_spread(content["metrics_over_folds"][metric]) for metric in metrics))
        for name, content in tested.items()
    ]
    each = [
        (
            fold["model"],
            number(len(fold["volumes"])),
            *(_number(v) for v in fold["metrics"].values()),
        )
        for content in tested.values()
        for fold in content["folds"]
    ]
    names = [heading(metric) for metric in metrics]
    return Section(
        "Cross-validation",
        "Each network is asked about the whole volumes that its fold holds out. Their patches "
        "chose its best step and its threshold, so that the metrics are a little too good; dice at "
        "half takes the threshold ½ instead.",
        tables=[
            Table("Mean and standard deviation over folds", ("name", *names), over),
            Table("Each fold: the mean over its volumes", ("network", "volumes", *names), each),
        ],
    )


def _metrics_table(
    name: str, manifest: Mapping[str, Any], records: Sequence[Mapping[str, Any]]
) -> Table:
    over_seeds = manifest["summary"]["metrics_over_seeds"]
    rows = [
        (
            heading(metric),
            _number(values["mean"]),
            _number(values["sd"]),
            *(_number(record["metrics"][metric]) for record in records),
        )
        for metric, values in over_seeds.items()
    ]
    seeds = [f"seed {record['seed']}" for record in records]
    header = ("metric", "mean", "standard deviation", *seeds)
    return Table(f"Validation of {name}, at the step that scored best", header, rows)


def _cost_table(name: str, records: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for record in records:
        seconds = record["curves"]["seconds"][-1]
        rows.append(
            (
                f"seed {record['seed']}",
                record["device"],
                number(int(record["best_step"])),
                number(round(float(seconds), 1)),
                number(record["steps"] / max(seconds, 0.01)),
                _megabytes(record["peak_bytes"]),
            )
        )
    header = ("seed", "device", "best step", "time (s)", "steps a second", "peak memory (MB)")
    caption = (
        f"Time and memory of {name}; memory is the most that learning took on top of what the "
        "process had before"
    )
    return Table(caption, header, rows)


def _settings_table(name: str, settings: Mapping[str, Any]) -> Table:
    rows = [(key, words(value)) for key, value in flatten_keys(settings).items()]
    return Table(f"Settings of {name}", ("key", "value"), rows)


def _with_spread(values: Mapping[str, Any]) -> str:
    if values["sd"] is None:
        return _number(values["mean"])
    return f"{_number(values['mean'])} ± {values['sd']:.2g}"


def _number(value: float | None) -> str:
    return MISSING if value is None else number(float(value))


def _megabytes(count: float) -> str:
    return number(round(count / 1e6))
