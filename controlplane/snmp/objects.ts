/**
 * Objects: the scalars and tables of the agent as data: where each stands, what its columns are, which of them index it.
 *
 * IF-MIB (RFC 2863), IP-MIB (RFC 4293), NATV2-MIB (RFC 7659), the system group of SNMPv2-MIB (RFC 3418). A column that
 * the router does not count is not there, rather than 0: a manager shows it as missing.
 *
 * Not here: what needs a write (thresholds, notifications), statistics by address family.
 */
export type ColumnType =
  | 'Integer32'
  | 'Unsigned32'
  | 'Gauge32'
  | 'Counter32'
  | 'Counter64'
  | 'OctetString'
  | 'OID'
  | 'TimeTicks';

export interface ScalarObject {
  name: string;
  oid: string;
  type: ColumnType;
}

export interface TableObject {
  name: string;
  /** Of the entry: the table's OID and `.1`. */
  oid: string;
  /** Number, name, type; those that index the table and may not be read have `index: true`. */
  columns: readonly { number: number; name: string; type: ColumnType; index?: boolean }[];
  /** Names of the index columns in order; `foreign` names the table that they belong to. */
  index: readonly string[];
  foreign?: string;
}

const column = (number: number, name: string, type: ColumnType) => ({ number, name, type });
const index = (number: number, name: string, type: ColumnType) => ({ number, name, type, index: true });

const SYSTEM = '1.3.6.1.2.1.1';
const IP = '1.3.6.1.2.1.4';
const NAT = '1.3.6.1.2.1.234.2';

export const SCALARS: readonly ScalarObject[] = [
  { name: 'sysDescr', oid: `${SYSTEM}.1`, type: 'OctetString' },
  { name: 'sysObjectID', oid: `${SYSTEM}.2`, type: 'OID' },
  { name: 'sysUpTime', oid: `${SYSTEM}.3`, type: 'TimeTicks' },
  { name: 'sysContact', oid: `${SYSTEM}.4`, type: 'OctetString' },
  { name: 'sysName', oid: `${SYSTEM}.5`, type: 'OctetString' },
  { name: 'sysLocation', oid: `${SYSTEM}.6`, type: 'OctetString' },
  { name: 'sysServices', oid: `${SYSTEM}.7`, type: 'Integer32' },
  { name: 'ifNumber', oid: '1.3.6.1.2.1.2.1', type: 'Integer32' },
  { name: 'ipForwarding', oid: `${IP}.1`, type: 'Integer32' },
  { name: 'ipDefaultTTL', oid: `${IP}.2`, type: 'Integer32' },
  { name: 'ipv6IpForwarding', oid: `${IP}.25`, type: 'Integer32' },
  { name: 'ipv6IpDefaultHopLimit', oid: `${IP}.26`, type: 'Integer32' },
];

