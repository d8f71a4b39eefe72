"""From a picture or a video to faces in the framing that the networks were trained on.

::

    from fertools.faces import FaceFinder
    from fertools.runtime import Predictor

    finder, predictor = FaceFinder(), Predictor()
    for face in finder.find("party.jpg"):
        print(face.box, predictor.predict(face.crop).label)

Needs the extra ``faces`` (OpenCV 4), which is imported when the first ``FaceFinder`` is made.
"""

from fertools.faces.detectors import Detection
from fertools.faces.drawing import draw
from fertools.faces.finder import Face, FaceFinder
from fertools.faces.tracking import TrackedFace, Tracker
from fertools.faces.video import Video

__all__ = ["Detection", "Face", "FaceFinder", "TrackedFace", "Tracker", "Video", "draw"]
