"""Compare reading fer2013.csv with fertools and the usual way: time, peak memory, equal arrays.

    python benchmarks/read_csv.py fer2013.csv

The usual way is ``pandas.read_csv``, then ``str.split`` and ``int`` on every row. Both run in turns, each
time in a new process. A source of another format (an .npz, a folder of images) is first written
as CSV to a temporary folder. Needs the extra ``train``, for pandas.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from fertools import data
from fertools.data import Dataset


def read_fertools(path: str) -> Dataset:
    return data.read(path)


def read_pandas(path: str) -> Dataset:
    import pandas

    table = pandas.read_csv(path)
    rows = [np.array([int(value) for value in text.split()], dtype=np.uint8) for text in table["pixels"]]
    images = np.stack(rows).reshape(-1, 48, 48)
    labels = table["emotion"].to_numpy().astype(np.uint8)
    usage = table["Usage"].map({"Training": 0, "PublicTest": 1, "PrivateTest": 2}).to_numpy().astype(np.uint8)
    return Dataset(Path(path).name, images, labels, usage)


READERS = {"fertools": read_fertools, "pandas": read_pandas}


def measure(reader: str, path: str) -> None:
    """Read once and print JSON: seconds, processor seconds, peak memory in MiB, the fingerprint."""
    if reader == "pandas":
        import pandas  # noqa: F401  the import is not part of the time
    start, cpu_start = time.perf_counter(), time.process_time()
    dataset = READERS[reader](path)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu_start
    # In KiB on Linux, in bytes on macOS. Taken before the fingerprint.
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
    print(json.dumps({"seconds": seconds, "cpu": cpu, "peak": peak, "fingerprint": dataset.fingerprint}))


def compare(path: str, rounds: int) -> None:
    """Measure the readers in turns and print the medians and their ratio."""
    runs: dict[str, list[dict[str, float]]] = {reader: [] for reader in READERS}
    for turn in range(rounds):
        for reader in READERS:
            command = [sys.executable, __file__, path, "--reader", reader]
            run = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            runs[reader].append(run)
            print(
                f"round {turn + 1}  {reader:<9} {run['seconds']:6.2f} s  "
                f"(processor {run['cpu']:6.2f} s)  peak {run['peak']:5.0f} MiB"
            )
    assert len({run["fingerprint"] for turns in runs.values() for run in turns}) == 1, "the arrays differ"
    print("equal arrays: yes")
    for key, name in (("seconds", "seconds"), ("cpu", "processor seconds")):
        mine, usual = (median(run[key] for run in runs[reader]) for reader in ("fertools", "pandas"))
        print(f"median {name}: fertools {mine:.2f}, pandas {usual:.2f}, ratio {usual / mine:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", help="fer2013.csv, or another source to write as CSV first")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--reader", choices=READERS, help="measure only this one, in this process")
    options = parser.parse_args()
    if options.reader:
        measure(options.reader, options.source)
    elif options.source.lower().endswith(".csv"):
        compare(options.source, options.rounds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            path = str(Path(folder) / "fer2013.csv")
            data.write(data.read(options.source), path)
            compare(path, options.rounds)


if __name__ == "__main__":
    main()
