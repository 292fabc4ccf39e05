/**
 * `sluice run FILE`: a live router, until a signal ends it.
 *
 *   sluice run FILE [--io auto|uring|readwrite|bpf] [--quiet]
 *
 * Messages go to the standard error, one line each. Exit codes: 0 stopped by SIGTERM, SIGINT or SIGHUP; 1 a device or the
 * socket could not be had; 2 usage or configuration, and then nothing was started. SLUICE_HOST_PORT=off in the environment
 * leaves out sluice0, SLUICE_PRIVILEGES=keep leaves the process all of its privileges (live/privileges.ts).
 */
import { IoError } from '../../dataplane/ports/ffi.ts';
import type { IoBackend } from '../../dataplane/ports/uring.ts';
import { Configuration, type Reconfigurable } from '../api/configuration.ts';
import { ApiServer } from '../api/server.ts';
import { socketPath } from '../api/socket.ts';
import { compareConfig } from '../apply/index.ts';
import { quote } from '../config/errors.ts';
import { type Config, ConfigError, parseConfig, readConfigText } from '../config/index.ts';
import { checkKinds, LiveError } from '../live/devices.ts';
import {
  CAP_BPF,
  CAP_NET_ADMIN,
  CAP_NET_BIND_SERVICE,
  CAP_NET_RAW,
  CAP_PERFMON,
  dropPrivileges,
} from '../live/privileges.ts';
import { Signals } from '../live/stop.ts';
import { Supervisor } from '../live/supervisor.ts';
import { liveSource } from '../show/source.ts';
import type { SnmpAgent } from '../snmp/agent.ts';
import { EXIT_OK, oneOperand, parseArguments, UsageError } from './args.ts';

const COMMAND = 'sluice run';

export const RUN_USAGE = `Usage: sluice run FILE [--io auto|uring|readwrite|bpf] [--quiet]

Runs the router that FILE describes, until SIGTERM or Ctrl-C.

  --io BACKEND   how TAP queues are read and written (default: auto, io_uring where the kernel has it; bpf: small UDP
                 frames come by shared memory besides, which is faster, and the device counts them as dropped)
  --quiet        warnings only
`;

/** What a live router may do, once it runs. */
const NEEDED: readonly number[] = [CAP_NET_ADMIN, CAP_NET_RAW];

const BACKENDS: readonly string[] = ['auto', 'uring', 'readwrite', 'bpf'];

/** Runs the command with the arguments behind `run`; resolves to the exit code. */
export async function runCommand(argv: readonly string[]): Promise<number> {
  const args = parseArguments(COMMAND, argv, {
    io: { kind: 'value', expected: `one of ${BACKENDS.join(', ')}` },
    quiet: { kind: 'flag' },
  });
  if (args.flags.has('help')) {
    process.stdout.write(RUN_USAGE);
    return EXIT_OK;
  }
  const file = oneOperand(COMMAND, args.operands, 'a configuration FILE');
  const io = args.values.get('io') ?? 'auto';
  if (!BACKENDS.includes(io))
    throw new UsageError(COMMAND, `--io: expected auto, uring, readwrite or bpf, got ${quote(io)}`);
  const quiet = args.flags.has('quiet');
  let text: string;
  let config: Config;
  try {
    text = readConfigText(file);
    config = parseConfig(text, file);
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 2;
  }
  try {
    dropPrivileges(needed(config, io as IoBackend));
  } catch (error) {
    if (!(error instanceof IoError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return 1;
  }
  for (const warning of config.warnings) process.stderr.write(`warning: ${warning}\n`);
  return runRouter(text, config, io as IoBackend, quiet || config.logLevel === 'warn' || config.logLevel === 'error');
}

/** Capabilities that this configuration needs with a back end (numbers of linux/capability.h). */
export function needed(config: Config, io: IoBackend = 'auto'): number[] {
  const low = [config.api, config.snmp].some((server) => server !== null && server.listen.port < 1024);
  const kernel = config.offload.engine === 'kernel';
  const rings = io === 'bpf' && config.ports.some(({ kind }) => kind === 'tap');
  return [
    ...NEEDED,
    ...(kernel || rings ? [CAP_BPF] : []),
    ...(kernel ? [CAP_PERFMON] : []),
    ...(low ? [CAP_NET_BIND_SERVICE] : []),
  ];
}

function reconfigurable(supervisor: Supervisor): Reconfigurable {
  return {
    compare: (next) => compareConfig(supervisor.control, next),
    apply: (next) => supervisor.apply(next),
  };
}

async function runRouter(text: string, config: Config, io: IoBackend, quiet: boolean): Promise<number> {
  const log = (level: 'info' | 'warn', message: string): void => {
    if (level === 'warn') process.stderr.write(`warning: ${message}\n`);
    else if (!quiet) process.stderr.write(`${message}\n`);
  };
  const hostPort = process.env.SLUICE_HOST_PORT !== 'off' && process.getuid?.() === 0;
  const signals = new Signals();
  let supervisor: Supervisor | null = null;
  let api: ApiServer | null = null;
  let agent: SnmpAgent | null = null;
  let page = '';
  const abandon = (): void => {
    api?.abandon();
    supervisor?.abandon();
  };
  signals.abandon = abandon;
  try {
    checkKinds(config);
    // The socket first: it also says that another router runs here already.
    api = await ApiServer.listen(socketPath(config.control.socket));
    supervisor = await Supervisor.start(config, { log, hostPort, io });
    const configuration = new Configuration(text, config, reconfigurable(supervisor), log);
    api.serve(liveSource(supervisor), configuration);
    if (config.api !== null) page = await api.listenTcp(config.api);
    // The package is loaded when somebody wants it.
    if (config.snmp !== null)
      agent = await (await import('../snmp/agent.ts')).SnmpAgent.start(config.snmp, liveSource(supervisor));
  } catch (error) {
    signals.release();
    await api?.close();
    await supervisor?.stop();
    if (!(error instanceof IoError) && !(error instanceof LiveError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return error instanceof LiveError ? 2 : 1;
  }
  const { workers } = supervisor;
  log(
    'info',
    `sluice: running, ${config.ports.length} ports, ${workers} worker${workers === 1 ? '' : 's'}; control socket ${api.path}`,
  );
  if (page !== '') log('info', `sluice: dashboard and API on ${page} with the token of api.token`);
  if (agent !== null) log('info', `sluice: SNMP on ${config.snmp?.listen.address} port ${agent.port}`);
  const [router, server, manager] = [supervisor, api, agent];
  const signal = await signals.until(
    {
      stop: async () => {
        manager?.close();
        await server.close();
        await router.stop();
      },
      abandon,
    },
    router.stopped,
  );
  log('info', `sluice: stopped${signal === null ? '' : ` by ${signal}`}`);
  return 0;
}
