"""Runs the programs over the sets; resumable, with a time limit per galaxy, one Parquet at the end.

Each program's answers are appended to a file of JSON lines as they come. A galaxy that takes too
long, or takes the process down, is a failed one, and the program goes on with the next.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
from environments import interpreter
from programs import Program

HERE = Path(__file__).resolve().parent
START_LIMIT = 300.0
"""Time that a program may take to be imported, and to compile for its first galaxy. [s]"""


def run(
    program: Program,
    work: Path,
    sets: dict[str, list[Path]],
    environments: Path,
    every: int = 1,
) -> None:
    """Fits what is left to fit of every set.

    Args:
        program: The program.
        work: Folder of the answers.
        sets: Files of galaxies, by set.
        environments: Folder of the environments.
        every: Every how many simulated galaxies are fitted, beside the program's own share.
    """
    for name, paths in sets.items():
        log = work / "answers" / name / f"{program.name}.jsonl"
        log.parent.mkdir(parents=True, exist_ok=True)
        done = {line["id"] for line in read(log) if "id" in line}
        if name == "real" and not program.real:
            continue
        wanted = paths if name == "real" else paths[:: program.share * every]
        left = [p for p in wanted if p.stem not in done]
        if not left:
            continue
        try:
            python = interpreter(program, environments)
        except RuntimeError as error:
            append(log, {"not_run": str(error)})
            print(f"{program.name} is not run: {error}", flush=True)
            return
        print(f"{program.name}: {len(left)} galaxies of {name}", flush=True)
        while left:
            left = fit_some(program, python, log, left)


def fit_some(program: Program, python: str, log: Path, paths: list[Path]) -> list[Path]:
    """Runs one process until it ends or hangs; returns the galaxies that are left."""
    packages = ",".join(p.partition("==")[0] for p in program.packages) or "deeplegato-pp"
    command = [python, str(HERE / "worker.py"), program.adapter, program.method or "-", packages]
    command += [str(p.resolve()) for p in paths]
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    threads["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    limit, why = START_LIMIT + program.limit, ""
    seen: set[str] = set()
    lines: queue.Queue[str] = queue.Queue()
    with (
        (log.parent / f"{program.name}.err").open("a") as errors,
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=os.environ | threads,
            cwd=log.parent,  # some write a log into the working directory
        ) as process,
    ):
        listener = threading.Thread(target=listen, args=(process.stdout, lines), daemon=True)
        listener.start()
        while True:
            try:
                text = lines.get(timeout=limit)
            except queue.Empty:
                why = f"took more than {limit:.0f} s"
                process.kill()
                break
            if not text:
                break
            line = json.loads(text)
            append(log, {"not_run": line["missing"]} | line if "missing" in line else line)
            if "missing" in line:
                return []
            if "id" in line:
                seen.add(line["id"])
                limit = program.limit
        process.wait()
        listener.join()
    left = [p for p in paths if p.stem not in seen]
    if left:
        why = why or f"the process ended with status {process.returncode}"
        append(log, {"id": left[0].stem, "failed": why})
        left = left[1:]
    return left


def listen(stream: IO[str], lines: queue.Queue[str]) -> None:
    """Hands on a process's lines; an empty one says that it has ended."""
    for line in stream:
        lines.put(line)
    lines.put("")


def read(log: Path) -> list[dict[str, Any]]:
    """Returns the whole lines of a log; a last one that was cut off is left out."""
    if not log.exists():
        return []
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(x) for x in lines if x.endswith("\n")]


def append(log: Path, line: dict[str, Any]) -> None:
    """Writes a line at the end, after what may have been cut off."""
    text = log.read_bytes() if log.exists() else b""
    with log.open("ab") as file:
        if text and not text.endswith(b"\n"):
            file.truncate(text.rfind(b"\n") + 1)
        file.write((json.dumps(line) + "\n").encode())


def collect(work: Path, programs: list[Program]) -> pa.Table:
    """Gathers every answer into one table, and writes it to ``answers.parquet``."""
    rows = []
    for folder in sorted((work / "answers").iterdir()):
        for program in programs:
            lines = read(folder / f"{program.name}.jsonl")
            versions = next((x["versions"] for x in lines if "versions" in x), {})
            text = ", ".join(f"{k} {v}" for k, v in versions.items())
            common = {"set": folder.name, "program": program.name, "versions": text}
            reasons = [x["not_run"] for x in lines if "not_run" in x]
            if reasons and not any("id" in x for x in lines):
                rows.append(common | {"id": "", "not_run": reasons[-1]})
            for line in lines:
                if "id" not in line:
                    continue
                cost = {k: line.get(k) for k in ("seconds", "cpu_seconds", "peak_mb", "first")}
                rows.append(
                    common
                    | {"id": line["id"], "failed": line.get("failed")}
                    | cost
                    | line.get("fit", {})
                )
    columns: dict[str, None] = {}
    for row in rows:
        columns |= dict.fromkeys(row)
    table = pa.table({c: [row.get(c) for row in rows] for c in columns})
    pq.write_table(table, work / "answers.parquet")
    return table
