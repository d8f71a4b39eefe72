"""How fast the files of an export are here: latency, throughput, start and memory, side by side."""

from fertools.benchmark.measure import benchmark
from fertools.benchmark.report import Benchmark, FileFacts, Speed, benchmark_figure

__all__ = ["Benchmark", "FileFacts", "Speed", "benchmark", "benchmark_figure"]
