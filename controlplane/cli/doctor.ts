/**
 * `sluice doctor`: what this machine has, what each missing thing disables, and the command that mends it.
 *
 * The looking itself is in controlplane/doctor.ts. Exit code 0 when the basics work (inline and replay), else 1.
 */
import { doctor, doctorExitCode, formatDoctor } from '../doctor.ts';
import { oneOperand, parseArguments } from './args.ts';

const HELP = `Usage: sluice doctor [--json]

Looks at this machine and changes nothing: what is there, what is missing, what that disables, and the command that
mends it. Exit code 0 when the router runs inline and replays captures, else 1.
`;

export function doctorCommand(argv: string[]): number {
  const { flags, operands } = parseArguments('sluice doctor', argv, { json: { kind: 'flag', alias: 'j' } });
  if (flags.has('help')) {
    process.stdout.write(HELP);
    return 0;
  }
  if (operands.length > 0) oneOperand('sluice doctor', ['', ...operands], 'no operand');
  const report = doctor();
  process.stdout.write(flags.has('json') ? `${JSON.stringify(report)}\n` : formatDoctor(report));
  return doctorExitCode(report);
}
