"""Which gateways a request has passed, as a header that each adds itself to."""

from __future__ import annotations

import pytest

from trio_gateway.config.schema import EngineOptions
from trio_gateway.engine.clients.hops import HOPS_MAX, THIS_RUN, VIA, hops_in, with_this_run
from trio_gateway.engine.clients.llamacpp import LlamaCppEngine
from trio_gateway.engine.clients.remote import RemoteEngine
from trio_gateway.server.access.hops import check_hops
from trio_gateway.server.api.errors import ApiError

HERE = THIS_RUN.encode()


def test_a_request_to_a_remote_says_which_gateways_it_has_passed() -> None:
    site = RemoteEngine("http://127.0.0.1:1", EngineOptions())
    assert site.with_own_headers([]) == [(VIA, HERE)]
    accept = (b"accept", b"*/*")
    passed = site.with_own_headers([(VIA, b"aa"), accept])
    assert passed == [accept, (VIA, b"aa, " + HERE)]
    assert LlamaCppEngine("http://127.0.0.1:1").with_own_headers([accept]) == [accept]


def test_several_headers_are_one_list() -> None:
    assert hops_in([b"a,b", b" c "]) == ["a", "b", "c"]
    assert with_this_run([(VIA, b"a"), (VIA, b"b")]) == [(VIA, b"a, b, " + HERE)]


@pytest.mark.parametrize("value", [b"", b"a,", b"a b", b"x" * 33, b'"a"', b"a\xff"])
def test_what_is_no_list_of_ids_is_a_400(value: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        check_hops([value])
    assert (refused.value.status, refused.value.code) == (400, "invalid_via")


def test_one_that_comes_back_is_refused() -> None:
    assert check_hops([b"a", b"b"], "c") == b"a, b"
    for passed, said in ((b"c", "to this gateway:"), (b"a, c, b", "by way of 1 more:")):
        with pytest.raises(ApiError) as refused:
            check_hops([passed], "c")
        assert (refused.value.status, refused.value.code) == (508, "gateway_loop")
        assert said in refused.value.message


def test_one_that_has_passed_too_many_is_refused() -> None:
    most = b",".join(b"%d" % n for n in range(HOPS_MAX - 1))
    assert check_hops([most])
    with pytest.raises(ApiError, match="passed 8 gateways") as refused:
        check_hops([most, b"last"])
    assert refused.value.status == 508
