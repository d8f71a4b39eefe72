import dataclasses
import json
import shutil
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import tiny_training
from tiny_training import Stop, comparable, config, create, dataset

from fertools.backend import import_keras
from fertools.data import Dataset, synthetic
from fertools.errors import ConfigError, DataError, MissingExtraError, ModelError, RunError
from fertools.evaluation import evaluate
from fertools.models.inference import probabilities, weights_sha256
from fertools.training import DistillConfig, Run
from fertools.training.optimizer import is_over, plateau_rate

keras = import_keras()

from fertools.training import callbacks, trainer  # noqa: E402
from fertools.training import versions as training_versions  # noqa: E402
from fertools.training.augmentation import augmented  # noqa: E402
from fertools.training.config import AUGMENTATIONS  # noqa: E402
from fertools.training.network import estimate_statistics  # noqa: E402
from fertools.training.trainer import train, versions  # noqa: E402

#: Configurations, and when in epoch 2 their processes are killed.
KILLED = {"sequential": "middle", "adam": "commit"}


@pytest.fixture(autouse=True)
def undrawn(monkeypatch):
    """No picture of the history: to draw it takes as long as to train."""
    monkeypatch.setattr(trainer, "history_figure", lambda history, path: path.touch())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that went straight through."""
    return train(create(tmp_path_factory.mktemp("run")), dataset())


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """Runs whose processes were killed, side by side."""
    root = tmp_path_factory.mktemp("killed")
    processes = []
    for name, when in KILLED.items():
        command = [sys.executable, tiny_training.__file__, root / name, name, when]
        processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    for process in processes:
        _, output = process.communicate(timeout=200)
        assert process.returncode == -9, output
    return {name: Run.open(root / name) for name in KILLED}


def weights(run):
    return keras.saving.load_model(run.best).get_weights()


def assert_same(one, other):
    assert comparable(one) == comparable(other)
    for left, right in zip(weights(one), weights(other), strict=True):
        np.testing.assert_array_equal(left, right)
    for metrics in (first := one.metrics), (second := other.metrics):
        metrics.pop("seconds")
    assert first == second


@pytest.mark.slow
@pytest.mark.parametrize("name", KILLED)
def test_a_killed_run_ends_as_if_it_had_not_been(killed, name, tmp_path):
    run = killed[name]
    assert [row.epoch for row in run.history()] == [1]
    assert run.state(2).exists() == (KILLED[name] == "commit")
    straight = train(create(tmp_path / "straight", config(name)), dataset())
    assert_same(train(run, dataset()), straight)
    state = run.state(len(run.history())).name
    left = {"config.json", "run.json", "history.csv", state, "best.keras", "history.png", "metrics.json"}
    assert {path.name for path in run.path.iterdir()} == left


def test_plateau_and_early_stopping(tmp_path):
    settings = config("adam", epochs=8, early_stopping=5)
    run = train(create(tmp_path / "run", settings), dataset())
    history = run.history()
    expected = [plateau_rate(settings, history[:done]) for done in range(len(history))]
    assert [row.learning_rate for row in history] == pytest.approx(expected)
    assert expected[-1] < expected[0]
    assert is_over(settings, history)
    assert not any(is_over(settings, history[:done]) for done in range(len(history)))


@pytest.mark.parametrize("epoch", [2, 4])
def test_interrupted_after_any_epoch(finished, tmp_path, epoch):
    run = create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, dataset(), observer=Stop(epoch))
    assert not run.finished
    keras.utils.set_random_seed(99)
    assert_same(train(Run.open(run.path), dataset()), finished)


def test_interrupted_where_early_stopping_ended_it(tmp_path):
    straight = train(create(tmp_path / "straight", config("adam", epochs=12)), dataset())
    run = create(tmp_path / "run", config("adam", epochs=12))
    with pytest.raises(KeyboardInterrupt):
        train(run, dataset(), observer=Stop(len(straight.history())))
    assert_same(train(run, dataset()), straight)


def test_seed_decides(finished, tmp_path):
    other = train(create(tmp_path / "run", config(seed=1)), dataset())
    assert comparable(other)[0].loss != comparable(finished)[0].loss


def test_saved_network(finished):
    network = keras.saving.load_model(finished.best, safe_mode=True)
    assert {variable.dtype for variable in network.weights} == {"float32"}
    assert {layer.compute_dtype for layer in network.layers} == {"float32"}
    assert not network.compiled
    assert "optimizer" not in " ".join(zipfile.ZipFile(finished.best).namelist())
    assert keras.models.model_from_json(network.to_json()).to_json() == network.to_json()


def test_metrics_are_those_of_the_saved_network(finished):
    validation = dataset().split("validation")
    measured = evaluate(
        probabilities(keras.saving.load_model(finished.best), validation.images), validation.labels
    )
    assert finished.metrics["validation"]["accuracy"] == measured.accuracy
    best = finished.history()[finished.metrics["best_epoch"] - 1]
    assert best.val_accuracy == measured.accuracy
    assert best.val_loss == pytest.approx(measured.log_loss, abs=1e-6)
    assert finished.metrics["epochs"] == 4


def test_saved_weights_are_averages(tmp_path):
    options = {"epochs": 5, "schedule": "constant", "learning_rate": 0.05}
    raw, averaged = (
        train(create(tmp_path / str(ema), config(ema=ema, **options)), dataset()) for ema in (0.0, 0.9)
    )
    # The steps are the same, what is measured and saved is not.
    losses = [[row.loss for row in run.history()] for run in (raw, averaged)]
    assert losses[0] == losses[1]
    assert raw.history()[-1].val_loss != averaged.history()[-1].val_loss
    assert np.abs(weights(raw)[0] - weights(averaged)[0]).max() > 1e-4


def test_label_smoothing_changes_the_training_loss_alone(tmp_path):
    losses = {}
    for value in (0.0, 0.5):
        settings = config(epochs=1, label_smoothing=value, learning_rate=1e-6)
        row = train(create(tmp_path / str(value), settings), dataset()).history()[0]
        losses[value] = row.loss, row.val_loss
    assert losses[0.0][0] != losses[0.5][0]
    assert losses[0.0][1] == pytest.approx(losses[0.5][1], rel=1e-3)


def test_a_loss_that_is_no_number(tmp_path):
    run = create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, dataset(), observer=Stop(1))

    with np.load(run.state(1)) as file:
        arrays = {name: np.full_like(a, np.nan) if a.shape == (3, 3, 1, 4) else a for name, a in file.items()}
    np.savez(run.state(1), **arrays)
    with pytest.raises(RunError, match=r"the loss is NaN or infinite in epoch 2; train again with a lower"):
        train(run, dataset())
    assert [row.epoch for row in run.history()] == [1]


def test_a_finished_run_is_not_resumed(finished):
    before = comparable(finished)
    with pytest.raises(RunError, match="this run is finished; nothing to resume"):
        train(finished, dataset())
    assert comparable(finished) == before


def test_other_data_are_refused(tmp_path):
    run = create(tmp_path / "run")
    with pytest.raises(RunError, match="made with other data than synthetic; give --data the same source"):
        train(run, dataset(seed=1))


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 broken"])
def test_a_damaged_state(tmp_path, content):
    run = create(tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(run, dataset(), observer=Stop(1))
    run.state(1).unlink()
    if content is not None:
        run.state(1).write_bytes(content)
    with pytest.raises(RunError, match=r"last-0001\.npz: missing or damaged"):
        train(run, dataset())


@pytest.mark.parametrize("name", ["train", "validation"])
def test_a_split_is_missing(tmp_path, name):
    whole = dataset()
    usage = np.where(whole.usage == ("train", "validation").index(name), 2, whole.usage).astype(np.uint8)
    with pytest.raises(DataError, match=f"no {name} images"):
        create(tmp_path / "run", source=Dataset("half", whole.images, whole.labels, usage))
    assert not (tmp_path / "run").exists()


def test_facts(finished):
    facts = finished.facts
    assert facts["data"] == {
        "source": "synthetic",
        "name": "synthetic",
        "fingerprint": dataset().fingerprint,
        "images": {"train": 70, "validation": 35, "test": 14},
        "notes": [],
    }
    assert facts["device"]["backend"] == keras.backend.backend()
    assert facts["precision"] in ("float32", "mixed_bfloat16")
    assert facts["versions"]["keras"] == keras.__version__


def test_versions():
    assert versions("numpy")["numpy"] == np.__version__
    assert {"python", "fertools", "keras", "numpy"} <= versions().keys()


def test_training_starts_from_given_weights(finished, tmp_path):
    still = config(learning_rate=1e-9, ema=0.0, weight_decay=0.0)
    run = train(create(tmp_path / "run", still, weights=finished.best), dataset())
    kernels = [[array for array in weights(r) if array.ndim > 1] for r in (run, finished)]
    for ours, given in zip(*kernels, strict=True):
        np.testing.assert_allclose(ours, given, atol=1e-5)
    assert run.facts["weights"]["name"] == f"{finished.path.name}/best.keras"
    assert run.facts["weights"]["sha256"] == weights_sha256(keras.saving.load_model(finished.best))


def test_weights_of_another_network_are_refused(finished, tmp_path):
    with pytest.raises(ModelError, match="is not a sequential network"):
        create(tmp_path / "run", config("sequential"), weights=finished.best)
    assert not (tmp_path / "run").exists()


def test_mixup_is_resumed_like_the_rest(tmp_path):
    settings = config(mixup=0.4)
    straight = train(create(tmp_path / "straight", settings), dataset())
    run = create(tmp_path / "run", settings)
    with pytest.raises(KeyboardInterrupt):
        train(run, dataset(), observer=Stop(2))
    assert_same(train(run, dataset()), straight)


def test_averaged_weights_get_statistics_of_their_own(tmp_path):
    run = train(create(tmp_path / "run", config(ema=0.99)), dataset())
    network = keras.saving.load_model(run.best)
    order = np.random.default_rng(run.config.seed).permutation(70)
    before = [np.array(array) for array in network.get_weights()]
    estimate_statistics(network, dataset().split("train").images[order])
    for ours, again in zip(before, network.get_weights(), strict=True):
        np.testing.assert_allclose(ours, again, atol=1e-5)


@pytest.mark.parametrize(("versions", "augmentation"), [(0, "none"), (2, "flip")])
def test_a_student_comes_closer_to_its_teachers(finished, tmp_path, versions, augmentation):
    """Labels that are all wrong do not keep it from learning what the teachers say."""
    right = dataset()
    wrong = Dataset("wrong", right.images, (right.labels + 1) % 7, right.usage)
    settings = config(epochs=12, augmentation=augmentation, class_balance="none", learning_rate=0.1)
    distances = {}
    for share in (0.0, 0.99):
        distillation = DistillConfig(label_share=share, versions=versions)
        options = {"distillation": distillation, "teachers": [finished.path]}
        run = create(tmp_path / str(share), settings, wrong, other_data=True, **options)
        train(run, wrong)
        images = right.split("train").images
        student, teacher = (probabilities(keras.saving.load_model(r.best), images) for r in (run, finished))
        distances[share] = (teacher * np.log(teacher / student)).sum(axis=1).mean()
    assert distances[0.0] < distances[0.99] / 2


def test_distillation_is_resumed_without_the_teachers_folder(finished, tmp_path):
    other = train(create(tmp_path / "other", config(seed=5)), dataset())
    options = {"distillation": DistillConfig(temperature=2.0), "teachers": [finished.path, other.best]}
    straight = train(create(tmp_path / "straight", **options), dataset())
    run = create(tmp_path / "run", **options)
    assert [teacher["name"] for teacher in run.facts["distillation"]["teachers"]] == [
        finished.path.name,
        "other/best.keras",
    ]
    with pytest.raises(KeyboardInterrupt):
        train(run, dataset(), observer=Stop(2))
    shutil.rmtree(other.path)
    assert_same(train(run, dataset()), straight)


def test_teachers_answer_each_version_once(finished, tmp_path, monkeypatch):
    """The same whether the run was interrupted or not, and whether the answers survived."""
    asked = []
    monkeypatch.setattr(
        training_versions, "probabilities", lambda *args: asked.append(args[1]) or probabilities(*args)
    )
    options = {"distillation": DistillConfig(versions=2), "teachers": [finished.path]}
    settings = config(augmentation="strong")  # 4 epochs
    straight = train(create(tmp_path / "straight", settings, **options), dataset())
    assert len(asked) == 2 * 2  # each version and its mirror image
    first, mirror, second, _ = asked
    np.testing.assert_array_equal(mirror, first[:, :, ::-1])
    assert (first != second).any(axis=(1, 2)).all()
    run = create(tmp_path / "run", settings, **options)
    with pytest.raises(KeyboardInterrupt):
        train(run, dataset(), observer=Stop(2))
    run.answers(0).write_bytes(b"damaged")
    run.answers(1).write_bytes(b"")
    assert_same(train(run, dataset()), straight)
    assert len(asked) == 2 * 2 * 2 + 2 * 2
    assert "--versions 2" in run.facts["commands"][-1]


def test_seeds_share_the_answers_of_the_same_teachers(finished, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(
        training_versions, "probabilities", lambda *args: asked.append(args[1]) or probabilities(*args)
    )

    def learn(seed, teachers):
        options = {"distillation": DistillConfig(versions=2), "teachers": teachers}
        settings = config(augmentation="strong", epochs=2, seed=seed)
        return train(create(tmp_path / f"seed-{seed}", settings, **options), dataset())

    one, other = (learn(seed, [finished.path]) for seed in (0, 1))
    assert len(asked) == 2 * 2
    assert one.answers(1) == other.answers(1)
    assert [row.loss for row in one.history()] != [row.loss for row in other.history()]
    learn(2, [finished.path, one.best])
    assert len(asked) == 2 * 2 + 2 * 2 * 2


def test_versions_are_not_blended(finished, tmp_path):
    options = {"distillation": DistillConfig(versions=2), "teachers": [finished.path]}
    with pytest.raises(ConfigError, match=r"mixup=0\.2: not with versions"):
        create(tmp_path / "run", config(mixup=0.2), **options)


def test_several_steps_a_call_change_nothing(finished, tmp_path, monkeypatch):
    run = create(tmp_path / "run")
    facts = run.facts
    facts["device"]["kind"] = "gpu"
    (run.path / "run.json").write_text(json.dumps(facts))
    monkeypatch.setattr(trainer, "GPU_STEPS_PER_CALL", 3)  # an epoch has 4 steps
    clock = Steps()
    train(run, dataset(), observer=clock)
    assert clock.steps == [3, 4] * 4
    assert_same(run, finished)


class Steps:
    """An observer that notes the steps it is told of."""

    def __init__(self):
        self.steps = []

    def step(self, epoch, step, loss):
        self.steps.append(step)

    def epoch(self, row, best):
        pass


@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_a_step_is_traced_once(tmp_path, monkeypatch, name):
    """Twice would cost a large network, or a short training, seconds at its start."""
    traced, step = [], keras.Model.train_step
    monkeypatch.setattr(
        keras.Model, "train_step", lambda model, data: traced.append(data) or step(model, data)
    )
    train(create(tmp_path / "run", config(name, epochs=2)), dataset())
    assert len(traced) == 1


def test_an_epoch_does_not_wait_for_a_thread_of_the_last(tmp_path, monkeypatch):
    """TensorFlow's pipeline would, if it tuned itself: its thread sleeps for seconds, and more each time."""
    given, fit = [], keras.Model.fit
    monkeypatch.setattr(
        keras.Model, "fit", lambda model, data, **rest: given.append(data) or fit(model, data, **rest)
    )
    train(create(tmp_path / "run", config(epochs=1)), dataset())
    assert given[0].options().autotune.enabled is False


