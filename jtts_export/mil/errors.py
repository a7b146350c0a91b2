"""Errors of the interpreter; all are `MilError`."""


class MilError(Exception):
    """Any failure of the interpreter."""


class BadPackage(MilError):
    """The files of a package are damaged, cut short or lead outside the package; the message names the file."""


class BadInput(MilError, ValueError):
    """A run was given inputs, states or names that the function does not take."""


class BadIndex(MilError, IndexError):
    """A gather, scatter or slice leaves its tensor; Core ML calls the result undefined."""


class UnknownOp(MilError):
    """An op, a parameter of an op or a parameter's value has no definition here.

    `op_type` is MIL's name of the op, `value` the name of the value that it makes.
    """

    def __init__(self, op_type: str, value: str, detail: str = "") -> None:
        self.op_type = op_type
        self.value = value
        super().__init__(f"Unknown op {op_type!r}, which makes {value!r}" + (f": {detail}" if detail else ""))


class UnknownParameter(MilError):
    """Raised inside an op for a parameter value without a definition; a run turns it into `UnknownOp`."""


class Overflow(MilError):
    """A value declared fp16 left the range of fp16 (largest finite number 65504).

    `op_type` is MIL's name of the op, `value` the name of its output, `layer` the name of the weights of that
    op or, where it has none, of the nearest op with weights before it; None where there is none.
    """

    def __init__(self, op_type: str, value: str, layer: str | None, detail: str) -> None:
        self.op_type = op_type
        self.value = value
        self.layer = layer
        at = f" at layer {layer!r}" if layer else ""
        super().__init__(f"fp16 overflow in {op_type!r}, output {value!r}{at}: {detail}")
