/** What of the host a live router takes: addresses on sluice0, and capabilities. */
import { describe, expect, it } from 'vitest';
import { needed } from '../../../controlplane/cli/run.ts';
import { parseConfig } from '../../../controlplane/config/index.ts';
import { isPrivate } from '../../../controlplane/live/hostport.ts';
import {
  CAP_BPF,
  CAP_NET_ADMIN,
  CAP_NET_BIND_SERVICE,
  CAP_NET_RAW,
  CAP_PERFMON,
} from '../../../controlplane/live/privileges.ts';

const PORTS = `
ports:
  lan: { kind: tap, ifname: t0, zone: lan, addresses: [192.0.2.1/28] }
  guest: { parent: lan, vlan: 20, zone: lan, addresses: [192.0.2.17/28] }
  wan: { kind: packet, ifname: eth9, zone: lan, addresses: [192.0.2.33/28] }
  tv: { parent: wan, vlan: 7, zone: lan, addresses: [192.0.2.49/28] }
zones: { lan: { forward: accept, input: accept } }
`;

describe('sluice0', () => {
  it('had the addresses of a shared device too, so that the host kernel reset every connection beside the router', () => {
    const config = parseConfig(PORTS, 'test.yaml');
    const given = config.ports.filter((port) => isPrivate(config, port)).map(({ name }) => name);
    expect(given).toEqual(['lan', 'guest']);
  });
});

describe('capabilities', () => {
  const token = 'token: a-token-of-twenty-or-so';

  it('a port below 1024 could not be bound any more once privileges were given up', () => {
    const low = parseConfig(`${PORTS}\napi: { listen: "127.0.0.1:443", ${token} }\n`, 'test.yaml');
    expect(needed(low)).toContain(CAP_NET_BIND_SERVICE);
    const snmp = parseConfig(`${PORTS}\nsnmp: { listen: "127.0.0.1:161", community: a-long-community }\n`, 'test.yaml');
    expect(needed(snmp)).toContain(CAP_NET_BIND_SERVICE);
  });

  it('are two, and no more, where no such port is asked for', () => {
    const high = parseConfig(`${PORTS}\napi: { listen: "127.0.0.1:8443", ${token} }\n`, 'test.yaml');
    for (const config of [high, parseConfig(PORTS, 'test.yaml')])
      expect(needed(config)).toEqual([CAP_NET_ADMIN, CAP_NET_RAW]);
  });

  it('are more for eBPF: for receive rings, where a port can have one, and for the kernel engine', () => {
    const tap = parseConfig('ports: { lan: { kind: tap, addresses: [10.0.0.1/24] } }\n', 'test.yaml');
    expect(needed(tap, 'uring')).toEqual([CAP_NET_ADMIN, CAP_NET_RAW]);
    expect(needed(tap, 'bpf')).toEqual([CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF]);
    const packet = 'ports: { lan: { kind: packet, addresses: [10.0.0.1/24] } }\n';
    expect(needed(parseConfig(packet, 'test.yaml'), 'bpf')).toEqual([CAP_NET_ADMIN, CAP_NET_RAW]);
    const engine = parseConfig(`${packet}offload: { engine: kernel }\n`, 'test.yaml');
    expect(needed(engine)).toEqual([CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF, CAP_PERFMON]);
  });
});
