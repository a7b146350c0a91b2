"""An ONNX file to be damaged: its weights and nodes, changed in place, written over the file and no other."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from jtts_export.runtime.names import data_file

RUNNING = "<running>"  # among the inputs of a Step: what the step before it made

Step = tuple[str, Sequence["str | np.ndarray | np.generic"], Mapping[str, Any]]  # operator, inputs, attributes


class GraphFile:
    """A graph without what lies in a file beside it; of that, single weights are read and patched."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.proto = onnx.load(path, load_external_data=False)
        self.graph = self.proto.graph
        self._tensors = {tensor.name: tensor for tensor in self.graph.initializer}
        self._patches: dict[int, bytes] = {}  # offset in the data file -> bytes

    def pick(self, *patterns: str) -> str:
        """The largest weight whose name matches the first pattern that any matches. Raises LookupError."""
        for pattern in patterns:
            found = [t for name, t in self._tensors.items() if fnmatchcase(name, pattern)]
            if found:
                return max(found, key=lambda t: int(np.prod(t.dims))).name
        raise LookupError(f"{self.path.name} has no weight like {' or '.join(patterns)}")

    def matching(self, pattern: str) -> list[str]:
        """Every weight of such a name, in the order of the file."""
        return [name for name in self._tensors if fnmatchcase(name, pattern)]

    def array(self, name: str) -> np.ndarray:
        """A copy of a weight."""
        tensor = self._tensors[name]
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor).copy()
        offset, size = self._place(tensor)
        data = self._patches.get(offset)
        if data is None:
            with data_file(self.path).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
        return np.frombuffer(data, dtype).reshape(tuple(tensor.dims)).copy()

    def set(self, name: str, array: np.ndarray) -> None:
        """Another content of the same type and shape."""
        tensor, old = self._tensors[name], self.array(name)
        assert (array.dtype, array.shape) == (old.dtype, old.shape), name
        assert array.tobytes() != old.tobytes(), f"{name} would stay as it is"
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            self._patches[self._place(tensor)[0]] = array.tobytes()
        else:
            tensor.CopyFrom(numpy_helper.from_array(array, name))

    def nodes(self, op: str, pattern: str = "*") -> list[onnx.NodeProto]:
        """Nodes of an operator and of such a name."""
        return [n for n in self.graph.node if n.op_type == op and fnmatchcase(n.name, pattern)]

    def users(self, tensor: str) -> list[onnx.NodeProto]:
        return [n for n in self.graph.node if tensor in n.input]

    def splice(self, tensor: str, *steps: Step, users: Callable[[onnx.NodeProto], bool] = lambda _: True) -> None:
        """Put nodes between a tensor and those that use it. An inner tensor's name goes to the last step's output, so
        that taps and outputs are what the steps make; an input of the graph keeps it."""
        is_input = any(value.name == tensor for value in self.graph.input)
        at = 0 if is_input else 1 + next(i for i, n in enumerate(self.graph.node) if tensor in n.output)
        running = tensor if is_input else f"{tensor}/whole"
        last = f"{tensor}/planted" if is_input else tensor
        for node in self.graph.node:
            if is_input and users(node):
                node.input[:] = [last if name == tensor else name for name in node.input]
            node.output[:] = [running if name == tensor and not is_input else name for name in node.output]
        made = []
        for i, (op, inputs, attributes) in enumerate(steps):
            out = last if i == len(steps) - 1 else f"{tensor}/planted/{i}"
            names = [self._input(value, running, f"{tensor}/planted/{i}/{j}") for j, value in enumerate(inputs)]
            made.append(helper.make_node(op, names, [out], name=f"{out}/node", **attributes))
            running = out
        nodes = list(self.graph.node)
        del self.graph.node[:]
        self.graph.node.extend([*nodes[:at], *made, *nodes[at:]])

    def set_attribute(self, node: onnx.NodeProto, name: str, value: float | int) -> None:
        """A number, whether or not the node says it already."""
        kept = [a for a in node.attribute if a.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    def redirect(self, user: onnx.NodeProto, old: str, new: str) -> None:
        """Let a node take another tensor."""
        assert old in user.input
        user.input[:] = [new if name == old else name for name in user.input]

    def constant(self, name: str, array: np.ndarray | np.generic) -> str:
        """Add one. Returns its name, which must be free."""
        assert name not in self._tensors, name
        self.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
        self._tensors[name] = self.graph.initializer[-1]
        return name

    def save(self) -> None:
        """Over the file. One that others are linked to stays as it is for them."""
        if self._patches:
            data = data_file(self.path)
            work = data.with_name(f"{data.name}.tmp")
            shutil.copyfile(data, work)
            with work.open("r+b") as file:
                for offset, content in self._patches.items():
                    file.seek(offset)
                    file.write(content)
            work.replace(data)
        rewrite(self.path, self.proto.SerializeToString(deterministic=True))

    def _input(self, value: str | np.ndarray | np.generic, running: str, name: str) -> str:
        if isinstance(value, str):
            return running if value == RUNNING else value
        return self.constant(name, value)

    @staticmethod
    def _place(tensor: onnx.TensorProto) -> tuple[int, int]:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        return int(entries["offset"]), int(entries["length"])


@contextmanager
def damaging(path: Path) -> Iterator[GraphFile]:
    """A graph that is written when the block ends."""
    graph = GraphFile(path)
    yield graph
    graph.save()


def rewrite(path: Path, content: bytes) -> None:
    """Replace a file that may be hard-linked: the other names keep the old content."""
    work = path.with_name(f"{path.name}.tmp")
    work.write_bytes(content)
    work.replace(path)
