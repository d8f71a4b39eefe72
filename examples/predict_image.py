"""Predict the expression of one face image: python examples/predict_image.py FACE.png [EXPORT_FOLDER]."""

import sys

from fertools.runtime import FertoolsError, Predictor


def main(image: str, model: str | None = None) -> None:
    """Print the three best labels, the model, its provider and its threads."""
    predictor = Predictor(model)
    prediction = predictor.predict(image)
    for label, probability in prediction.top(3):
        print(f"{label:<10}{probability:.1%}")
    info = predictor.info
    print(f"{info.name}, {info.precision}, {predictor.provider}, {predictor.threads} threads")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:3])
    except FertoolsError as error:
        sys.exit(str(error))
