"""Train, export, quantize, verify and run facial-expression networks on the edge.

The parts, from the data to the device::

    fertools.data          read, draw, inspect and convert labelled faces
    fertools.models        the networks, by name
    fertools.backend       the Keras backend and the device in use
    fertools.training      train a network into a run folder that can be resumed
    fertools.evaluation    accuracy and its companions, from probabilities and labels
    fertools.export        a run as ONNX and int8 files with their model card
    fertools.verification  Keras, ONNX and int8 side by side, with gates
    fertools.runtime       ``Predictor``: numpy and onnxruntime, nothing else
    fertools.faces         faces of photos and videos, cut out as the networks want them
    fertools.benchmark     milliseconds, start and memory of an export's files
    fertools.scoring       predictions for a whole data set, here or on a cluster
    fertools.serving       predictions over HTTP
    fertools.web           a page that predicts in the browser
    fertools.cli           the ``fertools`` command

Importing this package imports none of them.
"""

__version__ = "0.1.0"