def test_the_student_alone_sees_through_the_camera(finished, tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        trainer, "soft_targets", lambda teachers, images: seen.append(images) or teachers[0](images)
    )
    options = {"distillation": DistillConfig(), "teachers": [finished.path]}
    run = train(create(tmp_path / "run", config(epochs=1, camera=0.7), **options), dataset())
    assert run.finished
    assert seen[0]._keras_history.operation.name == "augmented_input"
    assert "--camera 0.7" in run.facts["commands"][-1]


def test_the_best_epoch_is_that_of_images_through_the_camera_too(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(
        trainer, "EpochEnd", lambda *args: seen.append(args[3:6]) or callbacks.EpochEnd(*args)
    )
    settings = config(epochs=3, camera=0.7, augmentation="strong")
    run = train(create(tmp_path / "run", settings), dataset())
    (statistics, validation, degraded), train_split = seen[0], dataset().split("train")
    # The statistics come from images as in training: augmented, and the camera's share of them degraded.
    sample = np.random.default_rng(settings.seed).permutation(len(train_split))
    moved = augmented(train_split.images[sample], AUGMENTATIONS["strong"], settings.seed)
    assert 0.4 < (statistics != moved).any(axis=(1, 2)).mean() < 0.8
    np.testing.assert_array_equal(validation.images, dataset().split("validation").images)
    assert (degraded != validation.images).any(axis=(1, 2)).mean() > 0.7
    # The figures are told apart, and their mean decides.
    history = run.history()
    assert all(row.score == (row.val_accuracy + row.val_degraded_accuracy) / 2 for row in history)
    best = max(history, key=lambda row: row.score)
    assert run.metrics["best_epoch"] == best.epoch
    assert run.metrics["validation"]["accuracy"] == pytest.approx(best.val_accuracy)


def test_augmentation_and_camera_draw_numbers_of_their_own(monkeypatch):
    seeds = []
    for name in ("AugmentedInput", "Camera"):
        made = getattr(trainer, name)
        monkeypatch.setattr(trainer, name, lambda *args, made=made: seeds.append(args[-1]) or made(*args))
    trainer.spoilt(config(camera=0.5), np.zeros((4, 48, 48), np.uint8), augmented=True)
    assert len(set(seeds)) == 2


def test_start_share_keeps_some_of_the_weights(finished, tmp_path):
    start = keras.saving.load_model(finished.best)
    results = {}
    for share in (0.0, 0.5):
        settings = config(epochs=1, ema=0.0, start_share=share)
        run = train(create(tmp_path / f"run-{share}", settings, weights=finished.best), dataset())
        results[share] = keras.saving.load_model(run.best).get_layer("dense").get_weights()
    for before, after, mixed in zip(start.get_layer("dense").get_weights(), *results.values(), strict=True):
        assert (before != after).any()
        np.testing.assert_allclose(mixed, (before + after) / 2, atol=1e-6)


def test_start_share_wants_weights(tmp_path):
    with pytest.raises(ConfigError, match=r"start_share=0.5: only with weights"):
        create(tmp_path / "run", config(start_share=0.5))


def test_teachers_that_cannot_teach(finished, tmp_path):
    stranger = keras.Sequential([keras.layers.Input((48, 48, 1)), keras.layers.Flatten()], name="stranger")
    stranger.save(tmp_path / "stranger.keras")
    unfinished = create(tmp_path / "unfinished")
    for teacher, kind, message in (
        (tmp_path / "nothing", ModelError, "nothing: no such file; a teacher is a run"),
        (tmp_path / "stranger.keras", ModelError, "not a network of fertools"),
        (unfinished.path, RunError, "has no finished epoch yet; resume it first"),
    ):
        with pytest.raises(kind, match=message):
            create(tmp_path / "run", distillation=DistillConfig(), teachers=[teacher])
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "options",
    [{"temperature": 0.0}, {"label_share": -0.1}, {"label_share": 1.0}, {"versions": 1.5}, {"versions": "2"}],
)
def test_bad_distillation_options(options):
    with pytest.raises(ConfigError, match=f"{next(iter(options))}="):
        DistillConfig(**options)


