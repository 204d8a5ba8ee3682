"""Graphs in GraphML, which networkx, igraph, Gephi and VesselVio open."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vasculome.storage.shards import appearing, file_checksum
from vasculome.storage.tables import Columns

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n<graphml xmlns="{}">\n'.format(
    "http://graphml.graphdrawing.org/xmlns"
)


def write_graphml(path: Path, *, nodes: Iterable[Columns], edges: Iterable[Columns]) -> str:
    """Write an undirected graph atomically, part by part, and return the file's checksum.

    Parameters
    ----------
    path
        The file.
    nodes
        One part or more, all with the same columns: ``node``, a whole number that names it, and
        others, numbers that become its attributes. NaN is left out.
    edges
        The same with ``edge``, and ``source`` and ``target``, which are names of nodes.

    Raises
    ------
    UserError, OSError
        As `vasculome.storage.shards.write_bytes_atomic`.
    """
    with appearing(path) as file:
        file.writelines(line.encode() for line in _lines(iter(nodes), iter(edges)))
    return file_checksum(path)


def _lines(nodes: Iterator[Columns], edges: Iterator[Columns]) -> Iterator[str]:
    yield _HEAD
    first_nodes, first_edges = next(nodes), next(edges)
    yield from _keys("node", first_nodes, ("node",))
    yield from _keys("edge", first_edges, ("edge", "source", "target"))
    yield '<graph id="vessels" edgedefault="undirected">\n'
    for part in itertools.chain([first_nodes], nodes):
        rows = _attributes("node", part, ("node",))
        for name, data in zip(part["node"].tolist(), rows, strict=True):
            yield f'<node id="n{name}">{data}</node>\n'
    for part in itertools.chain([first_edges], edges):
        rows = _attributes("edge", part, ("edge", "source", "target"))
        named = zip(*(part[key].tolist() for key in ("edge", "source", "target")), strict=True)
        for (name, source, target), data in zip(named, rows, strict=True):
            yield f'<edge id="e{name}" source="n{source}" target="n{target}">{data}</edge>\n'
    yield "</graph>\n</graphml>\n"


def _keys(kind: str, part: Columns, names: tuple[str, ...]) -> Iterator[str]:
    for column, values in part.items():
        if column not in names:
            form = "double" if np.issubdtype(values.dtype, np.floating) else "long"
            yield (
                f'<key id="{kind}_{column}" for="{kind}" '
                f'attr.name="{column}" attr.type="{form}"/>\n'
            )


def _attributes(kind: str, part: Columns, names: tuple[str, ...]) -> Iterator[str]:
    """Yield the attributes of each row."""
    columns = {column: values for column, values in part.items() if column not in names}
    texts = [
        [_datum(f"{kind}_{column}", value) for value in _numbers(values)]
        for column, values in columns.items()
    ]
    return ("".join(row) for row in zip(*texts, strict=True))


def _numbers(values: npt.NDArray[Any]) -> list[int] | list[float]:
    numbers: list[int] | list[float] = values.tolist()
    return numbers


def _datum(key: str, value: int | float) -> str:
    if isinstance(value, int):
        return f'<data key="{key}">{value}</data>'
    # Nine digits tell every float32 from all others.
    return "" if math.isnan(value) else f'<data key="{key}">{value:.9g}</data>'
