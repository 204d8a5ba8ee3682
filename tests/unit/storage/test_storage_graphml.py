"""GraphML as networkx reads it, whole or not at all."""

import networkx as nx
import numpy as np
import pytest

from vasculome.errors import UserError
from vasculome.storage.graphml import write_graphml
from vasculome.storage.shards import file_checksum


def _nodes(names):
    count = len(names)
    return {
        "node": np.array(names, np.int64),
        "X": np.linspace(0, 1, count, dtype=np.float32) / 3,
        "degree": np.arange(count, dtype=np.int32),
    }


def _edges(rows):
    names, source, target, length = (list(column) for column in zip(*rows, strict=True))
    return {
        "edge": np.array(names, np.int64),
        "source": np.array(source, np.int64),
        "target": np.array(target, np.int64),
        "length": np.array(length, np.float32),
    }


NODES = [_nodes([3, 2**40, 5]), _nodes([]), _nodes([9])]
EDGES = [_edges([(1, 3, 5, 0.1), (2, 3, 5, 2.5)]), _edges([(7, 9, 9, np.nan)])]


def test_networkx_reads_what_was_written(tmp_path):
    path = tmp_path / "new" / "vessels.graphml"
    checksum = write_graphml(path, nodes=iter(NODES), edges=iter(EDGES))
    assert checksum == file_checksum(path)
    graph = nx.read_graphml(path)
    assert isinstance(graph, nx.MultiGraph) and not graph.is_directed()
    assert list(graph) == ["n3", f"n{2**40}", "n5", "n9"]
    assert np.float32(graph.nodes["n5"]["X"]) == np.float32(1 / 3)
    assert [graph.nodes[name]["degree"] for name in graph] == [0, 1, 2, 0]
    lengths = [data["length"] for data in graph["n3"]["n5"].values()]
    assert np.array(lengths, np.float32).tolist() == np.array([0.1, 2.5], np.float32).tolist()
    (loop,) = graph["n9"]["n9"].values()
    assert "length" not in loop  # NaN stands for nothing known
    assert [path.name] == [file.name for file in path.parent.iterdir()]


def test_an_empty_graph_can_be_read(tmp_path):
    nothing = {key: values[:0] for key, values in EDGES[0].items()}
    write_graphml(tmp_path / "g.graphml", nodes=[_nodes([])], edges=[nothing])
    assert len(nx.read_graphml(tmp_path / "g.graphml")) == 0


def test_a_failure_leaves_what_was_there(tmp_path):
    path = tmp_path / "g.graphml"
    path.write_text("old")

    def parts():
        yield EDGES[0]
        raise RuntimeError("a part is damaged")

    with pytest.raises(RuntimeError, match="damaged"):
        write_graphml(path, nodes=NODES, edges=parts())
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="is a file"):
        write_graphml(tmp_path / "file" / "g.graphml", nodes=NODES, edges=EDGES)
