/** Types of what this folder uses of the package net-snmp, which brings none. */
declare module 'net-snmp' {
  import type { Socket } from 'node:dgram';

  /** Row and scalar values; Counter64 as eight bytes. */
  type Value = number | string | Buffer;

  interface Column {
    number: number;
    name: string;
    type: number;
    maxAccess: number;
  }

  interface MibRequest {
    done(error?: { errorStatus: number }): void;
  }

  interface Provider {
    name: string;
    type: number;
    oid: string;
    maxAccess: number;
    scalarType?: number;
    tableColumns?: Column[];
    tableIndex?: { columnName: string; foreign?: string }[];
    handler?: (request: MibRequest) => void;
  }

  interface Mib {
    registerProvider(provider: Provider): void;
    setScalarValue(name: string, value: Value): void;
    addTableRow(table: string, row: Value[]): void;
    setTableSingleCell(table: string, column: number, index: Value[], value: Value): void;
    deleteTableRow(table: string, index: Value[]): void;
  }

  interface AccessControl {
    setCommunityAccess(community: string, level: number): void;
    setUserAccess(user: string, level: number): void;
  }

  interface Authorizer {
    addCommunity(community: string): void;
    addUser(user: Record<string, string | number>): void;
    getAccessControlModel(): AccessControl;
  }

  interface Agent {
    getMib(): Mib;
    getAuthorizer(): Authorizer;
    close(): void;
  }

  const snmp: {
    createAgent(
      options: {
        accessControlModelType: number;
        engineID: string;
        transport: string;
        address: string;
        port: number;
        dgramModule: { createSocket(): Socket };
      },
      callback: (error: Error | null) => void,
    ): Agent;
    AccessControlModelType: { None: number; Simple: number };
    AccessLevel: { None: number; ReadOnly: number; ReadWrite: number };
    MaxAccess: Readonly<Record<string, number>>;
    MibProviderType: { Scalar: number; Table: number };
    ObjectType: Readonly<Record<string, number>>;
    SecurityLevel: { noAuthNoPriv: number; authNoPriv: number; authPriv: number };
    AuthProtocols: Readonly<Record<string, number>>;
    PrivProtocols: Readonly<Record<string, number>>;
  };
  export default snmp;
  export type { Agent, Column, Mib, MibRequest, Provider, Value };
}
