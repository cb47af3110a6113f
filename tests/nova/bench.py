#!/usr/bin/env python3
"""Times the real Nova: one fleet with its requests a line on stdin, one answer a line on stdout.

What is timed is what HostManager does for a request when it has the states of its hosts: the filters
and weighers that Nova enables by default, over all hosts of the fleet. Processor time, seconds; the
answer says how many hosts were ranked for each request too.
"""

import json
import sys
import time

from nova.scheduler import filters
from nova.scheduler import weights
from oslo_utils import timeutils

import driver


def main():
    driver.prepare()
    filter_handler = filters.HostFilterHandler()
    known = driver.classes(filter_handler)
    enabled = [known[name]() for name in driver.CONF.filter_scheduler.enabled_filters]
    weight_handler = weights.HostWeightHandler()
    weighers = [cls() for cls in weight_handler.get_matching_classes(
        driver.CONF.filter_scheduler.weight_classes)]
    for line in sys.stdin:
        given = json.loads(line)
        looked = driver.from_milliseconds(given['observed_at'])
        timeutils.set_time_override(looked)
        hosts = [driver.host_state(host, looked) for host in given['hosts']]
        seconds, ranked = [], []
        for request in given['requests']:
            spec = driver.request_spec(request)
            began = time.process_time()
            left = list(filter_handler.get_filtered_objects(enabled, hosts, spec))
            best = weight_handler.get_weighed_objects(weighers, left, spec)
            seconds.append(time.process_time() - began)
            ranked.append(len(best))
        json.dump({'seconds': seconds, 'ranked': ranked}, sys.stdout)
        sys.stdout.write('\n')
        sys.stdout.flush()


if __name__ == '__main__':
    main()
