/**
 * Agent: answers SNMP v2c and v3, read only, from what `sluice show` looks at.
 *
 * npm's net-snmp does the protocol; it answers from a tree of values, which is brought up to date when somebody asks and
 * the last time was more than half a second ago, so that nobody asking costs nothing. Datagrams come from anybody: what
 * the package throws at one is caught here and ends with it.
 */
import { createSocket, type Socket } from 'node:dgram';
import snmp, { type Agent, type Mib, type MibRequest, type Value } from 'net-snmp';
import { IoError } from '../../dataplane/ports/ffi.ts';
import type { SnmpConfig } from '../config/index.ts';
import type { ShowSource } from '../show/source.ts';
import { SCALARS, TABLES, type TableName, type TableObject } from './objects.ts';
import { scalarValues, tableRows } from './rows.ts';

const FRESH_MS = 500;
const READ_ONLY = snmp.MaxAccess['read-only'];
const NOT_ACCESSIBLE = snmp.MaxAccess['not-accessible'];

export class SnmpAgent {
  /** The port that it listens on. */
  readonly port: number;
  private readonly source: ShowSource;
  private readonly config: SnmpConfig;
  private readonly agent: Agent;
  private readonly mib: Mib;
  /** Rows in the tree by table and index. */
  private readonly rows = new Map<TableName, Map<string, Value[]>>();
  private updated = Number.NEGATIVE_INFINITY;

  /** Listens and answers. Errors: IoError. */
  static async start(config: SnmpConfig, source: ShowSource): Promise<SnmpAgent> {
    const { family, address, port } = config.listen;
    const socket = createSocket({ type: family === 4 ? 'udp4' : 'udp6', ipv6Only: family === 6 });
    const code = await new Promise<string>((resolve) => {
      socket.once('error', (error: NodeJS.ErrnoException) => resolve(error.code ?? error.message));
      socket.bind(port, address, () => resolve(''));
    });
    if (code !== '') {
      socket.close();
      const where = `snmp.listen ${address} port ${port}`;
      throw new IoError(where, 'to listen there', code, 'choose another address or port (below 1024 needs root)', code);
    }
    return new SnmpAgent(config, source, socket);
  }

  private constructor(config: SnmpConfig, source: ShowSource, socket: Socket) {
    this.config = config;
    this.source = source;
    this.port = socket.address().port;
    const { family, address } = config.listen;
    this.agent = snmp.createAgent(
      {
        accessControlModelType: snmp.AccessControlModelType.Simple,
        engineID: engineId(source),
        transport: family === 4 ? 'udp4' : 'udp6',
        address,
        port: this.port,
        dgramModule: { createSocket: () => guarded(socket) },
      },
      // Requests that are not allowed or make no sense: they get SNMP's own answer, or none.
      () => {},
    );
    this.mib = this.agent.getMib();
    this.register();
    this.admit();
    this.update();
  }

  private register(): void {
    const handler = (request: MibRequest): void => {
      if (performance.now() - this.updated > FRESH_MS) this.update();
      request.done();
    };
    for (const { name, oid, type } of SCALARS)
      this.mib.registerProvider({
        name,
        type: snmp.MibProviderType.Scalar,
        oid,
        scalarType: snmp.ObjectType[type],
        maxAccess: READ_ONLY,
        handler,
      });
    for (const [name, table] of Object.entries(TABLES) as [TableName, TableObject][]) {
      this.rows.set(name, new Map());
      this.mib.registerProvider({
        name,
        type: snmp.MibProviderType.Table,
        oid: table.oid,
        maxAccess: NOT_ACCESSIBLE,
        tableColumns: table.columns.map((column) => ({
          number: column.number,
          name: column.name,
          type: snmp.ObjectType[column.type],
          maxAccess: column.index ? NOT_ACCESSIBLE : READ_ONLY,
        })),
        tableIndex: table.index.map((columnName) =>
          table.foreign === undefined ? { columnName } : { columnName, foreign: table.foreign },
        ),
        handler,
      });
    }
  }

  private admit(): void {
    const authorizer = this.agent.getAuthorizer();
    const access = authorizer.getAccessControlModel();
    const { community, users } = this.config;
    if (community !== '') {
      authorizer.addCommunity(community);
      access.setCommunityAccess(community, snmp.AccessLevel.ReadOnly);
    }
    for (const { name, auth, authKey, privacy, privacyKey } of users) {
      const { authNoPriv, authPriv } = snmp.SecurityLevel;
      authorizer.addUser({
        name,
        level: privacy === null ? authNoPriv : authPriv,
        authProtocol: snmp.AuthProtocols[auth],
        authKey,
        ...(privacy === null ? {} : { privProtocol: snmp.PrivProtocols[privacy], privKey: privacyKey }),
      });
      access.setUserAccess(name, snmp.AccessLevel.ReadOnly);
    }
  }

  /** Brings the tree up to date: values of rows that stay, then what has come and gone. */
  private update(): void {
    this.updated = performance.now();
    for (const [name, value] of Object.entries(scalarValues(this.source, this.config)))
      this.mib.setScalarValue(name, value);
    for (const [name, rows] of Object.entries(tableRows(this.source)) as [TableName, Value[][]][])
      this.updateTable(name, TABLES[name], rows);
  }

  private updateTable(name: TableName, table: TableObject, rows: readonly Value[][]): void {
    const known = this.rows.get(name)!;
    const now = new Map<string, Value[]>();
    // A foreign index stands before the table's own columns.
    const foreign = table.foreign === undefined ? 0 : table.index.length;
    const indexLength = table.index.length;
    for (const row of rows) {
      const index = row.slice(0, indexLength);
      const key = index.map((value) => (typeof value === 'object' ? value.toString('hex') : String(value))).join(' ');
      now.set(key, row);
      const old = known.get(key);
      if (old === undefined) {
        this.mib.addTableRow(name, row);
        continue;
      }
      table.columns.forEach((column, n) => {
        const value = row[foreign + n];
        if (!column.index && !same(value, old[foreign + n]))
          this.mib.setTableSingleCell(name, column.number, index, value);
      });
    }
    for (const [key, row] of known) if (!now.has(key)) this.mib.deleteTableRow(name, row.slice(0, indexLength));
    this.rows.set(name, now);
  }

  close(): void {
    this.agent.close();
  }
}

function same(a: Value, b: Value): boolean {
  return typeof a === 'object' && typeof b === 'object' ? a.equals(b) : a === b;
}

/** SnmpEngineID (RFC 3411 §5): an enterprise's number, format 3, a MAC. The same at every start. */
function engineId(source: ShowSource): string {
  const mac = source.config.ports.find((port) => port.mac !== null)?.mac?.text ?? '02:00:00:00:00:01';
  return `8000b98303${mac.replaceAll(':', '')}`;
}

/** The socket as net-snmp may have it: bound already, and what a datagram makes it throw ends here. */
function guarded(socket: Socket): Socket {
  const on = socket.on.bind(socket) as (name: string, listener: (...words: unknown[]) => void) => Socket;
  return Object.assign(socket, {
    bind: () => socket,
    on: (name: string, listener: (...words: unknown[]) => void) =>
      on(name, (...words) => {
        try {
          listener(...words);
        } catch {
          // A datagram that is no SNMP, or none that the package understands.
        }
      }),
  });
}
