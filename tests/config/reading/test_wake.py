"""`wake`, `wake_command` and `wake_timeout`: how the machine of a remote model is woken."""

from __future__ import annotations

from pathlib import Path

import pytest

from trio_gateway.config.difference import changes
from trio_gateway.config.loader import ConfigError, ConfigLoader
from trio_gateway.config.missing import missing
from trio_gateway.config.schema import GatewayConfig
from trio_gateway.config.shown import HIDDEN, shown_configuration
from trio_gateway.config.wake_schema import WakeOnLan, Way

MAC = "0a:1b:2c:3d:4e:5f"


def load(folder: Path, keys: str, variant: str = "", engine: str = "remote") -> GatewayConfig:
    path = folder / "gateway.lua"
    urls = 'urls = "http://gpu:8080",' if engine == "remote" else ""
    path.write_text(
        f'server = {{}} models = {{ {{ name = "m", engine = presets.engines.{engine}, {urls} {keys}'
        f" variants = {{ {{ context = 4096, {variant} }} }} }} }}"
    )
    return ConfigLoader(path).load()


def mistakes(folder: Path, keys: str, variant: str = "", engine: str = "remote") -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, keys, variant, engine)
    start = f'{folder}/gateway.lua: models[1] "m".'
    return [line.removeprefix(start) for line in caught.value.mistakes]


def test_a_machine_is_woken_by_a_packet_to_all_of_its_network(tmp_path: Path) -> None:
    options = load(tmp_path, 'wake = { mac = "0A-1B-2C-3D-4E-5F" },').models[0].variants[0].options
    assert options.wake == WakeOnLan(MAC, "255.255.255.255", 9)
    assert options.ways_to_wake == (Way(options.wake, ()),)
    assert options.wake_timeout_s == 120.0
    assert load(tmp_path, "").models[0].variants[0].options.ways_to_wake == ()


def test_where_the_packet_goes_and_how_long_it_may_take_can_be_said(tmp_path: Path) -> None:
    keys = f'wake = {{ mac = "{MAC}", broadcast = "10.0.0.255", port = 7 }}, wake_timeout = "3m",'
    options = load(tmp_path, keys).models[0].variants[0].options
    assert options.wake == WakeOnLan(MAC, "10.0.0.255", 7)
    assert options.wake_timeout_s == 180.0


def test_a_variant_is_woken_in_its_own_way_or_in_that_of_its_model(tmp_path: Path) -> None:
    model = f'wake = {{ mac = "{MAC}" }}, wake_timeout = 60,'
    own = load(tmp_path, model, 'wake_command = { "./wake", "gpu" }').models[0].variants[0].options
    assert (own.wake, own.wake_command) == (None, (str(tmp_path / "wake"), "gpu"))
    assert own.wake_timeout_s == 60.0
    changed = load(tmp_path, 'wake_command = { "wake" },', f'wake = {{ mac = "{MAC}" }}')
    assert changed.models[0].variants[0].options.wake_command == ()


def test_each_url_may_have_a_way_of_its_own(tmp_path: Path) -> None:
    one = f'{{ url = "http://a", wake = {{ mac = "{MAC}" }} }}'
    other = '{ url = "http://c", wake_command = { "./wake" } }'
    urls = f'{{ {one}, "http://b", {other}, "http://d" }}'
    model = 'wake_command = { "/bin/all" }, variants = { { context = 4096 } }'
    path = tmp_path / "gateway.lua"
    path.write_text(
        f"server = {{}} models = {{ {{ name = 'm', engine = presets.engines.remote, {model}, "
        f"urls = {urls} }} }}"
    )
    (variant,) = ConfigLoader(path).load().models[0].variants
    assert variant.options.ways_to_wake == (
        Way(WakeOnLan(MAC), ()), Way(None, ("/bin/all",)), Way(None, (str(tmp_path / "wake"),))
    )  # fmt: skip


