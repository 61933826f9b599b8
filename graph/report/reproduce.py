"""How to see the same again: the machine, the versions, the seeds, and what to type."""

import shlex

from graph.record import RunRecord
from graph.report.profiled import binary
from graph.report.words import clip


def machine(record: RunRecord) -> list[tuple[str, str]]:
    """Device and ceilings."""
    device, roof = record.device, record.roofline
    caches = ", ".join(f"{name.upper()} {binary(size)}" for name, size in device.caches.items())
    pages = {
        "machine": "as the machine comes",
        "huge": "huge pages for baselines and kernels alike",
    }
    return [
        ("Device", f"{device.title} ({device.architecture})"),
        ("Memory", f"{device.memory_gib:g} GiB" + (f"; {caches}" if caches else "")),
        ("Features", ", ".join(device.features) or "not known"),
        ("Pages", pages[record.task.pages]),
        ("Bandwidth", f"{roof.bandwidth_gbps:,.1f} GB/s"),
        *([("Past the caches", f"{roof.cold_gbps:,.1f} GB/s")] if roof.cold_gbps else []),
        ("Peak", f"{roof.peak_gflops:,.1f} GFLOP/s"),
        *([("Page fault", f"{roof.fault_us:.2f} µs")] if device.kind == "cpu" else []),
        ("Measured by", roof.measured),
    ]


def commands(record: RunRecord) -> list[tuple[str, str]]:
    """What to type."""
    folder = shlex.quote(record.run_dir)
    found = [("The whole run", f"python -m graph.run {folder}/task.yaml")]
    if record.usage.shares:
        found.append(("With the models' answers of then", f"python -m graph.replay {folder}"))
    if record.winner is not None:
        found.append(("The kernel's own test", f"python -m pytest {folder}/best/test_kernel.py"))
        reference = record.task.reference
        alone = reference is not None and not record.workloads
        against = shlex.quote(str(reference)) if alone else f"{folder}/task.yaml"
        found.append(
            ("The judge alone", f"python -m tools.judge {against} {folder}/best/kernel.py")
        )
    found.append(("This page", f"python -m graph.report {folder}"))
    return found


def origins(record: RunRecord) -> list[tuple[str, str]]:
    """Versions, commit, seeds and hashes: what has to be the same."""
    versions = dict(record.versions)
    commit = versions.pop("commit", "not known: it was not run from a checkout")
    task = record.task
    found = [
        ("Versions", ", ".join(f"{name} {version}" for name, version in versions.items())),
        ("Commit", commit),
        (
            "Seeds",
            f"{task.strategy}, seed {task.seed}. The judge draws the seeds of its inputs anew each "
            "time and tells nobody: verdicts come out alike, times within the noise.",
        ),
        ("Reference", f"sha256 {record.facts.digest}"),
    ]
    if task.without:
        found.append(("Without", f"{', '.join(task.without)}: switched off by the task"))
    if record.winner is not None:
        found.append(("Kernel", f"sha256 {record.trial(record.winner).candidate.digest}"))
    hashes = record.confirmation.hashes if record.confirmation else None
    if hashes is not None:
        found.append(("Judge", f"sha256 {hashes.judge}"))
    if task.model.named:
        found.append(("Models", clip(", ".join(task.model.named))))
    return found
