"""Readers of single fields: what each accepts, and how it says what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.lua import lua
from trio_gateway.config.reading import addresses, fields
from trio_gateway.config.reading.fields import Mistakes, Record
from trio_gateway.config.schema import ListenAddress

Reader = Callable[[Mistakes, str, Any], Any]


def accepts(reader: Reader, expression: str) -> Any:
    mistakes = Mistakes()
    result = reader(mistakes, "field", lua(expression))
    assert mistakes.lines == []
    return result


def refuses(reader: Reader, expression: str) -> list[str]:
    mistakes = Mistakes()
    reader(mistakes, "field", lua(expression))
    assert mistakes.lines
    return mistakes.lines


# -- numbers --------------------------------------------------------------------------------


@pytest.mark.parametrize(("written", "read"), [("4096", 4096), ("8192 / 2", 4096), ("2^53", 2**53)])
def test_a_positive_integer_may_be_an_integral_float(written: str, read: int) -> None:
    value = accepts(fields.positive_int, written)
    assert (value, type(value)) == (read, int)


@pytest.mark.parametrize(
    "written", ["0", "-1", "1.5", "0/0", "1/0", "-1/0", "2^54", "'32k'", "true", "{}"]
)
def test_a_positive_integer_is_nothing_else(written: str) -> None:
    assert refuses(fields.positive_int, written)[0].startswith(
        "field: expected a positive integer, got "
    )


def test_a_count_may_be_zero_but_not_negative() -> None:
    assert accepts(fields.count, "0") == 0
    (message,) = refuses(fields.count, "-1")
    assert message == "field: expected an integer that is not negative, got -1"


def test_a_time_is_a_number_of_seconds_that_is_not_negative() -> None:
    assert accepts(fields.seconds, "0") == 0.0
    assert accepts(fields.positive_seconds, "2.5") == 2.5
    assert refuses(fields.seconds, "-1")
    assert refuses(fields.seconds, "1/0")
    assert refuses(fields.positive_seconds, "0")


@pytest.mark.parametrize(
    ("written", "seconds"),
    [
        ("'5m'", 300), ("'90s'", 90), ("'1h'", 3600), ("'500ms'", 0.5), ("'1.5 min'", 90),
        ("'2d'", 172_800), ("' 5s '", 5),
    ],
)  # fmt: skip
def test_a_time_may_have_a_unit(written: str, seconds: float) -> None:
    assert accepts(fields.positive_seconds, written) == seconds
    assert accepts(fields.seconds, written) == seconds


def test_a_time_of_zero_may_have_a_unit_where_zero_is_allowed() -> None:
    assert accepts(fields.seconds, "'0s'") == 0.0
    assert refuses(fields.positive_seconds, "'0s'") == [
        'field: expected a positive time: seconds, or text such as "90s" or "5m", got "0s"'
    ]


@pytest.mark.parametrize(
    "written", ["'5'", "'5 minutes'", "'m'", "'-5m'", "'5M'", "''", "('9'):rep(400) .. 's'", "{}"]
)
def test_a_time_is_nothing_else(written: str) -> None:
    assert refuses(fields.seconds, written)[0].startswith(
        'field: expected a time of 0 or more: seconds, or text such as "90s" or "5m", got '
    )


@pytest.mark.parametrize(
    ("written", "size"),
    [
        ("1024", 1024), ("2^20", 2**20), ("'100'", 100), ("'512B'", 512), ("'1KiB'", 1024),
        ("'100MiB'", 100 * 2**20), ("'6GiB'", 6 * 2**30), ("'1.5 GiB'", 3 * 2**29),
        ("'1TiB'", 2**40), ("'2KB'", 2000), ("'2MB'", 2 * 10**6), ("'2GB'", 2 * 10**9),
        ("'2TB'", 2 * 10**12), ("' 1 MiB '", 2**20),
    ],
)  # fmt: skip
def test_a_size_is_bytes_or_a_number_with_a_unit(written: str, size: int) -> None:
    value = accepts(fields.size_bytes, written)
    assert (value, type(value)) == (size, int)


@pytest.mark.parametrize(
    "written",
    ["0", "-1", "0.5", "'6 gigs'", "'MiB'", "'1e3'", "'-1MiB'", "'0.3B'", "1/0", "{}", "'٣MiB'"],
)
def test_a_size_is_nothing_else(written: str) -> None:
    assert refuses(fields.size_bytes, written)[0].startswith(
        'field: expected a size: bytes, or text such as "100MiB" or "6GiB", got '
    )


# -- text -----------------------------------------------------------------------------------


def test_a_string_is_not_empty() -> None:
    assert accepts(fields.string, "'x'") == "x"
    assert refuses(fields.string, "''") == ['field: expected a string that is not empty, got ""']


@pytest.mark.parametrize("written", [r"'a\nb'", "' a'", "''", r"'\0'", "7", r"'\27[2J'"])
def test_a_name_is_one_line_that_can_be_printed(written: str) -> None:
    assert refuses(fields.name, written)


def test_names_may_have_slashes_colons_and_letters_of_any_script() -> None:
    assert accepts(fields.names, "{'org/model:Q4_K_M', 'modèle 漢'}") == (
        "org/model:Q4_K_M",
        "modèle 漢",
    )


def test_a_number_where_text_is_expected_is_told_how_to_write_it() -> None:
    assert refuses(fields.text, "8192") == [
        'field: expected a string, got 8192 (write "8192", or tostring(…))'
    ]
    assert refuses(fields.text, "8192 / 2") == [
        'field: expected a string, got 4096.0 (write "4096", or tostring(…))'
    ]


def test_a_boolean_is_true_or_false_and_not_a_word() -> None:
    assert accepts(fields.boolean, "false") is False
    assert refuses(fields.boolean, "'yes'") == ['field: expected true or false, got "yes"']


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("true", "true"), ("'x'", '"x"'), ("{}", "a table"), ("function() end", "a function"),
        ("1.5", "1.5"), (r"'a\nb'", r'"a\nb"'), ("('x'):rep(80)", '"' + "x" * 57 + '…"'),
    ],
)  # fmt: skip
def test_messages_quote_a_value_on_one_line(written: str, shown: str) -> None:
    assert fields.show(lua(written)) == shown


@given(st.text())
def test_printable_text_is_always_one_line(text: str) -> None:
    assert fields.printable(text).isprintable()


# -- arrays and maps ------------------------------------------------------------------------


def test_an_array_of_strings_keeps_its_order() -> None:
    assert accepts(fields.string_array, "{'-m', 'x', ''}") == ("-m", "x", "")
    assert accepts(fields.string_array, "{}") == ()


def test_every_wrong_element_of_an_array_is_reported() -> None:
    assert refuses(fields.string_array, "{'a', 7, true}") == [
        'field[2]: expected a string, got 7 (write "7", or tostring(…))',
        "field[3]: expected a string, got true",
    ]


def test_a_hole_in_an_array_is_a_mistake_that_is_reported_once() -> None:
    hole = "field: expected an array of strings, but element 2 is nil (an undefined name?)"
    assert refuses(fields.string_array, "{'a', nil, 'c', nil, 'e'}") == [hole]
    assert refuses(fields.string_array, "{[1] = 'a', [1000000000] = 'b'}") == [hole]


@pytest.mark.parametrize(
    ("key", "shown"), [("name", '"name"'), ("[0]", "0"), ("[-1]", "-1"), ("[true]", "true")]
)
def test_a_key_in_an_array_is_a_mistake(key: str, shown: str) -> None:
    assert refuses(fields.string_array, f"{{'a', {key} = 'b'}}") == [
        f"field: expected an array of strings, got the key {shown} in it"
    ]


def test_a_string_is_not_an_array() -> None:
    assert refuses(fields.string_array, "'-m x'") == [
        'field: expected an array of strings, got "-m x"'
    ]


def test_a_map_has_names_of_variables_and_strings() -> None:
    assert accepts(fields.variables, "{A = '1', B = ''}") == {"A": "1", "B": ""}
    assert accepts(fields.variables, "{A = true, B = false}") == {"A": True, "B": False}
    assert refuses(fields.variables, "{A = 1}") == [
        'field.A: expected a string, got 1 (write "1", or tostring(…))'
    ]


@pytest.mark.parametrize("written", ["{'A=1'}", "{['A=1'] = ''}", r"{['A\0'] = ''}", "'A=1'"])
def test_a_map_with_other_keys_is_a_mistake(written: str) -> None:
    assert refuses(fields.variables, written)


# -- records --------------------------------------------------------------------------------


def test_a_record_reports_unknown_keys_and_the_nearest_known_one() -> None:
    mistakes = Mistakes()
    record = Record(mistakes, "server", lua("{listen_v5 = 1, zzz = 2, 3, [true] = 4}"))
    record.read("listen_v4", fields.string, "")
    record.finish()
    assert sorted(mistakes.lines) == [
        "server.listen_v5: unknown key; did you mean \"listen_v4\"?",
        "server.zzz: unknown key",
        "server: expected named fields only, got the entry [1]",
        "server: expected named fields only, got the entry [true]",
    ]  # fmt: skip


def test_a_missing_field_that_is_required_says_what_was_expected() -> None:
    mistakes = Mistakes()
    record = Record(mistakes, "model", lua("{}"))
    assert record.require("name", fields.name, "a string", "none") == "none"
    assert mistakes.lines == ["model.name: missing; expected a string"]


def test_a_record_that_is_no_table_is_one_mistake() -> None:
    mistakes = Mistakes()
    record = Record(mistakes, "pools.primary", lua("7"))
    assert record.read("engines", fields.positive_int, 1) == 1
    record.finish()
    assert mistakes.lines == ["pools.primary: expected a table, got 7"]


# -- addresses ------------------------------------------------------------------------------


def test_listen_addresses_are_one_or_an_array_or_none() -> None:
    assert accepts(addresses.listen_v4, "'127.0.0.1:7777'") == (ListenAddress("127.0.0.1", 7777),)
    assert accepts(addresses.listen_v4, "{'0.0.0.0:80', 'localhost:0'}") == (
        ListenAddress("0.0.0.0", 80),
        ListenAddress("localhost", 0),
    )
    assert accepts(addresses.listen_v4, "'none'") == ()
    assert accepts(addresses.listen_v6, "'none'") == ()


def test_an_ipv6_address_loses_its_brackets_and_shows_them_again() -> None:
    (address,) = accepts(addresses.listen_v6, "'[fe80::1%eth0]:7777'")
    assert address == ListenAddress("fe80::1%eth0", 7777)
    assert str(address) == "[fe80::1%eth0]:7777"
    assert address.url == "http://[fe80::1%eth0]:7777"


@pytest.mark.parametrize(
    "written",
    [
        "'127.0.0.1'", "':7777'", "'127.0.0.1:'", "'127.0.0.1:70000'", "'127.0.0.1:x'", "7777",
        "'300.0.0.1:80'", "'1.2.3:80'", "'[::1]:80'", "'a b:80'", "'http://127.0.0.1:80'",
        "'127.0.0.1:٣٣'", "true",
    ],
)  # fmt: skip
def test_a_malformed_ipv4_address_shows_the_form(written: str) -> None:
    (message,) = refuses(addresses.listen_v4, written)
    assert message.startswith('field: expected "host:port", an array of them, or "none", got ')


@pytest.mark.parametrize("written", ["'::1:7777'", "'[::1]'", "'[1.2.3.4]:80'", "'127.0.0.1:80'"])
def test_a_malformed_ipv6_address_shows_the_form(written: str) -> None:
    (message,) = refuses(addresses.listen_v6, written)
    assert message.startswith('field: expected "[host]:port", an array of them, or "none", got ')


def test_every_malformed_address_of_an_array_is_reported() -> None:
    assert refuses(addresses.listen_v4, "{'1', '127.0.0.1:80', 'none'}") == [
        'field[1]: expected "host:port", got "1"',
        'field[3]: expected "host:port", got "none"',
    ]


@pytest.mark.parametrize(
    ("written", "url"),
    [
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_a_base_url_has_a_host_and_a_port(written: str, url: str) -> None:
    assert accepts(addresses.base_url, f"'{written}'") == url


@pytest.mark.parametrize(
    "written",
    [
        "'127.0.0.1:8080'", "'http://127.0.0.1'", "'https://127.0.0.1:8080'", "8080",
        "'http://127.0.0.1:8080/v1'", "'http://127.0.0.1:99999'", "'http://[::1:80'", "''",
        "'http://user@127.0.0.1:8080'", "'http://127.0.0.1:8080?x=1'",
    ],
)  # fmt: skip
def test_a_base_url_is_nothing_else(written: str) -> None:
    (message,) = refuses(addresses.base_url, written)
    assert message.startswith("field: expected a base URL with a port and no path, such as ")
