/** Answering: runs a question to the router and turns a refusal into the exit code of the command. */
import { ApiError } from '../api/client.ts';
import { EXIT_FAILED, EXIT_OK, EXIT_USAGE } from './args.ts';

/** Resolves to 0; to 2 when the router refuses the question, to 1 when there is none. Other errors pass. */
export async function answering(question: () => Promise<void>): Promise<number> {
  try {
    await question();
    return EXIT_OK;
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    process.stderr.write(`${error.message}\n`);
    return error.status === 400 ? EXIT_USAGE : EXIT_FAILED;
  }
}
