"""The URLs of an engine that is elsewhere: what is said of each, and how they are balanced."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_gateway.config.loader import ConfigError, ConfigLoader
from trio_gateway.config.schema import EngineOptions
from trio_gateway.config.site_schema import Balance, SiteOptions

A, B = "https://a/v1", "https://b/v1"


def load(tmp_path: Path, keys: str, variant: str = "") -> EngineOptions:
    path = tmp_path / "gateway.lua"
    path.write_text(
        f'server = {{}} models = {{ {{ name = "m", engine = presets.engines.remote, {keys}, '
        f"variants = {{ {{ context = 1, {variant} }} }} }} }}"
    )
    return ConfigLoader(path).load().models[0].variants[0].options


def mistake(tmp_path: Path, keys: str, variant: str = "") -> str:
    """The only one, without the model."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, keys, variant)
    (line,) = caught.value.mistakes
    assert isinstance(line, str)
    return line.removeprefix(f'{tmp_path}/gateway.lua: models[1] "m".')


def test_a_url_is_a_text_or_a_table(tmp_path: Path) -> None:
    options = load(tmp_path, f'urls = {{ "{A}/", {{ url = "{B}", weight = 2 }} }}')
    assert options.urls == (A, B)
    assert options.sites == (SiteOptions(url=A), SiteOptions(url=B, weight=2.0))
    for alone in (f'"{A}"', f'{{ url = "{A}" }}', f'{{ {{ url = "{A}" }} }}'):
        assert load(tmp_path, f"urls = {alone}").sites == (SiteOptions(url=A),)


@pytest.mark.parametrize(
    ("keys", "variant", "balance", "spreads"),
    [
        (f'urls = {{ "{A}", "{B}" }}', "", None, False),
        (f'urls = {{ "{A}", {{ url = "{B}", weight = 1 }} }}', "", None, True),
        (f'urls = {{ "{A}", "{B}" }}, balance = "least_loaded"', "", Balance.LEAST_LOADED, True),
        (f'urls = {{ "{A}", "{B}" }}, balance = "in_order"', "", Balance.IN_ORDER, False),
        (f'urls = "{A}", balance = "least_loaded"', f'urls = "{B}"', Balance.LEAST_LOADED, True),
        (f'urls = {{ {{ url = "{A}", weight = 2 }} }}', f'urls = "{B}"', None, False),
    ],
)
def test_requests_are_spread_where_it_is_said_or_a_url_has_a_weight(
    tmp_path: Path, keys: str, variant: str, balance: Balance | None, spreads: bool
) -> None:
    options = load(tmp_path, keys, variant)
    assert (options.balance, options.spreads) == (balance, spreads)


@pytest.mark.parametrize(
    ("urls", "where", "what"),
    [
        ('{ url = "https://u:p@h" }', ".url", "expected a base URL such as"),
        ("{ weight = 2 }", ".url", "missing; expected a base URL such as"),
        (f'{{ url = "{A}", weight = 0 }}', ".weight", "got 0; to send it nothing, remove the URL"),
        (f'{{ url = "{A}", weight = -1 }}', ".weight", "expected a positive number, such as 2"),
        (f'{{ url = "{A}", weight = "2" }}', ".weight", 'got "2"'),
        (f'{{ url = "{A}", weight = 1001 }}', ".weight", "(up to 1000)"),
        (f'{{ url = "{A}", wieght = 2 }}', ".wieght", 'unknown key; did you mean "weight"?'),
        (f'{{ url = "{A}", share = 2 }}', ".share", 'unknown key; use "weight"'),
        (f'{{ url = "{A}", api_key = "k" }}', ".api_key", "write it in the model or in a variant"),
        ("7", "", "expected a base URL such as"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_where_it_is(
    tmp_path: Path, urls: str, where: str, what: str
) -> None:
    line = mistake(tmp_path, f'urls = {{ "{B}", {urls} }}')
    assert line.startswith(f"urls[2]{where}: ")
    assert what in line
    assert "u:p" not in line


def test_a_url_that_is_listed_twice_is_a_mistake_in_either_form(tmp_path: Path) -> None:
    line = mistake(tmp_path, f'urls = {{ "{A}", {{ url = "{A}/", weight = 2 }} }}')
    assert line == f"urls[2]: {A} is listed twice; remove one"


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        ('"round_robin"', '; write "least_loaded"'),
        ('"leastLoaded"', '; write "least_loaded"'),
        ('"failover"', '; write "in_order"'),
        ('"in order"', '; write "in_order"'),
        ('"xyz"', ""),
        ("true", ""),
    ],
)
def test_another_balance_is_a_mistake_with_what_is_meant(
    tmp_path: Path, value: str, hint: str
) -> None:
    line = mistake(tmp_path, f'urls = "{A}", balance = {value}')
    assert line == f'balance: expected "in_order" or "least_loaded", got {value}{hint}'


def test_weights_and_an_order_do_not_go_together(tmp_path: Path) -> None:
    keys = f'urls = {{ {{ url = "{A}", weight = 2 }}, "{B}" }}, balance = "in_order"'
    line = mistake(tmp_path, keys)
    assert line.startswith("variants[1].balance: URLs have a `weight`")
    # A variant of its own may have others.
    assert load(tmp_path, keys, f'urls = "{B}"').balance is Balance.IN_ORDER


def test_a_weight_in_the_wrong_place_is_told_where_it_belongs(tmp_path: Path) -> None:
    line = mistake(tmp_path, f'urls = "{A}", weight = 2')
    assert line == 'weight: unknown key; use urls = { { url = "…", weight = 2 }, … }'
