import numpy as np
import pytest

from fertools import data
from fertools.errors import DataError

HEADER = "emotion,pixels,Usage\n"
ROW = " ".join(["7"] * 2304)


def test_icml_columns_and_quotes(save):
    text = f'emotion, Usage, pixels\r\n3,PrivateTest,"{ROW}"\r\n\r\n0,Training,{ROW}\r\n1,PublicTest,{ROW}'
    dataset = data.read(save("icml_face_data.csv", text))
    assert dataset.labels.tolist() == [3, 0, 1]
    assert dataset.usage.tolist() == [2, 0, 1]
    assert (dataset.images == 7).all()


def test_byte_order_mark_other_columns_and_odd_spacing(save):
    pixels = ROW.replace("7 7", "007  0007\t1", 1).removesuffix(" 7")
    dataset = data.read(save("a.csv", f"\ufeffid,Emotion,PIXELS,usage\n1,3,{pixels},training\n"))
    assert dataset.labels.tolist() == [3]
    assert dataset.images.ravel()[:4].tolist() == [7, 7, 1, 7]


def test_without_usage_a_test_split_is_drawn(save):
    rows = "".join(f"{(2, 5)[number % 2]},{number}{ROW[1:]}\n" for number in range(20))
    path = save("train.csv", "emotion,pixels\n" + rows)
    dataset = data.read(path, seed=1)
    assert np.bincount(dataset.usage).tolist() == [16, 0, 4]
    assert np.bincount(dataset.split("test").labels, minlength=6).tolist() == [0, 0, 2, 0, 0, 2]
    assert dataset.notes == ("test: 4 of 20 images drawn, stratified, seed 1",)
    assert dataset.fingerprint == data.read(path, seed=1).fingerprint != data.read(path, seed=2).fingerprint


def changed(old, new, count=1):
    return f"{HEADER}0,{ROW},Training\n0,{ROW.replace(old, new, count)},Training\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first row must name the columns"),
        (f"0,{ROW},Training\n", "first row must name the columns"),
        ("pixels,Usage\n", "first row must name the columns"),
        (HEADER, "holds no images"),
        (HEADER + f"0,{ROW},Training\n1,{ROW[:400]}", "row 2 has 2 fields"),
        (HEADER + f"0,{ROW[:400]},Training", "row 1 has 200 pixels, not 2304"),
        (HEADER + f"0,{ROW} 7,Training", "row 1 has 2305 pixels"),
        (HEADER + "0,,Training", "row 1 has 0 pixels"),
        (changed("7", "256"), "row 2 has a pixel '256'"),
        (changed("7", "299"), "row 2 has a pixel '299'"),
        (changed("7", "300"), "row 2 has a pixel '300'"),
        (changed("7", "512"), "row 2 has a pixel '512'"),
        (changed("7", "65543"), "row 2 has a pixel '65543'"),
        (changed("7", "18446744073709551623"), "row 2 has a pixel '18446744073709551623'"),
        (changed("7", "9" * 5000), "row 2 has a pixel '9999"),
        (changed("7", "-7"), "row 2 has a pixel '-7'"),
        (changed("7", "-"), "row 2 has a pixel '-'"),
        (changed("7", "7.5"), r"row 2 has a pixel '7\.5'"),
        (changed("7", "nan"), "row 2 has a pixel 'nan'"),
        (changed("7", "٧"), "row 2 has a pixel"),
        (changed("7", "7\0"), "row 2 has a pixel"),
        (HEADER + f"7,{ROW},Training", "row 1 emotion is '7', not a digit 0..6"),
        (HEADER + f"happy,{ROW},Training", "row 1 emotion is 'happy'"),
        (f"emotion,pixels,Usage,usage\n0,{ROW},Training,PublicTest\n", "2 columns are called usage"),
        (HEADER + f"0,{ROW},Testing", "row 1 Usage is 'testing', not one of Training, PublicTest"),
    ],
)
def test_what_is_wrong_is_named(text, message, save):
    path = save("bad.csv", text)
    with pytest.raises(DataError, match=message) as caught:
        data.read(path)
    assert str(path) in str(caught.value)


def test_labels_may_be_written_as_decimals(save):
    read = data.read(save("decimals.csv", f"{HEADER}3.0,{ROW},Training\n6.0,{ROW},Training\n"))
    assert read.labels.tolist() == [3, 6]
