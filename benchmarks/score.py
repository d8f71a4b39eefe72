"""Measure the images per second of fertools score on this machine, and its memory.

    python benchmarks/score.py --rows 100000
    python benchmarks/score.py --rows 2000000 --ways local --rounds 1

The rows are 5,000 different drawn faces, repeated, as raw pixels in a Parquet file with row groups of 4,096.
Each way is one process, or Ray actors, on one thread each: ``plain`` reads the file and runs the network in
batches of 64, and writes nothing; ``local`` and ``ray-1``, ``ray-2``, ... are fertools score with that many
actors. A rate is measured after the first fifth of the parts, so that it does not include the start of a
process; ``start`` is the time until the first part is written. Memory is this process's resident memory at
the end of a part: the maximum over the first tenth of the parts, and over all. The ways take turns; the best
round of each is printed.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from fertools.data import synthetic
from fertools.processor import processor
from fertools.runtime import Predictor
from fertools.runtime.threads import usable_cpus
from fertools.scoring import Scoring, score

FACES = 5000
GROUP = 4096
BATCH = 64


@dataclass(frozen=True)
class Result:
    """Results of one way; memory in MiB."""

    way: str
    rows: int
    start: float
    rate: float
    memory_early: float
    memory: float


def write_rows(path: Path, rows: int) -> None:
    faces = [image.tobytes() for image in synthetic.generate(FACES, 0, 0).images]
    schema = pa.schema([("face", pa.binary(48 * 48))])
    with pq.ParquetWriter(path, schema, compression="none", use_dictionary=False) as file:
        for start in range(0, rows, GROUP):
            group = [faces[row % FACES] for row in range(start, min(start + GROUP, rows))]
            file.write_table(pa.table({"face": pa.array(group, pa.binary(48 * 48))}))


def resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


class Watch:
    """Notes time, rows and memory part by part."""

    def __init__(self) -> None:
        self.begin = perf_counter()
        self.parts: list[tuple[float, int, float]] = []

    def __call__(self, there: int, parts: int, rows: int) -> None:
        """Note the state after a part."""
        if rows:
            self.parts.append((perf_counter() - self.begin, rows, resident()))

    def result(self, way: str) -> Result:
        """Return the results."""
        (begin, first, _), (end, rows, _) = self.parts[len(self.parts) // 5], self.parts[-1]
        memory = [size for _, _, size in self.parts]
        early = max(memory[: max(2, len(memory) // 10)])
        return Result(way, rows, self.parts[0][0], (rows - first) / (end - begin), early, max(memory))


def plain(path: Path, model: str) -> Result:
    watch, rows = Watch(), 0
    predictor = Predictor(model, threads=1)
    with pq.ParquetFile(path, pre_buffer=False) as file:
        for batch in file.iter_batches(GROUP):
            faces = np.frombuffer(batch.column(0).buffers()[1], np.uint8)
            faces = faces[: len(batch) * 48 * 48].reshape(-1, 48, 48)
            for start in range(0, len(faces), BATCH):
                predictor.probabilities(faces[start : start + BATCH])
            rows += len(faces)
            watch(0, 0, rows)
    return watch.result("plain")


def fertools(path: Path, model: str, way: str, out: Path) -> Result:
    engine, _, actors = way.partition("-")
    how = Scoring(model, engine=engine, threads=1, actors=int(actors) if actors else None)
    watch = Watch()
    summary = score(str(path), out, how, progress=watch)
    assert summary.errors == 0
    return watch.result(way)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--model", default="compact")
    parser.add_argument("--ways", nargs="+", default=["plain", "local", "ray-1", "ray-2"])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rounds: list[list[Result]] = []
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "faces.parquet"
        write_rows(path, arguments.rows)
        for number in range(arguments.rounds):
            rounds.append([])
            for way in arguments.ways:
                out, model = Path(name, f"{way}-{number}"), arguments.model
                one = plain(path, model) if way == "plain" else fertools(path, model, way, out)
                rounds[-1].append(one)
                print(f"round {number + 1}, {way}: {one.rate:,.0f} images/s", file=sys.stderr)
    results = [max(each, key=lambda one: one.rate) for each in zip(*rounds, strict=True)]
    for one in results:
        print(
            f"{one.way:8} {one.rows:9,} rows  start {one.start:5.1f} s  {one.rate:7,.0f} images/s"
            f"  {one.memory_early:5.0f} MiB early, {one.memory:5.0f} MiB at most"
        )
    document = {
        "model": arguments.model,
        "processor": processor()[0],
        "cpus": usable_cpus(),
        "results": [asdict(result) for result in results],
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    print(f"{arguments.model}, {document['processor']}, {document['cpus']} processors", file=sys.stderr)


if __name__ == "__main__":
    main()
