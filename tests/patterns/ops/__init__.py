"""Small ops of many kinds in the field's convention: Model's class body and inputs, as text."""

from tests.patterns.ops.forms import FORMS
from tests.patterns.ops.layers import LAYERS
from tests.patterns.ops.reductions import REDUCTIONS

OPS: dict[str, tuple[str, str]] = {**LAYERS, **REDUCTIONS, **FORMS}
