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
    fertools.cli           the ``fertools`` command

Importing this package imports none of them.
"""

__version__ = "0.1.0"
