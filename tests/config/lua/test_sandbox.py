"""What a configuration program may do, what it may not, and where an error is said to be."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from trio_gateway.config.lua import sandbox
from trio_gateway.config.lua.sandbox import LuaFailure

# The helper is a real one: what it is asked, and what it hands back, is half of what is tried here.
pytestmark = pytest.mark.processes

LUA_CUTS_NAMES_AFTER = 59  # bytes


def run(folder: Path, source: str | bytes, name: str = "gateway.lua") -> Any:
    path = folder / name
    path.write_bytes(source if isinstance(source, bytes) else source.encode())
    return sandbox.run_file(path).globals


def value(folder: Path, expression: str) -> Any:
    """What a Lua expression gives; arrays and tables as Python lists and dicts."""
    return plain(run(folder, f"result = {expression}")["result"])


def plain(result: Any) -> Any:
    if not hasattr(result, "items"):
        return result
    entries = {key: plain(entry) for key, entry in result.items()}
    keys = list(range(1, len(entries) + 1))
    return [entries[k] for k in keys] if set(entries) == set(keys) else entries


def failure(folder: Path, source: str | bytes, name: str = "gateway.lua") -> str:
    """The message for a program that must fail, with the folder left out."""
    with pytest.raises(LuaFailure) as caught:
        run(folder, source, name)
    message = str(caught.value)
    assert "\n" not in message
    return message.replace(f"{folder}/", "")


# -- what a configuration may call ----------------------------------------------------------


def test_presets_name_the_engines(tmp_path: Path) -> None:
    assert value(tmp_path, "presets.engines.llamacpp") == "llama.cpp"
    assert value(tmp_path, "presets.engines.llamacpp_secondary") == "llama.cpp.secondary"


def test_presets_cannot_be_changed(tmp_path: Path) -> None:
    message = failure(tmp_path, "\npresets.engines.mine = 'x'")
    assert message == "gateway.lua:2: presets are read-only"


def test_an_unknown_preset_names_those_that_exist(tmp_path: Path) -> None:
    message = failure(tmp_path, "x = presets.engines.lama")
    assert message == (
        "gateway.lua:1: presets.engines.lama does not exist; "
        'known: llamacpp, llamacpp_secondary, openai, remote, ray; did you mean "llamacpp"?'
    )


def test_concat_arrays_makes_a_new_array_and_drops_keyed_entries(tmp_path: Path) -> None:
    top = run(
        tmp_path,
        "a, b = {'1', '2', key = 'dropped'}, {'3', other = 'dropped'}\nc = concat_arrays(a, b)",
    )
    assert plain(top["c"]) == ["1", "2", "3"]
    assert plain(top["a"]) == {1: "1", 2: "2", "key": "dropped"}


def test_concat_arrays_points_at_a_nil_that_would_cut_the_array_off(tmp_path: Path) -> None:
    message = failure(tmp_path, "x = concat_arrays({'a'}, {'b', undefined, 'c'})")
    assert message == (
        "gateway.lua:1: concat_arrays, second argument: element 2 is nil (an undefined name?)"
    )


def test_merge_tables_replaces_keys_and_appends_array_elements(tmp_path: Path) -> None:
    merged = value(
        tmp_path, "merge_tables({'1', '2', name = 'old', kept = true}, {'3', name = 'new'})"
    )
    assert merged == {1: "1", 2: "2", 3: "3", "name": "new", "kept": True}


def test_merge_tables_leaves_its_arguments_alone(tmp_path: Path) -> None:
    top = run(tmp_path, "a, b = {'1', k = 1}, {'2', k = 2}\nmerge_tables(a, b)")
    assert plain(top["a"]) == {1: "1", "k": 1}
    assert plain(top["b"]) == {1: "2", "k": 2}


def test_merge_tables_loses_no_element_behind_a_nil(tmp_path: Path) -> None:
    assert value(tmp_path, "merge_tables({'a'}, {'b', nil, 'c'})") == ["a", "b", "c"]


@pytest.mark.parametrize("function", ["concat_arrays", "merge_tables"])
def test_array_functions_say_which_argument_is_wrong(tmp_path: Path, function: str) -> None:
    message = failure(tmp_path, f"x = {function}({{}}, 'text')")
    assert message == f"gateway.lua:1: {function}, second argument: expected a table, got string"


def test_env_gives_a_variable_or_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLAMA_CPP", "/opt/llama")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert value(tmp_path, "env('LLAMA_CPP', 'other')") == "/opt/llama"
    assert value(tmp_path, "env('NOT_SET', 'other')") == "other"


def test_env_without_a_default_fails_where_the_variable_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    assert failure(tmp_path, "x = env('NOT_SET')").startswith(
        "gateway.lua:1: environment variable NOT_SET is not set"
    )


def test_os_getenv_gives_nil_where_the_variable_is_not_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NOT_SET", raising=False)
    assert value(tmp_path, "os.getenv('NOT_SET') == nil") is True
    assert value(tmp_path, "os.getenv('NOT_SET') or 'other'") == "other"


def test_find_gguf_lists_the_files_below_a_folder_in_order(tmp_path: Path) -> None:
    for name in ("models/b.gguf", "models/deep/er/a.gguf", "models/notes.txt", "c.gguf"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = value(tmp_path, "find_gguf('models')")
    assert found == [f"{tmp_path}/models/b.gguf", f"{tmp_path}/models/deep/er/a.gguf"]


def found(folder: Path, *names: str) -> tuple[list[str], list[str], tuple[str, ...]]:
    """What `find_gguf` gives of a folder with these files: their paths, their names, the remarks.
    A name that ends with `>` and another is a link."""
    for name in names:
        name, _, target = name.partition(">")
        path = folder / "models" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target) if target else path.touch()
    (folder / "gateway.lua").write_text("files, names = find_gguf('models')")
    outcome = sandbox.run_file(folder / "gateway.lua")
    files, model_names = (
        [v for _, v in outcome.globals[key].items()] for key in ("files", "names")
    )
    start = f"{folder}/models/"
    return [file.removeprefix(start) for file in files], model_names, outcome.remarks


def test_of_a_model_in_several_files_the_first_is_the_one(tmp_path: Path) -> None:
    parts = [f"big/x-Q4-0000{n}-of-00003.gguf" for n in (1, 2, 3)]
    files, names, _ = found(tmp_path, *parts, "y-1-of-2.gguf", "a/only-00002-of-00002.gguf")
    assert files == ["big/x-Q4-00001-of-00003.gguf", "y-1-of-2.gguf"]
    assert names == ["x-Q4", "y-1-of-2"]


def test_a_suffix_in_capitals_is_one(tmp_path: Path) -> None:
    """As it is on disks that come from elsewhere."""
    files, names, _ = found(
        tmp_path, "A.GGUF", "b.Gguf", "c.gguf", "a/c.GGUF", "mmproj-A.GGUF", "d.GGUF",
        "d.GGUF.part", "e-00001-of-00002.GGUF", "e-00002-of-00002.GGUF", "f.GGUFS", ".GGUF",
    )  # fmt: skip
    assert files == ["A.GGUF", "a/c.GGUF", "b.Gguf", "c.gguf", "e-00001-of-00002.GGUF"]
    assert names == ["A", "a/c", "b", "c", "e"]


def test_projectors_are_no_models_nor_is_what_is_still_being_loaded_down(tmp_path: Path) -> None:
    files, *_ = found(
        tmp_path, "m.gguf", "mmproj-m-f16.gguf", "v/m2.MMPROJ-F16.gguf", ".hidden.gguf",
        ".cache/huggingface/download/z.gguf", "a.gguf.part", "b.gguf", "b.gguf.aria2",
        "c.gguf.incomplete", "d.gguf", "d.gguf.part", "lost+found/e.gguf", "folder.gguf/f.gguf",
    )  # fmt: skip
    assert files == ["folder.gguf/f.gguf", "m.gguf"]


def test_linked_folders_are_followed_and_each_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "deep" / "x.gguf").touch()
    (tmp_path / "disk" / "up").symlink_to("..")  # a loop, by way of what is above all of them
    files, names, remarks = found(
        tmp_path, "a>../disk", "b>../disk", "c/here.gguf", "0>c", "c/me>.", "self>self", "gone>no",
        "file.gguf>c/here.gguf", "dead.gguf>none.gguf",
    )  # fmt: skip
    assert files == ["a/deep/x.gguf", "c/here.gguf", "file.gguf"]
    assert names == ["x", "here", "file"]
    assert remarks == (f"{tmp_path}/models/self cannot be read: Too many levels of symbolic links",)


def test_two_files_of_one_name_get_their_folders_into_their_names(tmp_path: Path) -> None:
    files, names, _ = found(
        tmp_path, "x.gguf", "a/x.gguf", "b/c/x.gguf", "b/y.gguf", "b/z-00001-of-00002.gguf",
        "b/z.gguf", "d/z.gguf",
    )  # fmt: skip
    assert dict(zip(files, names, strict=True)) == {
        "a/x.gguf": "a/x", "b/c/x.gguf": "b/c/x", "x.gguf": "x", "b/y.gguf": "y",
        "b/z-00001-of-00002.gguf": "z-00001-of-00002", "b/z.gguf": "b/z", "d/z.gguf": "d/z",
    }  # fmt: skip


def test_a_name_that_is_no_text_is_told_and_left_out(tmp_path: Path) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "two\nlines.gguf").touch()
    files, _, (remark,) = found(tmp_path, "m.gguf")
    assert files == ["m.gguf"]
    assert remark.endswith("lines.gguf': the file's name is not one line of text")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "models" / "private").mkdir(parents=True)
    (tmp_path / "models" / "private").chmod(0)
    files, _, remarks = found(tmp_path, "m.gguf")
    assert files == ["m.gguf"]
    assert remarks == (f"{tmp_path}/models/private cannot be read: Permission denied",)


def test_find_gguf_fails_where_there_is_no_such_folder(tmp_path: Path) -> None:
    assert failure(tmp_path, "find_gguf('modles')") == "gateway.lua:1: modles: not a folder"


def test_luas_own_functions_and_libraries_work(tmp_path: Path) -> None:
    source = """
    assert(select("#", 1, nil) == 2 and next({}) == nil and type(pairs) == "function")
    assert(tonumber("0x10") == 16 and tostring(2^3) == "8.0")
    assert(not pcall(error, "x") and select(2, pcall(error, { code = 7 })).code == 7)
    assert(math.floor(1.5) == 1 and ("x"):rep(3) == "xxx" and utf8.len("é") == 1)
    local sum = 0
    for _, n in ipairs({ 1, 2, 3 }) do sum = sum + n end
    local words = {}
    for word in string.gmatch("b a", "%a") do table.insert(words, word) end
    table.sort(words)
    result = table.concat(words, sum)
    """
    assert run(tmp_path, source)["result"] == "a6b"


def test_a_file_may_begin_with_a_byte_order_mark_or_a_line_for_the_shell(tmp_path: Path) -> None:
    assert run(tmp_path, b"\xef\xbb\xbfresult = 1")["result"] == 1
    assert run(tmp_path, "#!/usr/bin/env lua\nresult = 2")["result"] == 2


# -- what is not there ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "io", "require", "package", "load", "loadstring", "loadfile", "dofile", "debug",
        "coroutine", "collectgarbage", "print", "rawget", "rawset", "getmetatable",
        "setmetatable", "_G", "python", "os.execute", "os.remove", "os.exit", "string.dump",
    ],
)  # fmt: skip
def test_a_configuration_does_not_find(tmp_path: Path, name: str) -> None:
    assert value(tmp_path, f"{name} == nil") is True


def test_methods_of_strings_have_no_dump_either(tmp_path: Path) -> None:
    assert value(tmp_path, "(''):rep(0).dump == nil") is True


def test_one_configuration_cannot_change_the_libraries_of_the_next(tmp_path: Path) -> None:
    run(tmp_path, "string.rep = nil; math = nil; pairs = nil")
    assert value(tmp_path, "string.rep('x', 2) .. math.floor(1.5) .. type(pairs)") == "xx1function"


@pytest.mark.parametrize(
    "call",
    [
        r'env, "\xff"', r'env, "NOT_UTF8"', r'include, "\xff"', r'include, "a\0b"',
        r'find_gguf, "\0"', r'include, "none.lua"',
    ],
)  # fmt: skip
def test_an_error_from_the_gateway_is_text_and_never_a_python_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    monkeypatch.setenv("NOT_UTF8", "\udcff")
    top = run(tmp_path, f"ok, message = pcall({call})\nkind = type(message)")
    assert (top["ok"], top["kind"]) == (False, "string")


# -- limits ---------------------------------------------------------------------------------

ENDLESS = "while true do end"
GREEDY = "local t = {} for i = 1, 1e9 do t[i] = ('x'):rep(1000) .. i end"


@pytest.mark.parametrize("wrapped", ["{}", "while true do pcall(function() {} end) end"])
def test_an_endless_loop_is_an_error_with_its_line(tmp_path: Path, wrapped: str) -> None:
    message = failure(tmp_path, "x = 1\n" + wrapped.format(ENDLESS))
    assert message == "gateway.lua:2: more than 50000000 instructions (an endless loop?)"


@pytest.mark.parametrize("wrapped", ["{}", "while true do pcall(function() {} end) end"])
def test_too_much_memory_is_an_error(tmp_path: Path, wrapped: str) -> None:
    message = failure(tmp_path, wrapped.format(GREEDY))
    assert message == "gateway.lua: more than 64 MiB of memory used"


def test_one_huge_string_is_an_error(tmp_path: Path) -> None:
    assert "64 MiB" in failure(tmp_path, "x = ('x'):rep(1e9)")


def test_endless_recursion_is_an_error(tmp_path: Path) -> None:
    assert failure(tmp_path, "local function f() return 1 + f() end\nf()")


def test_a_program_close_to_the_memory_limit_can_still_be_read(tmp_path: Path) -> None:
    path = tmp_path / "gateway.lua"
    path.write_text("big = {} for i = 1, 30 do big[i] = i .. ('x'):rep(2^20) end small = { 'a' }")
    top = sandbox.run_file(path, ["small"]).globals
    assert plain(top["small"]) == ["a"]
    assert plain(top["big"]) == []


# -- include --------------------------------------------------------------------------------


def test_include_is_relative_to_the_file_that_calls_it(tmp_path: Path) -> None:
    (tmp_path / "parts" / "deep").mkdir(parents=True)
    (tmp_path / "parts" / "one.lua").write_text("return include('deep/two.lua') .. '1'")
    (tmp_path / "parts" / "deep" / "two.lua").write_text("return include('../three.lua') .. '2'")
    (tmp_path / "parts" / "three.lua").write_text("return '3'")
    assert value(tmp_path, "include('parts/one.lua')") == "321"


def test_a_function_from_an_included_file_stays_relative_to_that_file(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "lib.lua").write_text("return function() return include('v.lua') end")
    (tmp_path / "parts" / "v.lua").write_text("return 'of parts'")
    (tmp_path / "v.lua").write_text("return 'of the top'")
    assert value(tmp_path, "include('parts/lib.lua')()") == "of parts"


def test_included_files_share_the_globals(tmp_path: Path) -> None:
    (tmp_path / "lib.lua").write_text("function double(x) return 2 * x + base end")
    assert run(tmp_path, "base = 1\ninclude('lib.lua')\nresult = double(3)")["result"] == 7


def test_include_returns_everything_that_the_file_returns(tmp_path: Path) -> None:
    (tmp_path / "lib.lua").write_text("return 1, nil, 3")
    assert value(tmp_path, "select('#', include('lib.lua'))") == 3


def test_the_same_file_may_be_included_twice(tmp_path: Path) -> None:
    (tmp_path / "lib.lua").write_text("n = (n or 0) + 1")
    assert run(tmp_path, "include('lib.lua') include('lib.lua')")["n"] == 2


def test_a_cycle_of_includes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.lua").write_text("x = 1\ninclude('b.lua')")
    (tmp_path / "b.lua").write_text("include('./a.lua')")
    assert failure(tmp_path, "include('a.lua')") == (
        "b.lua:1: include of './a.lua' never ends: the file is already being run"
    )


def test_a_missing_include_is_an_error_at_the_line_that_asks_for_it(tmp_path: Path) -> None:
    assert failure(tmp_path, "\ninclude('none.lua')") == (
        "gateway.lua:2: none.lua: No such file or directory"
    )


# -- where an error is ----------------------------------------------------------------------


def test_a_missing_file_is_named_once(tmp_path: Path) -> None:
    with pytest.raises(LuaFailure) as caught:
        sandbox.run_file(tmp_path / "none.lua")
    assert str(caught.value) == f"{tmp_path}/none.lua: No such file or directory"


def test_a_file_name_that_is_not_utf_8_is_an_error_and_not_a_crash(tmp_path: Path) -> None:
    with pytest.raises(LuaFailure) as caught:
        sandbox.run_file(tmp_path / "\udcff.lua")
    assert str(caught.value) == rf"{tmp_path}/\udcff.lua: the file's name is not UTF-8 text"


def test_a_syntax_error_has_its_line(tmp_path: Path) -> None:
    assert failure(tmp_path, "x = 1\ny = = 2") == (
        "gateway.lua:2: unexpected symbol near '=': y = = 2"
    )


def test_a_run_time_error_has_its_line_and_the_name_that_is_nil(tmp_path: Path) -> None:
    assert failure(tmp_path, "\n\nx = preset.engines") == (
        "gateway.lua:3: attempt to index a nil value (global 'preset'); did you mean \"presets\"?"
    )


def test_an_error_in_an_included_file_is_placed_in_that_file(tmp_path: Path) -> None:
    (tmp_path / "lib.lua").write_text("\nreturn nothing.here")
    assert failure(tmp_path, "x = include('lib.lua')") == (
        "lib.lua:2: attempt to index a nil value (global 'nothing')"
    )


def test_a_helper_called_from_a_function_is_placed_in_the_function(tmp_path: Path) -> None:
    source = "local function f()\n  local x = concat_arrays({}, 7)\n  return x\nend\n\nf()"
    assert failure(tmp_path, source).startswith("gateway.lua:2: concat_arrays")


def test_an_error_in_a_tail_call_still_names_the_file(tmp_path: Path) -> None:
    (tmp_path / "lib.lua").write_text("return env('SURELY_NOT_SET')")
    assert failure(tmp_path, "x = include('lib.lua')").startswith("lib.lua: environment variable")


@pytest.mark.parametrize("letter", ["d", "é", "漢"])
def test_a_path_longer_than_luas_limit_is_named_in_full(tmp_path: Path, letter: str) -> None:
    folder = tmp_path / (letter * (LUA_CUTS_NAMES_AFTER + 1))
    folder.mkdir()
    assert failure(folder, "\nx.y = 1") == (
        "gateway.lua:2: attempt to index a nil value (global 'x')"
    )
    assert failure(folder, "\nx = = 1") == ("gateway.lua:2: unexpected symbol near '=': x = = 1")


def test_a_file_that_is_not_utf_8_names_the_line(tmp_path: Path) -> None:
    assert failure(tmp_path, b"x = 1\ny = 'caf\xe9'\n") == (
        "gateway.lua: line 2 is not UTF-8 text (invalid continuation byte at byte 14 of the file)"
    )


def test_an_error_of_the_program_itself_is_one_line_of_text(tmp_path: Path) -> None:
    assert failure(tmp_path, "error('one\\ntwo')") == r"gateway.lua:1: one\ntwo"
    assert failure(tmp_path, r"error('\xff')") == "gateway.lua:1: ?"
    assert failure(tmp_path, "error({})") == (
        "gateway.lua: error() without a text, but with a table"
    )
