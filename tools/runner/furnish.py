"""Have torch.compile fill an empty cache with what every compilation on this machine needs.

Run in a jail, in the folder that is to be filled; see `tools.judge.inductor`.
"""

import os
import shutil
from pathlib import Path

import torch
from torch._inductor.runtime.cache_dir_utils import default_cache_dir

ENVIRONMENT = "KERNELWRIGHT_INDUCTOR"
PROBES, HEADERS = "probes", "headers"
HEADERS_INSIDE = "precompiled_headers"


def main() -> None:
    """Compile one trivial op, and leave what it brought about."""
    torch.compile(lambda x: x + 1)(torch.ones(4096))
    probes, headers = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]), Path(default_cache_dir())
    for graphs in ("fxgraph", "aotautograd"):
        shutil.rmtree(probes / graphs, ignore_errors=True)
    probes.rename(PROBES)
    (headers / HEADERS_INSIDE).rename(HEADERS)
    shutil.rmtree(headers, ignore_errors=True)


def furnish(made: Path) -> None:
    """Put it into this process's own cache; what is missing there torch.compile makes itself."""
    probes, headers = Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]), Path(default_cache_dir())
    shutil.copytree(made / PROBES, probes, dirs_exist_ok=True)
    place = headers / HEADERS_INSIDE
    place.mkdir(parents=True, exist_ok=True)
    for header in (made / HEADERS).glob("*.h*"):
        (place / header.name).symlink_to(header)


if __name__ == "__main__":
    main()
