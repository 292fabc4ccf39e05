/** Text of an explanation: one paragraph a packet, one line a stage, what was decided first. */
import type { Explained, Explanation } from './explain.ts';
import type { Step } from './stages.ts';

const INDENT = ' '.repeat(20);

export function explainText(explained: Explained): string {
  const { packets, copy } = explained;
  const head = `explained on a copy of the running state: ${copy.connections} connections, ${copy.milliseconds} ms; nothing was sent`;
  return [...packets.map(packetText), head].join('\n\n');
}

function packetText(packet: Explanation): string {
  const lines = [`${packet.port} receives ${packet.bytes} bytes: ${packet.summary}`, ''];
  for (const step of packet.stages) lines.push(...stepLines(step));
  lines.push('', `verdict: ${verdictLine(packet)}`);
  for (const answer of packet.answers) {
    lines.push('', 'the router’s answer:');
    for (const step of answer.stages) lines.push(...stepLines(step));
    lines.push(`  ${answer.verdict}`);
  }
  for (const ask of packet.asks) lines.push(`asks: ${ask}`);
  for (const { port, summary } of packet.sent) lines.push(`sent: ${port}: ${summary}`);
  const { connection } = packet;
  if (connection !== null) {
    lines.push(`connection: ${connection.line}`);
    lines.push(`engine: ${connection.engine.installed ? 'carries it' : 'does not carry it'}: ${connection.engine.why}`);
  }
  return lines.join('\n');
}

function verdictLine({ verdict, why, sent }: Explanation): string {
  if (why !== undefined) return `drop ${why}`;
  if (verdict === 'delivered' || (verdict === 'consumed' && sent.some(({ port }) => port === 'sluice0')))
    return 'delivered to the router itself';
  if (verdict === 'consumed') return 'went on as other frames';
  return verdict;
}

function stepLines(step: Step): string[] {
  const lines = [`  ${step.stage.padEnd(17)} ${step.decided}`];
  if (step.looked_up !== undefined) lines.push(`${INDENT}looked up ${step.looked_up}`);
  if (step.found !== undefined) lines.push(`${INDENT}found ${step.found}`);
  if (step.where !== undefined) lines.push(`${INDENT}because of ${step.where}`);
  return lines;
}
