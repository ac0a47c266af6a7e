"""The contract test, what the plugin is for, and bad input."""

from __future__ import annotations

import pytest
from seqgen.domain import DomainInfo
from seqgen.errors import InputError
from seqgen.plugins import Plugins
from seqgen.testing import check_domain

from seqgen_myplugin import domain


@pytest.fixture
def info() -> DomainInfo:
    return Plugins().info("myplugin")


def test_contract(info: DomainInfo) -> None:
    report = check_domain("myplugin")
    assert set(report.decoders) == set(info.decoders)
    assert report.metrics is not None


def test_reads_the_examples_with_every_decoder(info: DomainInfo) -> None:
    for decoder in info.decoders:
        report = check_domain("myplugin", decoders=[decoder])
        assert all(len(row["date"]) == 10 for row in report.rows)
    assert report.metrics is not None
    assert report.metrics["accuracy"] == 1.0


def test_a_file_without_dates_is_an_error(tmp_path: object) -> None:
    with pytest.raises(InputError, match="cannot read"):
        list(domain.MyPluginDomain().load(f"{tmp_path}/missing.txt", domain.Options()))


def test_a_line_that_is_no_date_fails_alone() -> None:
    with pytest.raises(InputError, match="characters"):
        list(domain.MyPluginDomain().split(domain.Date("x:1", "x" * 100), domain.Options()))
