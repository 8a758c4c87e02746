"""An exported file says nothing of the machine that wrote it."""

import sys
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

import affect.engine
from affect.engine.export.onnx import strip_metadata
from affect.engine.package.builtin import ZOO
from affect.engine.package.graphs import METADATA_KEY

MACHINE = {str(path) for path in (sys.prefix, Path.cwd(), Path(affect.engine.__file__).resolve().parents[1], Path.home())}


def notes(graph):
    """Everything that is noted beside the nodes and values of a graph."""
    protos = [graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer]
    return [note for proto in protos for note in (*proto.metadata_props, proto.doc_string) if note]


@pytest.fixture(scope="module")
def files(package):
    return [*package.glob("*.onnx"), *package.parent.glob("*.onnx"), *ZOO.rglob("*.onnx")]


def test_no_path_of_this_machine_stands_in_an_exported_file(files):
    assert len(files) >= 3
    for file in files:
        data = file.read_bytes()
        assert not [place for place in MACHINE - {"/"} if place.encode() in data]
        assert b"stack_trace" not in data and b"site-packages" not in data and b'.py"' not in data


def test_only_the_manifest_is_noted_in_a_graph(files):
    for file in files:
        model = onnx.load(file)
        assert not notes(model.graph) and not model.functions
        assert [entry.key for entry in model.metadata_props] == [METADATA_KEY]


def test_graphs_within_nodes_are_stripped_too():
    inner = helper.make_graph([helper.make_node("Identity", ["x"], ["y"], doc_string="/home/x.py")], "inner", [], [])
    node = helper.make_node("If", ["c"], ["z"], then_branch=inner, else_branch=inner)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1], doc_string="/home/x.py")
    graph = helper.make_graph([node], "outer", [value], [], value_info=[value])
    before = [(node.op_type, list(node.input), list(node.output)) for node in graph.node]
    strip_metadata(graph)
    assert b"/home" not in graph.SerializeToString()
    assert [(node.op_type, list(node.input), list(node.output)) for node in graph.node] == before
