/**
 * The Linux kernel as the reference router: a namespace that forwards, filters and translates as a Sluice
 * configuration says, one veth for every port.
 *
 *        outside (no addresses, IPv6 off)            router (kernel)
 *   raw socket ── [lan] ════════ veth ════════ [lan]  forwarding, nftables, conntrack
 *   raw socket ── [wan] ════════ veth ════════ [wan]
 *
 * The ports have the configuration's names, MACs and addresses. Nothing is sent unasked: no DAD, no RS, no MLD, no
 * redirects; neighbours are static; ICMP errors are not rate limited; offloads are off, so that every checksum is
 * computed and checked.
 */
import { Lab } from '../../../controlplane/lab/namespace.ts';
import { ConntrackControl, type ConntrackEntry, parseConntrack } from './conntrack.ts';
import { type RouterConfig, ruleset } from './ruleset.ts';

/** Where fence frames go: one address behind each port, so that a fence crosses the router from any port to any other. */
export function fenceAddress(port: number): string {
  return `198.18.255.${port + 1}`;
}
/** Destination MAC of forwarded fence frames. */
export const FENCE_MAC = '02:fe:fe:fe:fe:fe';

export class KernelRouter {
  readonly lab: Lab;
  readonly ports: string[];
  /** Namespace of the router, and of the outer ends of its links. */
  readonly ns: string;
  readonly outside: string;
  private readonly control: ConntrackControl;
  private readonly shape: string;
  private current: string;

  /** Builds the namespaces; the lab is closed by close(). Throws LabError where no lab can be. */
  constructor(config: RouterConfig) {
    this.lab = new Lab();
    this.ports = Object.keys(config.ports);
    this.shape = shapeOf(config);
    this.current = JSON.stringify(config);
    this.ns = this.lab.namespace('kernel');
    this.outside = this.lab.namespace('outside');
    try {
      this.build(config);
      this.control = new ConntrackControl(this.ns);
    } catch (error) {
      this.lab.close();
      throw error;
    }
  }

  private build(config: RouterConfig): void {
    const { lab, ns, outside } = this;
    const router: Record<string, number | string> = {
      'net.ipv4.ip_forward': 1,
      'net.ipv6.conf.all.forwarding': 1,
      'net.ipv6.conf.default.forwarding': 1,
      'net.ipv6.auto_flowlabels': 0,
      'net.ipv4.icmp_ratelimit': 0,
      'net.ipv6.icmp.ratelimit': 0,
      'net.netfilter.nf_conntrack_tcp_be_liberal': config.conntrack?.['tcp-liberal'] ? 1 : 0,
    };
    for (const scope of ['all', 'default']) {
      router[`net.ipv4.conf.${scope}.send_redirects`] = 0;
      router[`net.ipv4.conf.${scope}.accept_redirects`] = 0;
      router[`net.ipv6.conf.${scope}.accept_redirects`] = 0;
    }
    lab.sysctl(ns, router);
    lab.sysctl(outside, { 'net.ipv6.conf.default.disable_ipv6': 1 });
    // The ruleset comes before the links are up: it holds back what the kernel would say of itself.
    lab.shell(ns, `nft -f - <<'END'\n${ruleset(config)}END`);
    // Since Linux 6.11 this limit belongs to the namespace; before, it is the machine's and generous enough.
    lab.shell(
      ns,
      '[ ! -w /proc/sys/net/ipv4/icmp_msgs_per_sec ] || echo 1000000 > /proc/sys/net/ipv4/icmp_msgs_per_sec',
    );
    for (const [name, port] of Object.entries(config.ports)) {
      lab.veth(
        { ns, name, mac: port.mac, mtu: port.mtu, addresses: port.addresses, offloads: false },
        { ns: outside, name, mtu: port.mtu, offloads: false },
      );
    }
    this.ports.forEach((name, n) => {
      // A neighbour that nobody has named is asked for once, and nothing follows later in another scenario.
      for (const ip of ['ipv4', 'ipv6']) lab.sysctl(ns, { [`net.${ip}.neigh.${name}.retrans_time_ms`]: 3_600_000 });
      lab.ip(ns, `route add ${fenceAddress(n)}/32 dev ${name}`);
      lab.neighbour(ns, name, fenceAddress(n), FENCE_MAC);
    });
    for (const n of config.neighbors ?? []) lab.neighbour(ns, n.port, n.ip, n.mac);
    for (const r of config.routes ?? []) lab.route(ns, r.to, r.via);
    lab.apply();
  }

  /** True when `configure` can take this configuration: same ports, addresses, routes and neighbours. */
  accepts(config: RouterConfig): boolean {
    return shapeOf(config) === this.shape;
  }

  /** Replaces filter, NAT and helpers and forgets all connections. Costs a process only when something differs. */
  configure(config: RouterConfig): void {
    if (!this.accepts(config))
      throw new Error(
        'kernel router: expected the same ports, routes and neighbours, got others; make a new KernelRouter',
      );
    const wanted = JSON.stringify(config);
    if (wanted !== this.current) {
      this.lab.runSync(this.ns, 'nft', ['-f', '-'], { input: ruleset(config) });
      const liberal = config.conntrack?.['tcp-liberal'] ? 1 : 0;
      this.lab.sysctl(this.ns, { 'net.netfilter.nf_conntrack_tcp_be_liberal': liberal });
      this.lab.apply();
      this.current = wanted;
    }
    this.flush();
  }

  /** Forgets all connections and expectations. */
  flush(): void {
    this.control.flush();
    this.control.flushExpectations();
  }

  /** The connection table, parsed. */
  conntrack(): ConntrackEntry[] {
    const dumps = ['ipv4', 'ipv6'].map((f) =>
      this.lab.runSync(this.ns, 'conntrack', ['-L', '-f', f, '-o', 'extended']),
    );
    return dumps.flatMap((d) => parseConntrack(d.stdout));
  }

  /** The expectation table in the conntrack tool's text. */
  expectations(): string {
    return this.lab.runSync(this.ns, 'conntrack', ['-L', 'expect']).stdout;
  }

  close(): void {
    this.control.close();
    this.lab.close();
  }
}

function shapeOf(config: RouterConfig): string {
  return JSON.stringify([config.ports, config.routes ?? [], config.neighbors ?? []]);
}
