import os
import subprocess
import sys

import pytest

from fertools import backend
from fertools.backend import import_keras, select_device
from fertools.errors import ConfigError, MissingExtraError, ProviderError
from fertools.processor import processor


def test_device():
    device = select_device("cpu")
    assert device.backend == import_keras().backend.backend()
    assert (device.kind, device.name) == ("cpu", processor()[0])


@pytest.mark.parametrize(
    ("flags", "limits", "has_bfloat16"),
    [
        ("avx2 avx512_bf16", {}, True),
        ("avx2 avx512_bf16 intel", {}, False),  # slower there than float32
        ("avx2 avx512_bf16 amx_bf16 intel", {}, True),
        ("asimd bf16", {}, True),
        ("avx2 avx_vnni", {}, False),
        ("avx2 avx512_bf16", {"DNNL_MAX_CPU_ISA": "AVX2"}, False),
        ("avx2 avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "avx512_core_bf16"}, True),
        ("avx2 avx512_bf16", {"ONEDNN_MAX_CPU_ISA": "DEFAULT", "DNNL_MAX_CPU_ISA": "AVX2"}, True),
    ],
)
def test_bfloat16_where_the_processor_has_it_and_its_library_may_use_it(
    monkeypatch, flags, limits, has_bfloat16
):
    maker = "Intel Xeon" if "intel" in flags else "AMD EPYC"
    monkeypatch.setattr(backend, "processor", lambda: (maker, frozenset(flags.split())))
    for name in backend.ISA_LIMITS:
        monkeypatch.delenv(name, raising=False)
    for name, value in limits.items():
        monkeypatch.setenv(name, value)
    assert select_device("cpu").has_bfloat16 == has_bfloat16


def test_a_gpu_that_is_not_there(monkeypatch):
    name = import_keras().backend.backend()
    monkeypatch.setitem(backend.GPU_NAMES, name, lambda hide: None)
    with pytest.raises(
        ProviderError, match=f"device=gpu: the {name} backend sees no GPU here; use device=cpu"
    ):
        select_device("gpu")
    assert select_device("auto").kind == "cpu"


def test_a_gpu(monkeypatch):
    name = import_keras().backend.backend()
    monkeypatch.setitem(backend.GPU_NAMES, name, lambda hide: None if hide else "H100")
    for wanted, kind in (("auto", "gpu"), ("gpu", "gpu"), ("cpu", "cpu")):
        assert select_device(wanted).kind == kind


def test_another_backend(monkeypatch):
    monkeypatch.setattr(backend, "GPU_NAMES", {"jax": None})
    if import_keras().backend.backend() != "jax":
        with pytest.raises(ConfigError, match="set KERAS_BACKEND to jax"):
            select_device("auto")


def test_a_backend_without_training_is_refused_before_it_is_missed(monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    with pytest.raises(ConfigError, match="is torch: set KERAS_BACKEND to tensorflow or jax"):
        import_keras()


@pytest.mark.parametrize(
    ("raised", "expected", "message"),
    [
        (ModuleNotFoundError("No module", name="keras"), MissingExtraError, "^keras is not installed"),
        (
            ModuleNotFoundError("No module", name="tensorflow.x"),
            MissingExtraError,
            "^tensorflow is not installed",
        ),
        (ImportError("libfoo.so: cannot open"), ProviderError, "does not load: libfoo.so"),
        (ValueError("Unable to import backend : foo"), ConfigError, "set KERAS_BACKEND"),
    ],
)
def test_import_errors(monkeypatch, capfd, raised, expected, message):
    def broken(name):
        os.write(2, b"what went wrong\n")
        raise raised

    monkeypatch.setattr(backend, "import_module", broken)
    with pytest.raises(expected, match=message):
        import_keras()
    assert capfd.readouterr().err == "what went wrong\n"


def test_stderr_is_held_back_and_restored(monkeypatch, capfd):
    monkeypatch.setattr(backend, "import_module", lambda name: os.write(2, b"chatter\n"))
    import_keras()
    os.write(2, b"after\n")
    assert capfd.readouterr().err == "after\n"


def run(code, **options):
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, **options
    )


def test_start_up_is_silent_and_what_it_makes_is_not_collected():
    code = """
import gc
from fertools.backend import import_keras, select_device
keras = import_keras()
select_device("auto")
network = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1)])
network.compile("sgd", "mse")
network.fit(keras.ops.ones((4, 2)), keras.ops.ones((4, 1)), verbose=0)
print(gc.isenabled(), gc.get_freeze_count() > 100_000)
"""
    # tf2onnx sets it, too, where a test before this one exported.
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    result = run(code, env=environment)
    assert (result.returncode, result.stdout, result.stderr) == (0, "True True\n", "")


def test_without_stderr():
    code = """
import os
from fertools.backend import _quiet_stderr
os.close(2)
with _quiet_stderr():
    print(1)
"""
    assert run(code).stdout == "1\n"
