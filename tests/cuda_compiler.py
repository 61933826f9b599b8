"""Whether CUDA C++ can be compiled here, found out by compiling: headers alone don't do it."""

import pytest

from tools.backends.cuda.loader import CompileError, compile_cubin


def _what_is_missing() -> str:
    """What the compiler said of a source that needs its headers; empty if it took it."""
    try:
        compile_cubin("#include <cuda_fp16.h>\n", "sm_90")
    except CompileError as missing:
        return str(missing).splitlines()[0]
    return ""


_MISSING = _what_is_missing()
needs_nvrtc = pytest.mark.skipif(
    bool(_MISSING), reason=f"pip install -c constraints.txt -e '.[dev,cuda]'; {_MISSING}"
)
