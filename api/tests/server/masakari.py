"""Drives pallium's Masakari API with the real client and the monitors' own sender.

Argument: the address of the API's port. Prints one line a thing that was seen; ends with an error at the first
that is not as Masakari has it.
"""

import sys

from keystoneauth1 import noauth, session
from openstack import connection, exceptions
from masakarimonitors.ha import masakari as sender

URL = f"http://{sys.argv[1]}/v1"


def client(endpoint, version=None):
    held = session.Session(auth=noauth.NoAuth(endpoint=endpoint))
    more = {"ha_default_microversion": version} if version else {}
    return connection.Connection(session=held, instance_ha_endpoint_override=endpoint, **more).instance_ha


def refused(call, status):
    try:
        call()
    except exceptions.HttpException as error:
        assert error.status_code == status, (error.status_code, status, error)
        return str(error)
    raise AssertionError(f"taken, {status} expected")


def main():
    ha = client(URL)
    segment = ha.create_segment(name="one", recovery_method="auto", service_type="COMPUTE", description="first")
    assert segment.name == "one" and segment.uuid, segment
    refused(lambda: ha.create_segment(name="one", recovery_method="auto", service_type="COMPUTE"), 409)
    refused(lambda: ha.create_segment(name="two", recovery_method="never", service_type="COMPUTE"), 400)
    assert ha.update_segment(segment.uuid, description="changed").description == "changed"
    assert [known.uuid for known in ha.segments()] == [segment.uuid]
    print("segments")

    host = ha.create_host(segment.uuid, name="node-1", type="COMPUTE", control_attributes="SSH")
    ha.create_host(segment.uuid, name="node-2", type="COMPUTE", control_attributes="SSH", reserved=True)
    refused(lambda: ha.create_host(segment.uuid, name="nobody", type="COMPUTE", control_attributes="SSH"), 400)
    assert {known.name for known in ha.hosts(segment.uuid)} == {"node-1", "node-2"}
    assert [known.name for known in ha.hosts(segment.uuid, reserved="true")] == ["node-2"]
    assert ha.get_host(host.uuid, segment.uuid).failover_segment_id == segment.uuid
    print("hosts")

    def notify(kind, generated, payload, hostname="node-1"):
        return ha.create_notification(type=kind, hostname=hostname, generated_time=generated, payload=payload)

    stopped = {"event": "STOPPED", "host_status": "NORMAL", "cluster_status": "OFFLINE"}
    made = notify("COMPUTE_HOST", "2026-11-26 10:00:00.000001", stopped)
    assert made.status in ("new", "ignored"), made
    process = {"event": "STOPPED", "process_name": "nova-compute"}
    notify("PROCESS", "2026-11-26T10:00:00", process)
    guest = {
        "event": "LIFECYCLE",
        "instance_uuid": "96ab1c42-668c-4f2d-8689-afa3301d4ee9",
        "vir_domain_event": "STOPPED_FAILED",
    }
    notify("VM", "2026-11-26T10:00:00+00:00", guest)
    refused(lambda: notify("COMPUTE_HOST", "2026-11-26T10:02:00", stopped), 409)
    refused(lambda: notify("COMPUTE_HOST", "2026-11-26T10:02:00", stopped, "node-9"), 400)
    refused(lambda: notify("COMPUTE_HOST", "soon", stopped), 400)
    refused(lambda: notify("COMPUTE_HOST", "2026-11-26T10:00:00", {"event": "EXPLODED"}), 400)
    assert {known.type for known in ha.notifications()} == {"COMPUTE_HOST", "PROCESS", "VM"}
    assert [known.type for known in ha.notifications(type="VM", limit=1)] == ["VM"]
    shown = ha.get_notification(made.notification_uuid)
    assert shown.payload == stopped and shown.generated_time == "2026-11-26T10:00:00.000001", shown
    print("notifications")

    newest = client(URL, "1.3")
    assert newest.get_notification(made.notification_uuid).recovery_workflow_details == []
    assert list(newest.vmoves(made.notification_uuid)) == []
    print("versions")

    # The monitors' own sender: what is final for them, and what is not, is by status alone.
    monitor = sender.SendNotification()
    monitor._masakari_client = client(f"{URL}/0123456789abcdef")
    event = {"type": "COMPUTE_HOST", "hostname": "node-2", "generated_time": "2026-11-26 10:00:00", "payload": stopped}
    monitor.send_notification(0, 0, {"notification": event})
    monitor.send_notification(0, 0, {"notification": event})
    ours = [known for known in ha.notifications(type="COMPUTE_HOST") if known.notification_uuid != made.notification_uuid]
    assert len(ours) == 1, ours
    print("monitors")

    assert refused(lambda: ha.get_segment("00000000-0000-0000-0000-000000000000"), 404)
    # Something may still be done about what was said of its hosts.
    refused(lambda: ha.delete_segment(segment.uuid), 409)
    for known in list(ha.hosts(segment.uuid)):
        refused(lambda known=known: ha.delete_host(known.uuid, segment.uuid), 409)
    spare = ha.create_segment(name="spare", recovery_method="auto", service_type="COMPUTE")
    ha.delete_segment(spare.uuid)
    assert [known.uuid for known in ha.segments()] == [segment.uuid]
    print("removed")


main()