def test_tensorboard_logs_on_request(tmp_path):
    pytest.importorskip("tensorboard", reason="needs the extra tensorboard")
    run = train(create(tmp_path / "run"), dataset(), tensorboard=True)
    assert [*(run.path / "tensorboard").rglob("events.out.tfevents.*")]


def test_the_last_state_stays(finished):
    assert finished.state(finished.metrics["epochs"]).is_file()


def test_tensorboard_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match="tensorboard is not installed"):
        train(create(tmp_path / "run"), dataset(), tensorboard=True)


@pytest.mark.parametrize(
    ("wanted", "has_bfloat16", "resolved"),
    [
        ("auto", True, "mixed_bfloat16"),
        ("auto", False, "float32"),
        ("mixed_bfloat16", False, "mixed_bfloat16"),
    ],
)
def test_precision(wanted, has_bfloat16, resolved):
    from fertools.backend import Device
    from fertools.training.trainer import resolve_precision

    device = Device("tensorflow", "cpu", "any", has_bfloat16)
    assert resolve_precision(dataclasses.replace(config(), precision=wanted), device) == resolved


def test_dtype_policy_is_left_as_it_was(finished):
    assert keras.config.dtype_policy().name == "float32"


def test_what_was_made_from_other_data_is_refused(finished, tmp_path):
    """Its training images may be test images here. Where that is meant, the run says so."""
    other = dataset(seed=9)
    teaching = {"distillation": DistillConfig(), "teachers": [finished.path]}
    for given in ({"weights": finished.best}, teaching):
        with pytest.raises(RunError, match=r"was trained on other data .* --other-data"):
            create(tmp_path / "run", source=other, **given)
        assert not (tmp_path / "run").exists()
    run = create(tmp_path / "run", source=other, weights=finished.best, other_data=True)
    assert (
        run.facts["data"]["notes"][-1]
        == f"{finished.path.name}/best.keras was trained on other data, synthetic"
    )


