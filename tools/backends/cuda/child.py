"""The process that calls NVRTC: a crash of the compiler ends this one, and no other.

Reads one job on standard input, `{"sources": [[text, flags]], "architectures": [...]}`, and answers
with one outcome for each source and architecture, in this order.
"""

import base64
import json
import sys

from tools.backends.cuda.loader import CompileError, compile_cubin


def outcome(source: str, architecture: str, flags: list[str]) -> dict[str, str]:
    """Machine code and log, or what was wrong."""
    try:
        cubin, log = compile_cubin(source, architecture, tuple(flags))
    except (CompileError, RuntimeError) as refused:
        return {"error": str(refused)}
    return {"cubin": base64.b64encode(cubin).decode(), "log": log}


def main() -> None:
    """Answer the job on standard input."""
    job = json.load(sys.stdin)
    answers = [
        outcome(source, architecture, flags)
        for source, flags in job["sources"]
        for architecture in job["architectures"]
    ]
    sys.stdout.write(json.dumps({"answers": answers}))


if __name__ == "__main__":
    main()
