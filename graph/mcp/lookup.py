"""The tools and resources that only look: the library, devices, pages, and the reports of runs."""

from pathlib import Path
from typing import Annotated, Literal

import anyio
from mcp.server.mcpserver.exceptions import ResourceNotFoundError
from pydantic import Field

from graph.mcp.hall import Hall
from graph.mcp.replies import DeviceReply, PageReply, Pages, own_pages
from knowledge.device import present_gpu, resolve

PageKind = Literal["", "hardware", "language", "pattern", "profile", "repair", "document"]
Language = Literal["", "cpp", "cuda", "triton", "python"]
Narrowed = Literal["", "memory", "compute", "latency", "pages"]

# What of a run's folder may be read, by the name that a resource has for it.
FILES = {
    "report": "report.html",
    "record": "report.json",
    "events": "events.jsonl",
    "kernel": "best/kernel.py",
    "test": "best/test_kernel.py",
}


class Lookups:
    """The tools and resources, for one server."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    async def search_knowledge(  # noqa: PLR0913 - a tool's parameters are its schema
        self,
        query: Annotated[
            str,
            Field(
                min_length=1,
                max_length=800,
                description="symptoms, operators, an error message, in words",
            ),
        ],
        count: Annotated[int, Field(ge=1, le=20, description="how many passages")] = 5,
        kind: Annotated[PageKind, Field(description="pages of one kind alone")] = "",
        device: Annotated[str, Field(description="cpu, cuda, or a device's name")] = "",
        language: Annotated[Language, Field(description="what the kernel is written in")] = "",
        op: Annotated[str, Field(description="an operator, such as softmax")] = "",
        bottleneck: Annotated[Narrowed, Field(description="what bounds the kernel")] = "",
    ) -> Pages:
        """Search hardware notes, optimization patterns, repairs, and your own indexed documents.

        Ask as you would ask a performance engineer: "softmax faults a page for every 4 KiB of
        output", "bank conflicts in shared memory on H200". Empty arguments narrow nothing. A
        passage's `uri` is a resource with its whole page.
        """
        found = await anyio.to_thread.run_sync(
            lambda: self._hall.search(
                query,
                count,
                kind=kind or None,
                device=device or None,
                language=language or None,
                op=op or None,
                bottleneck=bottleneck or None,
            )
        )
        return Pages(passages=tuple(PageReply.of(one) for one in found))

    def device(
        self,
        name: Annotated[
            str, Field(description="auto, cpu, cuda, or a device's name, e.g. h200-sxm")
        ] = "auto",
    ) -> DeviceReply:
        """Say what is known of a device: cores, caches, vector width, and peaks with their source.

        `auto` is this machine's GPU where it has one, else its CPU. An unknown name is answered
        with the known ones.
        """
        gpu = present_gpu()
        wanted = name.strip() or "auto"
        if wanted.lower() == "auto":
            wanted = "cuda" if gpu is not None else "cpu"
        found = resolve(wanted, "device")
        return DeviceReply.of(found, present=found.kind == "cpu" or found == gpu)

    def list_pages(self) -> str:
        """The library's own pages, a URI a line."""
        return "\n".join(f"kernelwright://pages/{name}" for name in own_pages())

    def page(self, name: str) -> str:
        """One page of the library, as it is written."""
        # Looked up in the list of pages, and never joined to a path: no name leads out of it.
        path = own_pages().get(name)
        if path is None:
            raise ResourceNotFoundError(
                f"there is no page {name[:80]!r}; kernelwright://pages lists them"
            )
        return path.read_text(encoding="utf-8")

    def list_runs(self) -> str:
        """The runs of this server's folder, newest first: id, and what of each can be read."""
        lines = [
            f"{run.name}: {', '.join(f'kernelwright://runs/{run.name}/{file}' for file in files)}"
            for run in sorted(self._hall.runs.glob("*"), key=lambda one: one.name, reverse=True)
            if (run / "task.yaml").is_file()
            and (files := [name for name, path in FILES.items() if (run / path).is_file()])
        ]
        return "\n".join(lines) or "There is no run yet."

    def run_file(self, run: str, file: str) -> str:
        """A run's report, record (as JSON), events, kernel, or the kernel's test."""
        return self._run_file(run, file).read_text(encoding="utf-8")

    def report(self, run: str) -> str:
        """A run's report: one HTML page that needs nothing else."""
        return self._run_file(run, "report").read_text(encoding="utf-8")

    def _run_file(self, run: str, file: str) -> Path:
        folder, name = self._hall.run_path(run), FILES.get(file)
        if folder is None:
            raise ResourceNotFoundError(
                f"there is no run {run[:80]!r}; kernelwright://runs lists them"
            )
        if name is None or not (folder / name).is_file():
            raise ResourceNotFoundError(f"run {run} has no {file[:40]!r}; try {', '.join(FILES)}")
        return folder / name
