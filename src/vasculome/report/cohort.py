"""The table of all samples, as a file for statistics and as a page to read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vasculome import __version__
from vasculome.report.album import Album, write_figures
from vasculome.report.page import Section, Table, render_page
from vasculome.report.words import heading, words
from vasculome.storage.shards import write_bytes_atomic


def write_cohort_report(
    summaries: Sequence[Mapping[str, Any]],
    out_tsv: Path,
    out_html: Path,
    *,
    side_by_side: Sequence[tuple[Section, Album]] = (),
) -> None:
    """Write one row a sample: as TSV with all columns, and as a page with a table a modality.

    Pictures are also put under ``figures/`` beside the page.

    Parameters
    ----------
    summaries
        For each sample ``sample``, ``modality`` and its key numbers; keys are columns, and None
        or an absent key is an empty cell.
    side_by_side
        What is said and shown of samples of the same raw data.

    Raises
    ------
    UserError
        A file cannot be written.
    """
    columns = _columns(summaries)
    stream = io.StringIO()
    table = csv.DictWriter(stream, columns, delimiter="\t", lineterminator="\n", restval="")
    table.writeheader()
    table.writerows(summaries)
    write_bytes_atomic(out_tsv, stream.getvalue().encode())
    modalities = list(dict.fromkeys(str(s["modality"]) for s in summaries))
    sections = [
        _modality_section(modality, [s for s in summaries if s["modality"] == modality])
        for modality in modalities
    ]
    for section, album in side_by_side:
        sections.append(section)
        write_figures(album, out_html.parent / "figures")
    many = f"{len(summaries)} sample" + "s" * (len(summaries) != 1)
    page = render_page("Cohort", many, sections, f"Made by vasculome {__version__}.")
    write_bytes_atomic(out_html, page.encode())


def _columns(summaries: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(key for summary in summaries for key in summary))


def _modality_section(modality: str, summaries: Sequence[Mapping[str, Any]]) -> Section:
    columns = [column for column in _columns(summaries) if column != "modality"]
    rows = [[words(summary.get(column)) for column in columns] for summary in summaries]
    header = [heading(column) for column in columns]
    return Section(modality.capitalize(), tables=[Table(f"Key numbers, {modality}", header, rows)])
