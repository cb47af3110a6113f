#!/usr/bin/env python3
"""Asks the real Nova: one case a line on stdin, one answer a line on stdout.

A case has hosts, a request and the names and options of filters and weighers. The answer says for each
filter what became of each host ("keep", "drop", or "raise" with the exception), for each weigher the
raw values and what they add to the weight, and how Nova ranks the hosts that every filter keeps. Nothing here knows
pallium, and nothing of Nova is replaced but the clock and the database behind one weigher.
"""

import contextlib
import datetime
import importlib
import itertools
import json
import logging
import sys
from types import SimpleNamespace
import uuid

import nova.conf
from nova import exception
from nova import objects
from nova.pci import stats as pci_stats
from nova.scheduler import filters
from nova.scheduler import host_manager
from nova.scheduler import utils
from nova.scheduler import weights
from nova.scheduler.weights import image_props
from nova.virt import hardware
from nova.weights import normalize
from oslo_utils import timeutils

CONF = nova.conf.CONF

# The group of an option that is not in [filter_scheduler].
GROUPS = {
    'service_down_time': None,
    'weight_setting': 'metrics',
    'weight_multiplier': 'metrics',
    'required': 'metrics',
    'weight_of_unavailable': 'metrics',
}


class Instances(list):
    """Stands for objects.InstanceList: its instances have their metadata."""

    def __init__(self, context, objects):
        super().__init__(objects)

    def fill_metadata(self):
        pass


@contextlib.contextmanager
def cell(context, mapping):
    yield context


def without_database():
    """The image properties weigher reads instances from their cell's database: let it have them."""
    image_props.objects = SimpleNamespace(
        CellMapping=SimpleNamespace(get_by_uuid=lambda context, uuid: None),
        InstanceList=Instances)
    image_props.nova_context = SimpleNamespace(
        get_admin_context=lambda: None, target_cell=cell)


def classes(handler):
    return {cls.__name__: cls for cls in handler.get_all_classes()}


def instance(properties):
    held = SimpleNamespace(to_dict=lambda: properties)
    return SimpleNamespace(image_meta=SimpleNamespace(properties=held))


def network(given):
    return objects.NetworkMetadata(
        physnets=set(given['physnets']), tunneled=given['tunneled'])


def host_cell(given):
    cell = objects.NUMACell(
        id=given['id'], cpuset=set(given['cpuset']),
        pcpuset=set(given['pcpuset']), memory=given['memory'],
        cpu_usage=given['cpu_usage'], memory_usage=given['memory_usage'],
        pinned_cpus=set(given['pinned_cpus']),
        siblings=[set(core) for core in given['siblings']],
        mempages=[
            objects.NUMAPagesTopology(**pages) for pages in given['mempages']])
    if 'network_metadata' in given:
        cell.network_metadata = network(given['network_metadata'])
    return cell


def guest_topology(given):
    return objects.InstanceNUMATopology(
        emulator_threads_policy='isolate' if given['emulator_isolated'] else None,
        cells=[
            objects.InstanceNUMACell(
                id=at, cpuset=set(range(cell['shared'])),
                pcpuset=set(range(100, 100 + cell['dedicated'])),
                memory=cell['memory_mb'], pagesize=cell['page_kib'] or None,
                cpu_policy=cell['policy'].lower(),
                cpu_thread_policy=cell['threads'].lower())
            for at, cell in enumerate(given['cells'])])


def fits_some_way(host, spec):
    """Nova's search over host cells marks pairs that it tried by the id of the
    guest's cell, which it sets to the host's on the way: with several cells it
    may miss a fit. The same search without marks, with Nova's check of a pair.
    """
    limits = objects.NUMATopologyLimits(
        cpu_allocation_ratio=host.cpu_allocation_ratio,
        ram_allocation_ratio=host.ram_allocation_ratio)
    guest = spec.numa_topology
    network_metadata = spec.network_metadata

    def fit(at, cell):
        reserved = 1 if at == 0 and guest.emulator_threads_isolated else 0
        try:
            return hardware._numa_fit_instance_cell(
                cell, guest.cells[at].obj_clone(), limits, reserved) is not None
        except exception.MemoryPageSizeNotSupported:
            return False

    return any(
        all(fit(at, cell) for at, cell in enumerate(cells))
        and hardware._numa_cells_support_network_metadata(
            host.numa_topology, cells, network_metadata)
        for cells in itertools.permutations(
            host.numa_topology.cells, len(guest.cells)))


def passes(filter_, host, spec):
    if type(filter_).__name__ == 'NUMATopologyFilter':
        spec = spec.obj_clone()
        # The affinity of devices is not compared, and a real request has an image.
        spec.pci_requests = None
        spec.image = spec.image or objects.ImageMeta(
            properties=objects.ImageMetaProps())
        kept = host.allocation_candidates, host.pci_stats
        host.allocation_candidates, host.pci_stats = [{'mappings': {}}], None
        says = filter_._filter_one(host, spec)
        host.allocation_candidates, host.pci_stats = kept
        several = spec.numa_topology and len(spec.numa_topology.cells) > 1
        if (several and host.numa_topology
                and not utils.request_is_rebuild(spec)
                and filter_._satisfies_cpu_policy(
                    host, spec.flavor.extra_specs, spec.image.properties)):
            return fits_some_way(host, spec)
        return says
    return filter_._filter_one(host, spec)


