"""An interpreter for Core ML packages (.mlpackage, mlprogram) that runs without Apple's frameworks.

It reads what is on disk, not what a converter holds in memory, and computes it with torch. An op, a parameter or
a value that it has no definition for is an error (`UnknownOp`), never a guess. See docs/mil.md.
"""

from jtts_export.mil.errors import BadIndex, BadInput, BadPackage, MilError, Overflow, UnknownOp
from jtts_export.mil.function import Function, Mode, State
from jtts_export.mil.ops import supported_ops
from jtts_export.mil.package import Metadata, Package, load
from jtts_export.mil.types import DimRange, TensorType

__all__ = [
    "BadIndex",
    "BadInput",
    "BadPackage",
    "DimRange",
    "Function",
    "Metadata",
    "MilError",
    "Mode",
    "Overflow",
    "Package",
    "State",
    "TensorType",
    "UnknownOp",
    "load",
    "supported_ops",
]
