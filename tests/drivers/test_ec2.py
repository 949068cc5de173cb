"""The drivers ec2 and ebs pass the conformance suite on moto, behind a proxy that loses answers, and in both behaviours
of client tokens: moto ignores them, the real service joins requests with the same one. Moto cannot show a lack of
capacity, quotas, delays of listings, and instances that take their time: errors are injected by the proxy."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import cache
from typing import Any, Literal
from urllib.parse import parse_qs
from xml.etree import ElementTree

import pytest

pytest.importorskip("moto", reason="moto is not installed")
botocore = pytest.importorskip("botocore.session", reason="botocore is not installed")

from moto.server import ThreadedMotoServer  # noqa: E402  # after the skip

from hostler.drivers import ec2_api  # noqa: E402  # after the skip
from hostler.drivers.compute import ec2, ec2_images  # noqa: E402  # after the skip
from hostler.drivers.conformance import (  # noqa: E402  # after the skip
    ComputeBench,
    ComputeConformance,
    StorageBench,
    StorageConformance,
    new_uuid,
)
from hostler.drivers.protocol import (  # noqa: E402  # after the skip
    Capacity,
    Conflict,
    Connection,
    Denied,
    DriverContext,
    DriverError,
    Mark,
    NotFound,
    Permanent,
    Quota,
    Transient,
    Unknown,
)
from hostler.drivers.storage import ebs  # noqa: E402  # after the skip
from hostler.placement.types.errors import InvalidValue  # noqa: E402  # after the skip

from .fault_proxy import Answer, FaultProxy, Request  # noqa: E402  # after the skip

REGION, ZONE, IMAGE = "eu-central-1", "eu-central-1a", "ami-03cf127a"
TYPES = {"t3.micro": 0.0104, "m5.large": 0.096, "m5.xlarge": 0.192}


def action_of(request: Request) -> str:
    return parse_qs(request.body.decode()).get("Action", [""])[0]


class Tokens:
    """Answers a request with a client token that was answered before as then, as the real service does."""

    def __init__(self) -> None:
        self._answers: dict[str, Answer] = {}

    @staticmethod
    def _token(request: Request) -> str | None:
        return parse_qs(request.body.decode()).get("ClientToken", [None])[0]

    def instead(self, request: Request) -> Answer | None:
        token = self._token(request)
        return None if token is None else self._answers.get(token)

    def seen(self, request: Request, answer: Answer) -> None:
        token = self._token(request)
        if token is not None and answer.status == 200:
            self._answers[token] = answer


@pytest.fixture(scope="module")
def moto() -> Iterator[tuple[str, int]]:
    patch = pytest.MonkeyPatch()
    patch.setenv("AWS_ACCESS_KEY_ID", "testing")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()
    server.stop()
    patch.undo()


@pytest.fixture
def proxy(moto: tuple[str, int]) -> Iterator[FaultProxy]:
    with FaultProxy(*moto, lambda request: not action_of(request).startswith("Describe")).running() as proxy:
        yield proxy


def account(proxy: FaultProxy) -> dict[str, Any]:
    return {"region": REGION, "access_key": "a", "secret_key": "b", "endpoint": proxy.endpoint + "/", "page": 5}


def open_compute(proxy: FaultProxy) -> Callable[[DriverContext], AbstractAsyncContextManager[ec2.Ec2Driver]]:
    return lambda context: ec2.open_driver({**account(proxy), "types": TYPES}, context)


@cache
def client_of(moto: tuple[str, int]) -> Any:
    """An independent client of the cloud."""
    return botocore.get_session().create_client(
        "ec2",
        region_name=REGION,
        endpoint_url=f"http://{moto[0]}:{moto[1]}",
        aws_access_key_id="a",
        aws_secret_access_key="b",
    )


def compute_bench(proxy: FaultProxy, moto: tuple[str, int]) -> ComputeBench:
    client = client_of(moto)

    async def make_stranger() -> str:
        made = client.run_instances(ImageId=IMAGE, InstanceType="c5.large", MinCount=1, MaxCount=1)
        return str(made["Instances"][0]["InstanceId"])

    async def change_outside(uuid: str, what: Literal["stop", "remove"]) -> None:
        by_uuid = [{"Name": "tag:hostler:uuid", "Values": [uuid]}]
        keys = [
            each["InstanceId"]
            for reservation in client.describe_instances(Filters=by_uuid)["Reservations"]
            for each in reservation["Instances"]
        ]
        (client.stop_instances if what == "stop" else client.terminate_instances)(InstanceIds=keys)

    return ComputeBench(
        open=open_compute(proxy),
        node=ZONE,
        vcpus=2,
        memory_mb=1_024,
        image=IMAGE,
        lose_answers=proxy.lose_answers,
        outage=proxy.outage,
        hang=proxy.hang,
        make_stranger=make_stranger,
        change_outside=change_outside,
        page=6,
    )


class TestEc2ComputesWhereTokensAreIgnored(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, moto: tuple[str, int]) -> ComputeBench:
        return compute_bench(proxy, moto)


@pytest.mark.soak  # the same tests once more
class TestEc2ComputesWhereTokensCount(ComputeConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, moto: tuple[str, int]) -> ComputeBench:
        tokens = Tokens()
        proxy.instead, proxy.seen = tokens.instead, tokens.seen
        return compute_bench(proxy, moto)


class TestEbsStores(StorageConformance):
    @pytest.fixture
    def bench(self, proxy: FaultProxy, moto: tuple[str, int]) -> StorageBench:
        client = client_of(moto)

        async def make_stranger() -> str:
            return str(client.create_volume(AvailabilityZone=ZONE, Size=1)["VolumeId"])

        return StorageBench(
            open=lambda context: ebs.open_driver(account(proxy), context),
            pool=f"{ZONE}.gp3",
            lose_answers=proxy.lose_answers,
            outage=proxy.outage,
            hang=proxy.hang,
            make_stranger=make_stranger,
            page=6,
        )


async def test_a_request_that_is_repeated_before_its_instance_is_listed_is_joined_by_its_token(
    proxy: FaultProxy, moto: tuple[str, int]
) -> None:
    """Listings of the real service are some seconds behind its changes."""
    tokens, bench = Tokens(), compute_bench(proxy, moto)
    async with bench.driver() as driver:
        spec = bench.spec()
        proxy.instead, proxy.seen = tokens.instead, tokens.seen
        first = await driver.create_guest(spec)
        nothing = Answer(200, {}, b"<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>")
        proxy.instead = lambda request: (
            nothing if action_of(request) == "DescribeInstances" else tokens.instead(request)
        )
        assert (await driver.create_guest(spec)).key == first.key
        proxy.instead = tokens.instead
        await driver.delete_guest(spec.mark.uuid)


async def test_an_image_that_is_not_listed_yet_is_being_made(proxy: FaultProxy, moto: tuple[str, int]) -> None:
    bench = compute_bench(proxy, moto)
    nothing = Answer(200, {}, b"<DescribeImagesResponse><imagesSet/></DescribeImagesResponse>")
    async with bench.driver() as driver:
        assert isinstance(driver, ec2.Ec2Driver)
        spec = bench.spec()
        await driver.create_guest(spec)
        mark = Mark(spec.mark.installation, new_uuid(), 1)
        proxy.instead = lambda request: nothing if action_of(request) == "DescribeImages" else None
        made = await driver.snapshot_guest(spec.mark.uuid, mark, "x")
        assert (made.mark, made.state) == (mark, "building")
        proxy.instead = lambda request: None
        assert (await driver.snapshot_guest(spec.mark.uuid, mark, "x")).key == made.key
        await driver.delete_snapshot(mark.uuid)
        await driver.delete_guest(spec.mark.uuid)


class Behind:
    """An instance that is made is not listed at the first look, and then for ever as it was at the second."""

    def __init__(self) -> None:
        self._made, self._looks = False, 0
        self._known: Answer | None = None

    def instead(self, request: Request) -> Answer | None:
        action = action_of(request)
        self._made = self._made or action == "RunInstances"
        if action != "DescribeInstances" or not self._made:
            return None
        self._looks += 1
        if self._looks == 1:
            return Answer(200, {}, b"<DescribeInstancesResponse><reservationSet/></DescribeInstancesResponse>")
        return self._known

    def seen(self, request: Request, answer: Answer) -> None:
        if action_of(request) == "DescribeInstances" and self._made:
            self._known = answer


async def test_an_instance_that_is_listed_late_is_given_volumes_and_gives_them_back(
    proxy: FaultProxy, moto: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ec2, "LOOK_SECONDS", 0.01)
    compute, behind, client = compute_bench(proxy, moto), Behind(), client_of(moto)
    storage = StorageBench(open=None, pool=f"{ZONE}.gp3")  # type: ignore[arg-type]  # only its specs are used
    wanted = [storage.spec(), storage.spec()]
    context = DriverContext("bench", "conformance-a")
    async with compute.driver() as guests, ebs.open_driver(account(proxy), context) as volumes:
        keys = [(await volumes.create_volume(each)).key for each in wanted]
        there = [await volumes.connect(each.mark.uuid, ZONE) for each in wanted]
        proxy.instead, proxy.seen = behind.instead, behind.seen
        spec = compute.spec()._replace(volumes=tuple(there))
        await guests.create_guest(spec)
        found = client.describe_volumes(VolumeIds=keys)["Volumes"]
        assert sorted(each["Attachments"][0]["Device"] for each in found) == ["/dev/sdf", "/dev/sdg"]
        assert isinstance(guests, ec2.Ec2Driver)
        for each in wanted:
            await guests.detach(spec.mark.uuid, each.mark.uuid)
        assert not any(each["Attachments"] for each in client.describe_volumes(VolumeIds=keys)["Volumes"])
        for each in wanted:
            await volumes.delete_volume(each.mark.uuid)
        await guests.delete_guest(spec.mark.uuid)


async def test_a_device_name_that_another_volume_has_is_a_conflict(proxy: FaultProxy, moto: tuple[str, int]) -> None:
    """The next call finds another name free."""
    compute = compute_bench(proxy, moto)
    problem = "Invalid value '/dev/sdf' for unixDevice. Attachment point /dev/sdf is already in use"
    taken = f"<Response><Errors><Error><Code>InvalidParameterValue</Code><Message>{problem}</Message></Error></Errors>"
    async with compute.driver() as guests:
        assert isinstance(guests, ec2.Ec2Driver)
        spec = compute.spec()
        await guests.create_guest(spec)
        refusal = Answer(400, {}, f"{taken}</Response>".encode())
        proxy.instead = lambda request: refusal if action_of(request) == "AttachVolume" else None
        with pytest.raises(Conflict):
            await guests.attach(spec.mark.uuid, Connection(volume=new_uuid(), protocol="ebs", address="vol-1"))
        proxy.instead = lambda request: None
        await guests.delete_guest(spec.mark.uuid)


async def test_a_guest_is_given_a_volume_and_gives_it_back(proxy: FaultProxy, moto: tuple[str, int]) -> None:
    compute = compute_bench(proxy, moto)
    context = DriverContext("bench", "conformance-a")
    async with compute.driver() as guests, ebs.open_driver(account(proxy), context) as volumes:
        volume = StorageBench(open=None, pool=f"{ZONE}.gp3").spec()  # type: ignore[arg-type]  # only its specs are used
        await volumes.create_volume(volume)
        connection = await volumes.connect(volume.mark.uuid, ZONE)
        spec = compute.spec()._replace(volumes=(connection,))
        assert (await guests.create_guest(spec)).volumes == (volume.mark.uuid,)
        assert isinstance(guests, ec2.Ec2Driver)
        await guests.attach(spec.mark.uuid, connection)
        assert (await volumes.get_volume(volume.mark.uuid)).state == "in_use"
        with pytest.raises(DriverError) as caught:
            await volumes.delete_volume(volume.mark.uuid)
        assert caught.value.failure == "conflict"
        for _ in range(2):
            assert await guests.detach(spec.mark.uuid, volume.mark.uuid)
        assert (await guests.get_guest(spec.mark.uuid)).volumes == ()
        await volumes.delete_volume(volume.mark.uuid)
        await guests.delete_guest(spec.mark.uuid)


async def test_volumes_that_cannot_be_attached_are_refused_before_an_instance_runs(
    proxy: FaultProxy, moto: tuple[str, int]
) -> None:
    compute = compute_bench(proxy, moto)
    own = Connection(volume=new_uuid(), protocol="ebs", address="vol-1")
    other = Connection(volume=new_uuid(), protocol="iscsi", address="10.0.0.1:3260")
    async with compute.driver() as guests:
        for volumes, why in (((own, other), "no iscsi"), ((own,) * 12, "at most 11")):
            spec, before = compute.spec()._replace(volumes=volumes), len(proxy.requests)
            with pytest.raises(Permanent, match=why):
                await guests.create_guest(spec)
            assert "RunInstances" not in [action_of(each) for each in proxy.requests[before:]]


async def test_the_cheapest_type_that_fits_is_taken(proxy: FaultProxy, moto: tuple[str, int]) -> None:
    bench, client = compute_bench(proxy, moto), client_of(moto)
    async with bench.driver() as driver:
        spec = bench.spec()._replace(vcpus=1, memory_mb=3_000)
        guest = await driver.create_guest(spec)
        assert (guest.vcpus, guest.memory_mb) == (2, 8_192)
        found = client.describe_instances(InstanceIds=[guest.key])["Reservations"][0]["Instances"][0]
        assert found["InstanceType"] == "m5.large"
        with pytest.raises(Permanent, match="no configured instance type"):
            await driver.create_guest(bench.spec()._replace(vcpus=1_000))
        await driver.delete_guest(spec.mark.uuid)


async def test_instances_made_twice_are_reduced_to_the_first(proxy: FaultProxy, moto: tuple[str, int]) -> None:
    """Where the cloud ignores client tokens, a crash between two requests can leave two instances of one claim."""
    bench, client = compute_bench(proxy, moto), client_of(moto)
    async with bench.driver() as driver:
        spec = bench.spec()
        first = await driver.create_guest(spec)
        tags = client.describe_instances(InstanceIds=[first.key])["Reservations"][0]["Instances"][0]["Tags"]
        client.run_instances(
            ImageId=IMAGE,
            InstanceType="t3.micro",
            MinCount=1,
            MaxCount=1,
            TagSpecifications=[{"ResourceType": "instance", "Tags": tags}],
        )
        await driver.create_guest(spec)
        found = [guest async for page in driver.guests() for guest in page.items if guest.mark == spec.mark]
        assert len(found) == 1
        await driver.delete_guest(spec.mark.uuid)


async def test_user_data_disk_and_security_groups_are_passed_on(proxy: FaultProxy, moto: tuple[str, int]) -> None:
    bench, client = compute_bench(proxy, moto), client_of(moto)
    async with bench.driver() as driver:
        spec = bench.spec()._replace(user_data="#cloud-config\n", disk_gb=33)
        guest = await driver.create_guest(spec)
        data = client.describe_instance_attribute(InstanceId=guest.key, Attribute="userData")["UserData"]["Value"]
        assert data == "I2Nsb3VkLWNvbmZpZwo="
        attached = [{"Name": "attachment.instance-id", "Values": [guest.key]}]
        assert [each["Size"] for each in client.describe_volumes(Filters=attached)["Volumes"]] == [33]
        await driver.delete_guest(spec.mark.uuid)


def error_answer(code: str, status: int) -> Answer:
    body = f"<Response><Errors><Error><Code>{code}</Code><Message>no</Message></Error></Errors></Response>"
    return Answer(status, {"Content-Type": "text/xml"}, body.encode())


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (error_answer("InsufficientInstanceCapacity", 500), Capacity),
        (error_answer("VcpuLimitExceeded", 400), Quota),
        (error_answer("SomethingNewLimitExceeded", 400), Quota),
        (error_answer("RequestLimitExceeded", 503), Transient),
        (error_answer("UnauthorizedOperation", 403), Denied),
        (error_answer("InvalidAMIID.NotFound", 400), NotFound),
        (error_answer("InvalidAMIID.Malformed", 400), Permanent),
        (error_answer("SomethingElse", 400), Permanent),
        (error_answer("SomethingElse", 500), Unknown),
        (Answer(503, {"Retry-After": "7"}, b"<html>busy</html>"), Transient),
        (Answer(502, {}, b"<html><body>Bad Gateway"), Unknown),
        (Answer(200, {}, b"not XML"), Unknown),
        (Answer(200, {}, b"<html></html>"), Unknown),
    ],
)
async def test_a_refused_instance_is_an_error_of_its_class(
    proxy: FaultProxy, moto: tuple[str, int], answer: Answer, expected: type[DriverError]
) -> None:
    bench = compute_bench(proxy, moto)
    async with bench.driver() as driver:
        proxy.instead = lambda request: answer if action_of(request) == "RunInstances" else None
        with pytest.raises(DriverError) as caught:
            await driver.create_guest(bench.spec())
        assert type(caught.value) is expected
        if isinstance(caught.value, Transient) and answer.headers.get("Retry-After"):
            assert caught.value.after == 7.0


async def test_another_document_is_no_empty_listing(proxy: FaultProxy, moto: tuple[str, int]) -> None:
    async with compute_bench(proxy, moto).driver() as driver:
        proxy.instead = lambda request: Answer(200, {}, b"<html></html>")
        for listing in (driver.guests, driver.nodes):
            with pytest.raises(Transient, match="a document html"):
                [page async for page in listing()]


async def test_a_truncated_answer_is_of_unknown_outcome(proxy: FaultProxy, moto: tuple[str, int]) -> None:
    bench = compute_bench(proxy, moto)
    async with bench.driver() as driver:
        spec = bench.spec()
        proxy.fault = "truncate"
        with pytest.raises(Unknown):
            await driver.create_guest(spec)
        proxy.fault = "none"
        assert (await driver.get_guest(spec.mark.uuid)).mark == spec.mark
        await driver.delete_guest(spec.mark.uuid)


@pytest.mark.parametrize("code", sorted(ec2_api.ERRORS))
def test_each_code_has_its_class(code: str) -> None:
    assert type(ec2_api.error_of(code, "x", reads=False)) is ec2_api.ERRORS[code]


async def test_a_type_that_does_not_exist_is_refused(proxy: FaultProxy) -> None:
    with pytest.raises(DriverError, match=r"zz\.big"):
        async with ec2.open_driver({**account(proxy), "types": {"zz.big": 1.0}}, DriverContext("a", "b")):
            pass


async def test_half_of_a_key_is_refused(proxy: FaultProxy) -> None:
    options = {"region": REGION, "access_key": "a", "types": TYPES}
    with pytest.raises(InvalidValue, match="belong together"):
        async with ec2.open_driver(options, DriverContext("a", "b")):
            pass


async def test_a_back_end_that_is_not_there_is_transient() -> None:
    options = {"region": REGION, "access_key": "a", "secret_key": "b", "endpoint": "http://127.0.0.1:9/"}
    with pytest.raises(Transient):
        async with ebs.open_driver(options, DriverContext("a", "b")):
            pass


async def test_an_image_of_a_guest_has_none_of_its_volumes_and_reboots_nothing() -> None:
    """Moto takes no notice of either."""
    devices = "".join(
        f"<item><deviceName>{device}</deviceName></item>" for device in ("/dev/sda1", "/dev/sdf", "/dev/sdg")
    )
    instance = ElementTree.fromstring(
        "<item><instanceId>i-1</instanceId><rootDeviceName>/dev/sda1</rootDeviceName>"
        f"<blockDeviceMapping>{devices}</blockDeviceMapping></item>"
    )
    asked = list[tuple[str, dict[str, Any]]]()

    class Api:
        async def call(self, action: str, parameters: dict[str, Any]) -> ElementTree.Element:
            asked.append((action, parameters))
            return ElementTree.Element("CreateImageResponse")

    await ec2_images.make(Api(), instance, Mark("a", new_uuid(), 3), "x")  # type: ignore[arg-type]  # only call is used
    ((action, parameters),) = asked
    assert (action, parameters["InstanceId"], parameters["NoReboot"]) == ("CreateImage", "i-1", True)
    assert [each["DeviceName"] for each in parameters["BlockDeviceMapping"]] == ["/dev/sdf", "/dev/sdg"]
    assert all(each["NoDevice"] == "" for each in parameters["BlockDeviceMapping"])
