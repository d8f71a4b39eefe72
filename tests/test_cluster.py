"""What is promised of Ray, without Ray."""

import sys

import pytest

from fertools.cluster import connected
from fertools.errors import MissingExtraError


def test_ray_is_told_to_send_nothing_before_it_is_imported(monkeypatch):
    environment = {}
    monkeypatch.setattr("fertools.cluster.os.environ", environment)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError), connected():
        pass
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