def test_other_data_further_back_is_refused_too(finished, tmp_path):
    """A student has the run's own data, and yet its teacher has seen another's."""
    own, far = dataset(seed=9), dataset(seed=10)
    first = create(tmp_path / "first", source=own, weights=finished.best, other_data=True)
    shutil.copy(finished.best, first.best)
    with pytest.raises(RunError, match=r"learned from a network of other data \(synthetic\)"):
        create(tmp_path / "second", source=own, weights=first.best)
    second = create(tmp_path / "second", source=own, weights=first.best, other_data=True)
    assert second.facts["other_data"] == first.facts["other_data"]
    assert [data["fingerprint"] for data in first.facts["other_data"]] == [dataset().fingerprint]
    assert " --other-data " in second.facts["commands"][-1]
    third = create(tmp_path / "third", source=far, weights=first.best, other_data=True)
    fingerprints = {data["fingerprint"] for data in third.facts["other_data"]}
    assert fingerprints == {own.fingerprint, dataset().fingerprint}


def test_weights_of_unknown_origin_are_told(finished, tmp_path):
    copied = tmp_path / "copied.keras"
    copied.write_bytes(finished.best.read_bytes())
    run = create(tmp_path / "run", weights=copied)
    assert run.facts["data"]["notes"] == ["the training data of copied.keras is unknown"]
    shutil.copy(finished.best, run.best)
    student = create(tmp_path / "student", distillation=DistillConfig(), teachers=[run.path])
    assert student.facts["data"]["notes"] == run.facts["data"]["notes"]


def test_data_without_a_test_split_is_refused_at_once(tmp_path):
    """Nothing that was trained on it could be exported."""
    with pytest.raises(DataError, match="no test images"):
        create(tmp_path / "run", source=synthetic.generate(28, 14, 0))
    assert not (tmp_path / "run").exists()