export const TABLES = {
  ifTable: {
    name: 'ifTable',
    oid: '1.3.6.1.2.1.2.2.1',
    columns: [
      column(1, 'ifIndex', 'Integer32'),
      column(2, 'ifDescr', 'OctetString'),
      column(3, 'ifType', 'Integer32'),
      column(4, 'ifMtu', 'Integer32'),
      column(5, 'ifSpeed', 'Gauge32'),
      column(6, 'ifPhysAddress', 'OctetString'),
      column(7, 'ifAdminStatus', 'Integer32'),
      column(8, 'ifOperStatus', 'Integer32'),
      column(10, 'ifInOctets', 'Counter32'),
      column(11, 'ifInUcastPkts', 'Counter32'),
      column(13, 'ifInDiscards', 'Counter32'),
      column(14, 'ifInErrors', 'Counter32'),
      column(16, 'ifOutOctets', 'Counter32'),
      column(17, 'ifOutUcastPkts', 'Counter32'),
      column(20, 'ifOutErrors', 'Counter32'),
    ],
    index: ['ifIndex'],
  },
  ifXTable: {
    name: 'ifXTable',
    oid: '1.3.6.1.2.1.31.1.1.1',
    columns: [
      column(1, 'ifName', 'OctetString'),
      column(6, 'ifHCInOctets', 'Counter64'),
      column(7, 'ifHCInUcastPkts', 'Counter64'),
      column(10, 'ifHCOutOctets', 'Counter64'),
      column(11, 'ifHCOutUcastPkts', 'Counter64'),
      column(15, 'ifHighSpeed', 'Gauge32'),
      column(18, 'ifAlias', 'OctetString'),
    ],
    index: ['ifIndex'],
    foreign: 'ifTable',
  },
  ipAddressTable: {
    name: 'ipAddressTable',
    oid: `${IP}.34.1`,
    columns: [
      index(1, 'ipAddressAddrType', 'Integer32'),
      index(2, 'ipAddressAddr', 'OctetString'),
      column(3, 'ipAddressIfIndex', 'Integer32'),
      column(4, 'ipAddressType', 'Integer32'),
      column(5, 'ipAddressPrefix', 'OID'),
      column(6, 'ipAddressOrigin', 'Integer32'),
      column(7, 'ipAddressStatus', 'Integer32'),
    ],
    index: ['ipAddressAddrType', 'ipAddressAddr'],
  },
  ipNetToPhysicalTable: {
    name: 'ipNetToPhysicalTable',
    oid: `${IP}.35.1`,
    columns: [
      index(1, 'ipNetToPhysicalIfIndex', 'Integer32'),
      index(2, 'ipNetToPhysicalNetAddressType', 'Integer32'),
      index(3, 'ipNetToPhysicalNetAddress', 'OctetString'),
      column(4, 'ipNetToPhysicalPhysAddress', 'OctetString'),
      column(6, 'ipNetToPhysicalType', 'Integer32'),
      column(7, 'ipNetToPhysicalState', 'Integer32'),
    ],
    index: ['ipNetToPhysicalIfIndex', 'ipNetToPhysicalNetAddressType', 'ipNetToPhysicalNetAddress'],
  },
  natv2InstanceTable: {
    name: 'natv2InstanceTable',
    oid: `${NAT}.1.1`,
    columns: [
      index(1, 'natv2InstanceIndex', 'Unsigned32'),
      column(2, 'natv2InstanceAlias', 'OctetString'),
      column(3, 'natv2InstancePortMappingBehavior', 'Integer32'),
      column(4, 'natv2InstanceFilteringBehavior', 'Integer32'),
      column(5, 'natv2InstancePoolingBehavior', 'Integer32'),
      column(6, 'natv2InstanceFragmentBehavior', 'Integer32'),
      column(8, 'natv2InstancePortMapEntries', 'Unsigned32'),
      column(16, 'natv2InstancePortMapFailureDrops', 'Counter64'),
      column(17, 'natv2InstanceFragmentDrops', 'Counter64'),
      column(24, 'natv2InstanceLimitPortMapEntries', 'Unsigned32'),
    ],
    index: ['natv2InstanceIndex'],
  },
  natv2ProtocolTable: {
    name: 'natv2ProtocolTable',
    oid: `${NAT}.2.1`,
    columns: [
      index(1, 'natv2ProtocolInstanceIndex', 'Unsigned32'),
      index(2, 'natv2ProtocolNumber', 'Unsigned32'),
      column(3, 'natv2ProtocolPortMapEntries', 'Unsigned32'),
    ],
    index: ['natv2ProtocolInstanceIndex', 'natv2ProtocolNumber'],
  },
  natv2PoolTable: {
    name: 'natv2PoolTable',
    oid: `${NAT}.3.1`,
    columns: [
      index(1, 'natv2PoolInstanceIndex', 'Unsigned32'),
      index(2, 'natv2PoolIndex', 'Unsigned32'),
      column(3, 'natv2PoolRealm', 'OctetString'),
      column(4, 'natv2PoolAddressType', 'Integer32'),
      column(5, 'natv2PoolMinimumPort', 'Unsigned32'),
      column(6, 'natv2PoolMaximumPort', 'Unsigned32'),
      column(8, 'natv2PoolPortMapEntries', 'Unsigned32'),
    ],
    index: ['natv2PoolInstanceIndex', 'natv2PoolIndex'],
  },
  natv2PoolRangeTable: {
    name: 'natv2PoolRangeTable',
    oid: `${NAT}.4.1`,
    columns: [
      index(1, 'natv2PoolRangeInstanceIndex', 'Unsigned32'),
      index(2, 'natv2PoolRangePoolIndex', 'Unsigned32'),
      index(3, 'natv2PoolRangeRowIndex', 'Unsigned32'),
      column(4, 'natv2PoolRangeBegin', 'OctetString'),
      column(5, 'natv2PoolRangeEnd', 'OctetString'),
    ],
    index: ['natv2PoolRangeInstanceIndex', 'natv2PoolRangePoolIndex', 'natv2PoolRangeRowIndex'],
  },
  natv2PortMapTable: {
    name: 'natv2PortMapTable',
    oid: `${NAT}.6.1`,
    columns: [
      index(1, 'natv2PortMapInstanceIndex', 'Unsigned32'),
      index(2, 'natv2PortMapProtocol', 'Unsigned32'),
      index(3, 'natv2PortMapExternalRealm', 'OctetString'),
      index(4, 'natv2PortMapExternalAddressType', 'Integer32'),
      index(5, 'natv2PortMapExternalAddress', 'OctetString'),
      index(6, 'natv2PortMapExternalPort', 'Unsigned32'),
      column(7, 'natv2PortMapInternalRealm', 'OctetString'),
      column(8, 'natv2PortMapInternalAddressType', 'Integer32'),
      column(9, 'natv2PortMapInternalAddress', 'OctetString'),
      column(12, 'natv2PortMapInternalPort', 'Unsigned32'),
      column(13, 'natv2PortMapExternalPoolIndex', 'Unsigned32'),
      column(14, 'natv2PortMapSubscriberIndex', 'Unsigned32'),
    ],
    index: [
      'natv2PortMapInstanceIndex',
      'natv2PortMapProtocol',
      'natv2PortMapExternalRealm',
      'natv2PortMapExternalAddressType',
      'natv2PortMapExternalAddress',
      'natv2PortMapExternalPort',
    ],
  },
} as const satisfies Readonly<Record<string, TableObject>>;

export type TableName = keyof typeof TABLES;
