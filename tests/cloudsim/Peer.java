import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.zip.GZIPInputStream;

import com.sun.management.OperatingSystemMXBean;
import ch.qos.logback.classic.Level;
import org.cloudsimplus.allocationpolicies.VmAllocationPolicy;
import org.cloudsimplus.allocationpolicies.VmAllocationPolicyBestFit;
import org.cloudsimplus.allocationpolicies.VmAllocationPolicyFirstFit;
import org.cloudsimplus.brokers.DatacenterBrokerSimple;
import org.cloudsimplus.core.CloudSimPlus;
import org.cloudsimplus.core.CloudSimTag;
import org.cloudsimplus.core.events.SimEvent;
import org.cloudsimplus.datacenters.Datacenter;
import org.cloudsimplus.datacenters.DatacenterSimple;
import org.cloudsimplus.hosts.Host;
import org.cloudsimplus.hosts.HostSimple;
import org.cloudsimplus.resources.Pe;
import org.cloudsimplus.resources.PeSimple;
import org.cloudsimplus.util.Log;
import org.cloudsimplus.vms.Vm;
import org.cloudsimplus.vms.VmSimple;

/**
 * Plays the beginning of a trace into CloudSim Plus, as the bench `replay` plays it into pallium, and prints what it
 * took: EVENTS.csv.gz HOSTS.csv, the number of hosts, the number of events, the policy (best-fit or first-fit).
 *
 * Timed is the simulation from start to end, not the reading of files nor the making of hosts and VMs. A VM has its
 * cores and memory and nothing else: no cloudlets, no storage, no bandwidth, no power models, no logging. The
 * broker's lists (waiting, created, running) are searched from the front for each VM, so its place is taken by an
 * entity that sends the datacenter what the broker would send.
 */
public final class Peer {
    private record Event(double time, boolean create, Vm vm) {}

    /** Sends the datacenter each create and delete at its time, and counts the answers. */
    private static final class Player extends DatacenterBrokerSimple {
        private static final int NEXT = 9_001;
        private final List<Event> events;
        private final Datacenter datacenter;
        private int at;
        private long placed;
        private long rejected;

        Player(CloudSimPlus simulation, Datacenter datacenter, List<Event> events) {
            super(simulation);
            this.datacenter = datacenter;
            this.events = events;
        }

        @Override
        public void startInternal() {
            schedule(events.get(0).time(), NEXT);
        }

        @Override
        public void processEvent(SimEvent event) {
            if (event.getTag() == NEXT) {
                play();
            } else if (event.getTag() == CloudSimTag.VM_CREATE_ACK) {
                if (((Vm) event.getData()).isCreated()) {
                    placed++;
                } else {
                    rejected++;
                }
            }
        }

        /** What happens now; of one second, deletes stand before creates in the trace, so a VM is known by then. */
        private void play() {
            double now = events.get(at).time();
            for (; at < events.size() && events.get(at).time() == now; at++) {
                Event event = events.get(at);
                if (event.create()) {
                    sendNow(datacenter, CloudSimTag.VM_CREATE_ACK, event.vm());
                } else if (event.vm().isCreated()) {
                    sendNow(datacenter, CloudSimTag.VM_DESTROY, event.vm());
                }
            }
            if (at < events.size()) {
                schedule(events.get(at).time() - now, NEXT);
            }
        }
    }

    public static void main(String[] args) throws IOException {
        if (args.length != 5) {
            System.err.println("Peer EVENTS.csv.gz HOSTS.csv HOSTS EVENTS best-fit|first-fit");
            System.exit(2);
        }
        int count = Integer.parseInt(args[2]);
        int most = Integer.parseInt(args[3]);
        VmAllocationPolicy policy = switch (args[4]) {
            case "best-fit" -> new VmAllocationPolicyBestFit();
            case "first-fit" -> new VmAllocationPolicyFirstFit();
            default -> throw new IllegalArgumentException("policy " + args[4] + ": best-fit or first-fit expected");
        };
        Log.setLevel(Level.OFF);
        CloudSimPlus simulation = new CloudSimPlus();
        Datacenter datacenter = new DatacenterSimple(simulation, hosts(Path.of(args[1]), count), policy);
        List<Event> events = events(Path.of(args[0]), most);
        Player player = new Player(simulation, datacenter, events);
        events.forEach(event -> event.vm().setBroker(player));
        double usedBefore = processor();
        long began = System.nanoTime();
        simulation.start();
        double seconds = (System.nanoTime() - began) / 1e9;
        double used = processor() - usedBefore;
        if (player.at < events.size()) {
            throw new IllegalStateException("the simulation ended at event " + player.at + " of " + events.size());
        }
        long creates = player.placed + player.rejected;
        System.out.printf(
            "BENCH {\"bench\":\"replay\",\"case\":\"CloudSim Plus %s\",\"hosts\":%d,\"count\":%d,\"per_second\":%.1f,"
                + "\"per_cpu_second\":%.1f,\"rejected\":%d,\"peak_mib\":%d}%n",
            args[4], count, creates, creates / seconds, creates / used, player.rejected, peak());
    }

    /** The first `count` rows. */
    private static List<Host> hosts(Path path, int count) throws IOException {
        List<Host> hosts = new ArrayList<>(count);
        List<String> lines = Files.readAllLines(path);
        for (int row = 1; row <= count; row++) {
            String[] cells = lines.get(row).split(",", -1);
            List<Pe> cores = new ArrayList<>();
            for (int core = 0; core < Integer.parseInt(cells[1]); core++) {
                cores.add(new PeSimple(1000));
            }
            hosts.add(new HostSimple(Long.parseLong(cells[2]), 1_000_000, 1_000_000, cores));
        }
        return hosts;
    }

    /** The first `most` events. */
    private static List<Event> events(Path path, int most) throws IOException {
        List<Event> events = new ArrayList<>(most);
        Map<String, Vm> known = new HashMap<>();
        try (BufferedReader lines = new BufferedReader(
                new InputStreamReader(new GZIPInputStream(Files.newInputStream(path)), StandardCharsets.UTF_8))) {
            lines.readLine();
            String line;
            while (events.size() < most && (line = lines.readLine()) != null) {
                String[] cells = line.split(",", -1);
                boolean create = cells[1].equals("create");
                if (create) {
                    Vm vm = new VmSimple(known.size(), 1000, Long.parseLong(cells[3]));
                    vm.setRam(Long.parseLong(cells[4])).setBw(0).setSize(0);
                    known.put(cells[2], vm);
                }
                events.add(new Event(Double.parseDouble(cells[0]), create, known.get(cells[2])));
            }
        }
        return events;
    }

    /** Processor time of this process so far, seconds: the compiler's and the collector's too. */
    private static double processor() {
        return ((OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean()).getProcessCpuTime() / 1e9;
    }

    /** Most memory of this process so far, MiB. */
    private static long peak() throws IOException {
        for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
            if (line.startsWith("VmHWM:")) {
                return Long.parseLong(line.replaceAll("\\D", "")) / 1024;
            }
        }
        return 0;
    }
}
