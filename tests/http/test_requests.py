"""What every request goes through: microversion, route, content type, accept, error bodies, headers."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest

from hostler.core.http import candidates
from hostler.core.http.config import Cors, Limits, PlacementConfig
from hostler.core.http.routes import ROUTES
from hostler.core.http.routing import Route

from .calling import Caller

RP = "11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def call() -> Caller:
    return Caller()


# microversions


@pytest.mark.parametrize(
    ("header", "answered"),
    [
        ("placement 1.10", "1.10"),
        ("placement latest", "1.39"),
        ("Placement 1.2", "1.2"),
        ("compute 2.99", "1.0"),
        ("compute 2.1, placement 1.5", "1.5"),
        ("placement 1.5,placement 1.6", "1.6"),
        ("placement\t1.5", "1.5"),
        ("placement 1.+5", "1.5"),
        ("placement 1.1_0", "1.10"),
        ("placement", "1.0"),
        ("", "1.0"),
    ],
)
def test_the_microversion_is_the_last_that_names_placement(call: Caller, header: str, answered: str) -> None:
    answer = call("GET", "/", headers={"openstack-api-version": header})
    assert answer.headers["openstack-api-version"] == f"placement {answered}"
    assert answer.headers["vary"] == "openstack-api-version"


@pytest.mark.parametrize(
    ("header", "status", "text"),
    [
        ("placement 0.5", 406, "Unacceptable version header: 0.5"),
        ("placement 1.40", 406, "Unacceptable version header: 1.40"),
        ("placement 2.1", 406, "Unacceptable version header: 2.1"),
        ("placement pony.horse", 400, "invalid version string: pony.horse"),
        ("placement 1.2.3", 400, "invalid version string: 1.2.3"),
        ("placement 1", 400, "invalid version string: 1"),
        ("placement 1.-1", 406, "Unacceptable version header: 1.-1"),
        ("placement -1.5", 406, "Unacceptable version header: -1.5"),
        ("placement 1.12345678901", 406, "Unacceptable version header: 1.12345678901"),
        ("placement 1.\u00b2", 400, "invalid version string"),
        ("placement 1.\u0661", 400, "invalid version string"),
    ],
)
def test_other_versions_are_refused(call: Caller, header: str, status: int, text: str) -> None:
    answer = call("GET", "/", headers={"openstack-api-version": header})
    assert answer.status == status
    assert text in answer.error["detail"]
    assert "openstack-api-version" not in answer.headers


def test_an_empty_name_selects_all_providers(call: Caller) -> None:
    uuid = "11111111-1111-4111-8111-111111111111"
    assert call("POST", "/resource_providers", {"name": "one", "uuid": uuid}).status == 200
    found = call("GET", f"/resource_providers?name=&uuid={uuid}").json["resource_providers"]
    assert [each["uuid"] for each in found] == [uuid]


def test_inventories_without_a_class_have_no_time(call: Caller) -> None:
    uuid = "11111111-1111-4111-8111-111111111112"
    path = f"/resource_providers/{uuid}/inventories"
    assert call("POST", "/resource_providers", {"name": "two", "uuid": uuid}).status == 200
    empty = {"resource_provider_generation": 0, "inventories": {}}
    for answer in (call("GET", path, version="1.39"), call("PUT", path, empty, version="1.39")):
        assert answer.status == 200
        assert answer.headers["cache-control"] == "no-cache"
        assert "last-modified" not in answer.headers
    some = {"resource_provider_generation": 1, "inventories": {"VCPU": {"total": 1}}}
    assert "last-modified" in call("PUT", path, some, version="1.39").headers


def test_a_version_that_does_not_exist_is_told_which_do(call: Caller) -> None:
    error = call("GET", "/", version="1.99").error
    assert (error["min_version"], error["max_version"]) == ("1.0", "1.39")


def test_caching_headers_come_with_1_15(call: Caller) -> None:
    assert "last-modified" not in call("GET", "/", version="1.14").headers
    headers = call("GET", "/", version="1.15").headers
    assert headers["cache-control"] == "no-cache"
    assert headers["last-modified"] == "Tue, 14 Nov 2023 22:13:20 GMT"


# routes


def test_every_route_has_a_rule_but_the_root() -> None:
    from hostler.core.http.policy import RULES

    assert {route.rule for route in ROUTES if route.path != "/"} == set(RULES)


def test_there_are_36_routes_of_18_paths() -> None:
    assert len({route.path for route in ROUTES}) == 18
    assert len({(route.method, route.path) for route in ROUTES}) == 36


@pytest.mark.parametrize(
    "path", ["/x", "/traits/", "/resource_providers/", f"/resource_providers/{RP}/cows", "//", "/a/b/c/d/e"]
)
def test_an_unknown_path_is_404(call: Caller, path: str) -> None:
    assert call("GET", path).status == 404


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_other_methods_are_405_and_name_those_allowed(call: Caller, route: Route) -> None:
    path = re.sub("{[a-z_]+}", "x", route.path)
    answer = call("PATCH", path)
    assert answer.status == 405
    assert route.method in answer.headers["allow"].split(", ")
    assert "The method PATCH is not allowed for this resource." in answer.error["detail"]


@pytest.mark.parametrize("route", [route for route in ROUTES if route.since], ids=lambda r: f"{r.method} {r.path}")
def test_a_route_is_not_there_before_its_microversion(call: Caller, route: Route) -> None:
    if any(other.since < route.since and (other.method, other.path) == (route.method, route.path) for other in ROUTES):
        return  # an older form of it is there
    path = re.sub("{[a-z_]+}", "x", route.path)
    body: dict[str, str] | None = {} if route.body else None
    assert call(route.method, path, body, version=f"1.{route.since - 1}").status == route.too_early


# content types


def test_a_write_of_aggregates_checks_the_type_before_the_microversion(call: Caller) -> None:
    path = "/resource_providers/x/aggregates"
    wrong = call("PUT", path, b"[]", headers={"content-type": "text/plain"}, version="1.0")
    assert (wrong.status, call("PUT", path, [], version="1.0").status) == (415, 404)


def test_a_method_of_a_later_microversion_is_405_without_a_list_of_methods(call: Caller) -> None:
    answer = call("DELETE", "/resource_providers/x/inventories", version="1.4")
    assert (answer.status, "allow" in answer.headers) == (405, False)


def test_a_consumer_type_in_a_query_may_be_anything_that_begins_with_all(call: Caller) -> None:
    usages = "/usages?project_id=p&consumer_type="
    assert call("GET", f"{usages}allotments", version="1.38").json == {"usages": {}}
    assert call("GET", f"{usages}unknowns", version="1.38").status == 400


def test_a_body_needs_a_type(call: Caller) -> None:
    answer = call("POST", "/resource_providers", b"x", headers={"content-type": ""})
    assert (answer.status, "content-type header required" in answer.error["detail"]) == (400, True)


@pytest.mark.parametrize("kind", ["text/plain", "application/xml", "application/json-patch+json"])
def test_a_body_of_another_type_is_415(call: Caller, kind: str) -> None:
    answer = call("POST", "/resource_providers", b"{}", headers={"content-type": kind})
    assert answer.status == 415
    assert f"The media type {kind} is not supported, use application/json" in answer.error["detail"]


def test_no_type_at_all_is_415_where_a_body_is_needed(call: Caller) -> None:
    answer = call("PUT", f"/resource_providers/{RP}", headers={"content-type": ""})
    assert answer.status == 415
    assert "The media type None is not supported" in answer.error["detail"]


def test_a_charset_beside_the_type_is_fine(call: Caller) -> None:
    answer = call("POST", "/resource_providers", b"{}", headers={"content-type": "application/json; charset=utf-8"})
    assert "JSON does not validate" in answer.error["detail"]


@pytest.mark.parametrize(
    ("accept", "status"),
    [
        ("", 200),
        ("*/*", 200),
        ("application/json", 200),
        ("application/*;q=0.1", 200),
        ("text/html, */*;q=0.8", 200),
        ("text/plain", 406),
        ("text/html,application/xml;q=0.9", 406),
        ("application/json;q=0", 406),
        ("*/*, application/json;q=0", 406),
        ("application/json;q=high", 406),
    ],
)
def test_json_is_given_to_those_who_accept_it(call: Caller, accept: str, status: int) -> None:
    answer = call("GET", "/resource_classes", headers={"accept": accept})
    assert answer.status == status


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("*/*", "application/json"),
        ("text/html", "text/html; charset=UTF-8"),
        ("text/html;q=0.1, application/json", "application/json"),
        ("image/png", "text/plain; charset=UTF-8"),
    ],
)
def test_refusals_have_the_form_that_is_accepted(call: Caller, accept: str, kind: str) -> None:
    answer = call("GET", "/nothing", headers={"accept": accept})
    assert answer.headers["content-type"] == kind
    assert b"The resource could not be found." in answer.body


def test_html_refusals_cannot_carry_markup_of_the_request(call: Caller) -> None:
    answer = call("GET", "/resource_providers/<script>", headers={"accept": "text/html,application/json;q=0.5"})
    assert answer.status == 404
    assert b"<script>" not in answer.body


def test_the_code_of_an_error_comes_with_1_23(call: Caller) -> None:
    assert call("GET", "/nothing", version="1.23").error["code"] == "placement.undefined_code"
    assert "code" not in call("GET", "/nothing", version="1.22").error


def test_every_answer_names_its_request(call: Caller) -> None:
    answer = call("GET", "/nothing")
    assert re.fullmatch("req-[0-9a-f-]{36}", answer.error["request_id"])
    assert answer.headers["x-openstack-request-id"] == answer.error["request_id"]


# JSON


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe{}",
        b'{"name": NaN}',
        b"[" * 100_000,
        b"1" * 5_000,
        b"nul",
        b'{"name": "\xed\xa0\x80"}',
        b'{"name": "\\ud800"}',
    ],
)
def test_what_is_no_json_is_malformed(call: Caller, body: bytes) -> None:
    answer = call("POST", "/resource_providers", body)
    assert answer.status == 400
    assert "Malformed JSON" in answer.error["detail"]


def test_a_pair_of_surrogates_is_one_character(call: Caller) -> None:
    answer = call("POST", "/resource_providers", b'{"name": "\\ud83d\\ude00"}', version="1.20")
    assert (answer.status, answer.json["name"]) == (200, "\N{GRINNING FACE}")


@pytest.mark.parametrize("number", ["1" + "0" * 18, "1" + "0" * 19, "9" * 5_000])
def test_numbers_of_any_length_are_read_or_refused(number: str) -> None:
    """None is an error of the server, whichever way it comes."""
    call, rp, consumer = Caller(), RP, "00000000-0000-4000-8000-0000000000c1"
    assert call("POST", "/resource_providers", {"name": "n", "uuid": rp}).status == 200
    wanted = {"allocations": {rp: {"resources": {"VCPU": 1}}}, "project_id": "p", "user_id": "u"}
    bodies = [
        ("PUT", f"/resource_providers/{rp}/inventories/VCPU", {"resource_provider_generation": "N", "total": 1}),
        ("PUT", f"/resource_providers/{rp}/aggregates", {"resource_provider_generation": "N", "aggregates": []}),
        ("PUT", f"/resource_providers/{rp}/traits", {"resource_provider_generation": "N", "traits": []}),
        ("PUT", f"/allocations/{consumer}", {**wanted, "consumer_generation": "N", "consumer_type": "A"}),
    ]
    for method, path, body in bodies:
        assert 400 <= call(method, path, json.dumps(body).replace('"N"', number).encode()).status < 500, path
    assert call("GET", f"/allocation_candidates?resources=VCPU:1&limit={number}").status == 200
    assert call("GET", f"/allocation_candidates?resources=VCPU:{number}").status in (200, 400)
    assert call("GET", "/resource_providers", version=f"1.{number}").status in (400, 406)


def test_json_that_is_nested_too_deep_is_refused() -> None:
    call = Caller(PlacementConfig(auth="none", limits=Limits(json_depth=5)))
    answer = call("POST", "/resource_providers", b'{"a":' * 5 + b"1" + b"}" * 5)
    assert "JSON does not validate" in answer.error["detail"]
    answer = call("POST", "/resource_providers", b'{"a":' * 6 + b"1" + b"}" * 6)
    assert "nested more than 5 levels deep" in answer.error["detail"]


def test_a_large_body_that_is_wrong_is_not_repeated_in_full(call: Caller) -> None:
    answer = call("PUT", f"/allocations/{RP}", {"allocations": {str(i): i for i in range(50_000)}})
    assert answer.status == 400
    assert "JSON does not validate" in answer.error["detail"]
    assert len(answer.body) < 10_000


def test_a_query_string_that_is_no_utf_8_is_refused(call: Caller) -> None:
    answer = call("GET", "/resource_providers?name=%ff")
    assert (answer.status, "Invalid query string parameters" in answer.error["detail"]) == (400, True)


def test_a_query_string_with_too_many_fields_is_refused(call: Caller) -> None:
    assert call("GET", "/resource_providers?" + "&".join(["member_of=x"] * 1_001)).status == 400


# CORS


@pytest.mark.parametrize(
    ("origin", "method", "asked", "granted"),
    [
        ("http://a.example", "GET", "openstack-api-version", True),
        ("http://a.example", "PUT", "", True),
        ("http://a.example", "GET", "accept, openstack-api-version", True),
        ("http://a.example", "GET", "x-secret", False),
        ("http://a.example", "BREW", "", False),
        ("http://a.example", "", "", False),
        ("http://evil.example", "GET", "", False),
    ],
)
def test_a_browser_that_asks_beforehand_is_told(origin: str, method: str, asked: str, granted: bool) -> None:
    cors = Cors(allowed_origin=("http://a.example",), allow_headers=("openstack-api-version",))
    call = Caller(PlacementConfig(auth="noauth2", cors=cors))
    headers = {"origin": origin, "access-control-request-method": method, "access-control-request-headers": asked}
    answer = call("OPTIONS", "/traits", headers=headers)
    assert answer.status == 200
    assert ("access-control-allow-origin" in answer.headers) is granted
    assert ("access-control-allow-methods" in answer.headers) is granted


def test_the_scripts_of_an_allowed_origin_see_answers_and_refusals() -> None:
    call = Caller(PlacementConfig(auth="noauth2", cors=Cors(allowed_origin=("http://a.example",))))
    for path in ("/", "/traits"):
        for origin, seen in (("http://a.example", True), ("http://evil.example", False)):
            answer = call("GET", path, headers={"origin": origin})
            assert ("access-control-allow-origin" in answer.headers) is seen


def test_a_wildcard_never_goes_with_credentials() -> None:
    call = Caller(PlacementConfig(auth="none", cors=Cors(allowed_origin=("*",))))
    headers = call("GET", "/", headers={"origin": "http://any.example"}).headers
    assert headers["access-control-allow-origin"] == "http://any.example"
    assert "access-control-allow-credentials" not in headers


def test_without_cors_options_is_just_another_method(call: Caller) -> None:
    answer = call("OPTIONS", "/", headers={"origin": "http://a.example", "access-control-request-method": "GET"})
    assert answer.status == 405


def test_a_search_for_candidates_that_is_too_hard_is_refused_in_bounded_time() -> None:
    call = Caller(PlacementConfig(auth="none", limits=Limits(candidate_steps=500)))
    refused = call("GET", f"{puzzle(call, 18)}&limit=1")
    assert refused.status == 400
    assert "too many combinations of providers" in refused.error["detail"]
    found = call("GET", puzzle(call, 4))
    assert found.status == 200
    assert 0 < len(found.json["allocation_requests"]) < 6**4


def puzzle(call: Caller, groups: int) -> str:
    """A query that asks six bins of one tree for so many odd pieces."""
    if call.fleet.rows == 0:
        root = call("POST", "/resource_providers", {"name": "root"}).json["uuid"]
        for number in range(6):
            child = call("POST", "/resource_providers", {"name": f"bin-{number}", "parent_provider_uuid": root}).json
            inventories = {"VCPU": {"total": 100}, "MEMORY_MB": {"total": 100 + number}}
            body = {"resource_provider_generation": 0, "inventories": inventories}
            assert call("PUT", f"/resource_providers/{child['uuid']}/inventories", body).status == 200
    wishes = [f"resources_{n}=VCPU:{17 + 29 * n % 31},MEMORY_MB:{47 - 29 * n % 31}" for n in range(groups)]
    return f"/allocation_candidates?{'&'.join(wishes)}&group_policy=none"


def asked_aside(call: Caller, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """Fills with the questions that children are asked."""
    asked, ask = list[object](), call.api.children.ask

    async def counted(question: Callable[[], bytes]) -> bytes:
        asked.append(question)
        return await ask(question)

    monkeypatch.setattr(call.api.children, "ask", counted)
    return asked


@pytest.mark.parametrize(
    "ends", ["&limit=3", "", "&resources_0=VCPU:1000", "&resources=NO_SUCH:1", "&resources=VCPU:1&limit=2000"]
)
def test_an_answer_is_the_same_whoever_looks_for_it(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    call = Caller()
    query, asked, answers = puzzle(call, 5) + ends, asked_aside(call, monkeypatch), []
    for patience, long_answer in ((10**9, 10**9), (0, 10**9), (0, 0)):
        monkeypatch.setattr(candidates, "PATIENCE", patience)
        monkeypatch.setattr(candidates, "LONG_ANSWER", long_answer)
        answer = call("GET", query)
        errors = answer.json.get("errors", [])
        answers.append((answer.status, [each["detail"] for each in errors] or answer.body))
    assert answers == [answers[0]] * 3
    assert asked


def test_only_a_long_search_goes_to_a_child(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Caller()
    asked = asked_aside(call, monkeypatch)
    assert call("GET", f"{puzzle(call, 2)}&limit=30").status == 200
    assert len(asked) == 0
    refused = call("GET", f"{puzzle(call, 18)}&limit=1")
    assert (refused.status, len(asked)) == (400, 1)
    assert "too many combinations of providers" in refused.error["detail"]


def test_candidates_by_chance_differ_from_request_to_request_and_are_the_same_after_each_start() -> None:
    def drawn(seed: int) -> list[list[str]]:
        config = PlacementConfig(auth="none", randomize_allocation_candidates=True, randomize_seed=seed)
        call = Caller(config)
        for number in range(20):
            uuid = f"00000000-0000-0000-0000-{number:012}"
            call("POST", "/resource_providers", {"name": str(number), "uuid": uuid})
            body = {"resource_provider_generation": 0, "inventories": {"VCPU": {"total": 8}}}
            call("PUT", f"/resource_providers/{uuid}/inventories", body)
        found = [call("GET", f"/allocation_candidates?resources=VCPU:1{more}") for more in ("", "", "&limit=5")]
        return [[next(iter(one["allocations"])) for one in answer.json["allocation_requests"]] for answer in found]

    first, second, few = drawn(7)
    assert sorted(first) == sorted(second)
    assert (len(first), len(few)) == (20, 5)
    assert first != second != sorted(second)
    assert drawn(7) == [first, second, few]
    assert drawn(8) != [first, second, few]