@pytest.mark.parametrize(
    ("keys", "mistake"),
    [
        (
            'wake = "0a:1b:2c:3d:4e:5f"',
            'wake: expected { mac = "aa:bb:cc:dd:ee:ff" }, got "0a:1b:2c:3d:4e:5f"',
        ),
        ("wake = {}", "wake.mac: missing; expected the address of its network card"),
        (
            'wake = { mac = "0a:1b:2c" }',
            'wake.mac: expected the address of a network card, such as "aa:bb:cc:dd:ee:ff", '
            'got "0a:1b:2c"',
        ),
        (
            f'wake = {{ mac = "{MAC}", broadcast = "gpu.local" }}',
            'wake.broadcast: expected an IPv4 address, such as "255.255.255.255" or '
            '"192.168.1.255", got "gpu.local"',
        ),
        (
            f'wake = {{ mac = "{MAC}", port = 65536 }}',
            "wake.port: expected a port (1 to 65535), got 65536",
        ),
        (
            f'wake = {{ mac = "{MAC}", brodcast = "10.0.0.255" }}',
            'wake.brodcast: unknown key; did you mean "broadcast"?',
        ),
        (
            f'wake = {{ mac = "{MAC}" }}, wake_command = {{ "x" }}',
            "wake_command: there is `wake` as well; keep one of the two",
        ),
        (
            'wake_command = "ssh nas wake"',
            'wake_command: expected an array of strings, got "ssh nas wake"',
        ),
        ("wake_timeout = 0", "wake_timeout: expected a positive time: seconds, or text such as"),
        (f'mac = "{MAC}"', 'mac: unknown key; use wake = { mac = "…" }'),
    ],
)
def test_a_mistake_says_what_to_write(tmp_path: Path, keys: str, mistake: str) -> None:
    (line,) = mistakes(tmp_path, f"{keys},")
    assert line.startswith(mistake)


def test_only_an_engine_elsewhere_can_be_woken(tmp_path: Path) -> None:
    keys = f'wake = {{ mac = "{MAC}" }}, wake_command = {{ "x" }}, wake_timeout = 9,'
    lines = mistakes(tmp_path, keys, 'binary = "/x", args = {}', "llamacpp")
    only = "only presets.engines.remote has it"
    assert sorted(lines) == [f"wake: {only}", f"wake_command: {only}", f"wake_timeout: {only}"]


def test_a_command_that_is_not_here_is_told(tmp_path: Path) -> None:
    (lack,) = missing(load(tmp_path, 'wake_command = { "/no/wake" },'))
    assert lack.text == 'model "m": wake_command: /no/wake does not exist'
    assert lack.model is None


def test_a_command_of_another_gateway_s_machine_is_told_as_well(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text(
        'server = {} models = { { name = "box", models = "all", urls = "http://a", '
        'wake_command = { "/no/wake" } } }'
    )
    (lack,) = missing(ConfigLoader(path).load())
    assert lack.text == 'models "box": wake_command: /no/wake does not exist'


def test_it_is_shown_without_its_secrets(tmp_path: Path) -> None:
    shown = shown_configuration(load(tmp_path, f'wake = {{ mac = "{MAC}" }},'))
    options = shown["models"][0]["variants"][0]["options"]
    assert options["wake"] == {"mac": MAC, "broadcast": "255.255.255.255", "port": 9}
    command = 'wake_command = { "/bin/power", "--token", "abcdef123", "on" },'
    shown = shown_configuration(load(tmp_path, command))
    options = shown["models"][0]["variants"][0]["options"]
    assert options["wake_command"] == ["/bin/power", "--token", HIDDEN, "on"]


def test_a_reload_with_another_way_to_wake_starts_the_engine_anew(tmp_path: Path) -> None:
    before = load(tmp_path, "")
    after = load(tmp_path, f'wake = {{ mac = "{MAC}" }},')
    (change,) = changes(before, after)
    assert str(change) == "~ variant m:4096: wake (starts anew)"
    assert changes(after, after) == ()
