"""Share one predictor among threads: python examples/share_among_threads.py [EXPORT_FOLDER].

Two workers on one single-threaded session do more images per second than one worker on two threads.
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from fertools.data import synthetic
from fertools.runtime import Predictor


def main(model: str | None = None) -> None:
    """Predict drawn faces from two threads and count the labels."""
    faces = synthetic.generate(train=1, validation=1, test=64).split("test").images
    predictor = Predictor(model, threads=1)
    with ThreadPoolExecutor(2) as pool:
        predictions = list(pool.map(predictor.predict, faces))
    labels = [prediction.label for prediction in predictions]
    for label in predictor.labels:
        print(f"{label:<10}{labels.count(label):>4}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