def host_state(given, looked):
    state = dict(given['state'])
    host = host_manager.HostState(
        given['host'], given['node'], state.pop('cell_uuid', None))
    host.uuid = given['uuid']
    host.hypervisor_hostname = given['node']
    host.stats = state.pop('stats', None) or {}
    seen = state.pop('last_seen_up', None)
    seen = looked if seen is None else from_milliseconds(seen)
    host.service = host_manager.ReadOnlyDict({
        'disabled': given['disabled'], 'forced_down': given['forced_down'],
        'last_seen_up': seen, 'created_at': seen, 'host': given['host'],
        'binary': 'nova-compute'})
    host.aggregates = [
        objects.Aggregate(metadata=metadata) for metadata in given['aggregates']]
    host.instances = {uuid: instance({}) for uuid in given['instances']}
    for name, values in (state.pop('image_properties', None) or {}).items():
        for value, count in values.items():
            for _ in range(count):
                host.instances[str(uuid.uuid4())] = instance({name: value})
    pools = state.pop('pci_stats', None)
    if pools is not None:
        host.pci_stats = pci_stats.PciDeviceStats(None)
        host.pci_stats.pools = sorted(pools, key=len)
    cells = state.pop('numa_topology', None)
    if cells is not None:
        host.numa_topology = objects.NUMATopology(
            cells=[host_cell(cell) for cell in cells['cells']])
    host.allocation_candidates = [{'mappings': {}}]
    metrics = state.pop('metrics', None)
    if metrics is not None:
        host.metrics = [SimpleNamespace(**metric) for metric in metrics]
    for name, value in state.items():
        setattr(host, name, value)
    return host


def request_spec(given):
    spec = objects.RequestSpec(
        instance_uuid=given['instance_uuid'], project_id=given['project_id'],
        flavor=objects.Flavor(
            name=given['flavor'], extra_specs=given['extra_specs']),
        scheduler_hints=given['hints'], instance_group=None, image=None,
        requested_destination=None, numa_topology=None,
        pci_requests=objects.InstancePCIRequests(requests=[
            objects.InstancePCIRequest(
                count=request['count'], spec=request['specs'],
                alias_name='any', requester_id=None, numa_policy=None,
                request_id=given['instance_uuid'])
            for request in given['pci']]))
    numa = given.get('numa')
    if numa is not None:
        spec.numa_topology = guest_topology(numa)
        spec.network_metadata = network(numa)
    image = given['image']
    if image is not None:
        spec.image = objects.ImageMeta(
            properties=objects.ImageMetaProps(**image['properties']))
        if image['id'] is not None:
            spec.image.id = image['id']
    group = given['group']
    if group is not None:
        spec.instance_group = objects.InstanceGroup(
            uuid=group['uuid'], policy=group['policy'],
            policies=[group['policy']], members=group['members'],
            hosts=group['hosts'],
            _rules={'max_server_per_host': str(group['max'])})
    if given['cell'] is not None:
        spec.requested_destination = objects.Destination(
            cell=objects.CellMapping(uuid=given['cell']),
            allow_cross_cell_move=given['allow_cross_cell_move'])
    return spec


def from_milliseconds(milliseconds):
    return datetime.datetime(1970, 1, 1) + datetime.timedelta(
        milliseconds=milliseconds)


@contextlib.contextmanager
def options(given):
    for name, value in given.items():
        CONF.set_override(name, value, group=GROUPS.get(name, 'filter_scheduler'))
    try:
        yield
    finally:
        for name in given:
            CONF.clear_override(
                name, group=GROUPS.get(name, 'filter_scheduler'))


def attempt(ask):
    try:
        return ask()
    except Exception as error:
        return 'raise: %s: %s' % (type(error).__name__, error)


def scores(weigher, hosts, spec):
    weighed = [weights.WeighedHost(host, 0.0) for host in hosts]
    raw = weigher.weigh_objects(weighed, spec)
    norm = normalize(raw, minval=weigher.minval, maxval=weigher.maxval)
    return [weigher.weight_multiplier(host) * value
            for host, value in zip(hosts, norm)]


def answer(case, filter_classes, weigher_classes, handler):
    looked = from_milliseconds(case['observed_at'])
    timeutils.set_time_override(looked)
    hosts = [host_state(given, looked) for given in case['hosts']]
    spec = request_spec(case['request'])
    out = {'filters': [], 'weighers': [], 'ranking': None}
    left = list(hosts)
    for step in case['filters']:
        with options(step['options']):
            filter_ = filter_classes[step['name']]()
            verdicts = [
                attempt(lambda: 'keep' if passes(filter_, host, spec) else 'drop')
                for host in hosts]
        out['filters'].append(verdicts)
        left = [host for host, verdict in zip(hosts, verdicts)
                if verdict == 'keep' and host in left]
    with contextlib.ExitStack() as stack:
        weighers = []
        for step in case['weighers']:
            stack.enter_context(options(step['options']))
            weigher = weigher_classes[step['name']]()
            weighers.append(weigher)
            out['weighers'].append({
                'raw': [attempt(lambda: weigher._weigh_object(host, spec))
                        for host in hosts],
                'scores': attempt(lambda: scores(weigher, hosts, spec))})
        out['ranking'] = attempt(lambda: [
            [weighed.obj.host, weighed.weight] for weighed in
            handler.get_weighed_objects(weighers, left, spec)])
    return out


def prepare():
    logging.disable(logging.CRITICAL)
    CONF([], project='nova', default_config_files=[])
    objects.register_all()
    importlib.import_module('nova.servicegroup.drivers.db')
    without_database()


def main():
    prepare()
    filter_classes = classes(filters.HostFilterHandler())
    handler = weights.HostWeightHandler()
    weigher_classes = classes(handler)
    for line in sys.stdin:
        json.dump(answer(json.loads(line), filter_classes, weigher_classes,
                         handler), sys.stdout)
        sys.stdout.write('\n')
        sys.stdout.flush()


if __name__ == '__main__':
    main()
